//! Which offsets of a consumer group may be committed, fetched and forgotten.

use kafka_protocol::messages::{OffsetCommitRequest, offset_fetch_request::OffsetFetchRequestGroup};
use protocol::ErrorCode;

use super::ConsumerGroup;
use crate::coordinator::group::{ids::GroupEpoch, records::OffsetValue};

/// From which version on a commit tells of a stale epoch: members of this protocol need it.
const COMMIT_KNOWS_STALE_EPOCH: i16 = 9;

impl ConsumerGroup {
    /// Whether an offset may be committed by whoever says to be that member in that epoch.
    pub(in super::super) fn check_commit(
        &self,
        api_version: i16,
        body: &OffsetCommitRequest,
    ) -> Result<(), ErrorCode> {
        let epoch = body.generation_id_or_member_epoch;
        // A consumer that manages its partitions itself, or an operator: only while nobody else is at it.
        if epoch < 0 && self.is_empty() {
            return Ok(());
        }
        let member = self
            .ledger
            .subscription(&body.member_id)
            .ok_or(ErrorCode::UnknownMemberId)?;
        if member.classic.is_none() && api_version < COMMIT_KNOWS_STALE_EPOCH {
            return Err(ErrorCode::UnsupportedVersion);
        }
        self.check_epoch(&body.member_id, epoch)
    }

    /// Whether offsets may be fetched by whoever says to be that member in that epoch, or by nobody in
    /// particular.
    pub(in super::super) fn check_fetch(&self, group: &OffsetFetchRequestGroup) -> Result<(), ErrorCode> {
        match &group.member_id {
            None if group.member_epoch < 0 => Ok(()),
            member => {
                let member = member.as_deref().unwrap_or_default();
                if !self.has_member(member) {
                    return Err(ErrorCode::UnknownMemberId);
                }
                self.check_epoch(member, group.member_epoch)
            }
        }
    }

    fn check_epoch(&self, member: &str, epoch: i32) -> Result<(), ErrorCode> {
        if self.ledger.current(member).epoch == GroupEpoch(epoch) {
            return Ok(());
        }
        let speaks_classic = self
            .ledger
            .subscription(member)
            .is_some_and(|member| member.classic.is_some());
        Err(if speaks_classic {
            ErrorCode::IllegalGeneration
        } else {
            ErrorCode::StaleMemberEpoch
        })
    }

    /// Whether members subscribe to a topic.
    pub(in super::super) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.ledger.names_topic(topic)
    }

    /// Whether an offset has outlived its use: nobody subscribes to its topic, and it was committed a
    /// retention time ago (or its own expiry has come).
    pub(in super::super) fn has_expired(
        &self,
        topic: &str,
        offset: &OffsetValue,
        now_ms: i64,
        retention_ms: i64,
    ) -> bool {
        if self.is_subscribed_to(topic) {
            return false;
        }
        match offset.expire_timestamp_ms {
            Some(at) => now_ms >= at,
            None => now_ms.saturating_sub(offset.commit_timestamp_ms) >= retention_ms,
        }
    }
}
