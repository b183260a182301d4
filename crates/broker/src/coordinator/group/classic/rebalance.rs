//! From one generation to the next.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::SyncGroupResponse;
use protocol::ErrorCode;

use super::{ClassicGroup, InitialDelay, State, member::timeout, roster::refuse_sync};
use crate::coordinator::group::{
    effects::Effects,
    ids::MemberId,
    records::{Change, GroupMetadata},
    request::GroupReply,
    timers::TimerKey,
};

/// How long a rebalance that nobody joined waits at least before it looks again: members may say
/// that they take no time at all.
const SHORTEST_WAIT_MS: u64 = 100;

impl ClassicGroup {
    /// Something about the members changed: begins a rebalance, or goes on with the one that is
    /// under way.
    pub(super) fn rebalance(&mut self, fx: &mut Effects<'_>) {
        match self.state {
            State::PreparingRebalance { .. } => self.complete_join_if_ready(fx),
            State::Empty | State::CompletingRebalance | State::Stable => self.prepare_rebalance(fx),
        }
    }

    /// What follows the removal of a member.
    pub(super) fn after_removal(&mut self, fx: &mut Effects<'_>) {
        match self.state {
            State::CompletingRebalance | State::Stable => self.prepare_rebalance(fx),
            State::PreparingRebalance { .. } | State::Empty => self.after_pending_removal(fx),
        }
    }

    /// What follows when someone is no longer expected to join.
    pub(super) fn after_pending_removal(&mut self, fx: &mut Effects<'_>) {
        if matches!(self.state, State::PreparingRebalance { .. }) && self.all_joined() {
            self.complete_join(fx);
        }
    }

    /// Begins a rebalance: everyone is to join again, within the longest rebalance timeout.
    pub(super) fn prepare_rebalance(&mut self, fx: &mut Effects<'_>) {
        if self.state == State::CompletingRebalance {
            self.reset_assignments(ErrorCode::RebalanceInProgress, fx);
        }
        self.expect_no_syncs(fx);
        let rebalance_timeout = self.rebalance_timeout();
        let initial = (self.state == State::Empty).then(|| {
            let delay_ms = timeout(fx.config.group_initial_rebalance_delay_ms);
            InitialDelay {
                delay_ms,
                remaining_ms: rebalance_timeout.saturating_sub(delay_ms),
                joined_since: false,
            }
        });
        self.state = State::PreparingRebalance { initial };
        self.state_since_ms = Some(fx.now.wall_ms);
        match initial {
            Some(initial) => fx.schedule(TimerKey::Join(self.id.clone()), initial.delay_ms),
            None if self.all_joined() => self.complete_join(fx),
            None => fx.schedule(TimerKey::Join(self.id.clone()), rebalance_timeout),
        }
    }

    /// Ends the join phase if nobody is missing. A group's first rebalance waits its delay out: who
    /// else may come is not known.
    pub(super) fn complete_join_if_ready(&mut self, fx: &mut Effects<'_>) {
        if (self.state == State::PreparingRebalance { initial: None }) && self.all_joined() {
            self.complete_join(fx);
        }
    }

    /// Makes the next generation of those that joined.
    pub(super) fn complete_join(&mut self, fx: &mut Effects<'_>) {
        fx.cancel(&TimerKey::Join(self.id.clone()));
        // Static members keep their place until their session ends.
        let missing: Vec<MemberId> = self
            .members
            .values()
            .filter(|member| member.awaiting_join.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for member_id in &missing {
            self.remove(member_id, fx);
        }
        if !self.elect_joined_leader() && !self.members.is_empty() {
            // Only static members are left, and none came: until one does, or their sessions end.
            self.state = State::PreparingRebalance { initial: None };
            let again = self.rebalance_timeout().max(SHORTEST_WAIT_MS);
            fx.schedule(TimerKey::Join(self.id.clone()), again);
            return;
        }
        self.generation = self.generation.next();
        self.protocol = self.vote();
        self.state_since_ms = Some(fx.now.wall_ms);
        self.expect_no_syncs(fx);
        if self.members.is_empty() {
            self.state = State::Empty;
            self.leader = None;
            // An empty group always fits.
            self.write_generation(self.state_since_ms, fx);
            return;
        }
        self.state = State::CompletingRebalance;
        self.subscribed = self.topics_of_members();
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for member_id in ids {
            let Some(member) = self.members.get_mut(&member_id) else {
                continue;
            };
            member.is_new = false;
            if let Some(join) = member.awaiting_join.take() {
                self.answer_joined(join.token, &member_id, fx);
            }
            self.renew_session(member_id.as_str(), fx);
            self.pending_sync.insert(member_id);
        }
        fx.schedule(TimerKey::Sync(self.id.clone()), self.rebalance_timeout());
    }

    /// The time to sync is up: who did not is given up, and the others share anew.
    pub(in super::super) fn sync_time_is_up(&mut self, fx: &mut Effects<'_>) {
        let late = std::mem::take(&mut self.pending_sync);
        if late.is_empty() || !matches!(self.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        for member_id in &late {
            self.remove(member_id, fx);
        }
        self.prepare_rebalance(fx);
    }

    /// Nobody is expected to sync (any more).
    pub(super) fn expect_no_syncs(&mut self, fx: &mut Effects<'_>) {
        self.pending_sync.clear();
        fx.cancel(&TimerKey::Sync(self.id.clone()));
    }

    /// Takes all assignments back and refuses the members that wait for theirs.
    pub(super) fn reset_assignments(&mut self, error: ErrorCode, fx: &mut Effects<'_>) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            if refuse_sync(member, error, fx) {
                fx.start_session(&self.id, &member.id, member.session_timeout());
            }
        }
    }

    /// Hands everyone that waits for its assignment what it got.
    pub(super) fn hand_out_assignments(&mut self, fx: &mut Effects<'_>) {
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for member_id in ids {
            let Some(member) = self.members.get_mut(&member_id) else {
                continue;
            };
            if let Some(sync) = member.awaiting_sync.take() {
                let reply = self.synced(&member_id);
                fx.answer_committed(sync.token, GroupReply::Sync(reply));
                self.renew_session(member_id.as_str(), fx);
            }
        }
    }

    /// A member's assignment in this generation.
    pub(super) fn synced(&self, member_id: &MemberId) -> SyncGroupResponse {
        let assignment = self
            .members
            .get(member_id)
            .map(|member| member.assignment.clone());
        SyncGroupResponse::default()
            .with_protocol_type(self.protocol_type.as_deref().map(super::wire))
            .with_protocol_name(self.protocol.as_deref().map(super::wire))
            .with_assignment(assignment.unwrap_or_default())
    }

    /// Writes the generation down as it is and takes over what was written. False, and nothing is
    /// done, when it would not fit into a batch.
    pub(super) fn write_generation(&mut self, since_ms: Option<i64>, fx: &mut Effects<'_>) -> bool {
        let record = Arc::new(self.to_record(since_ms));
        let encoded = Change::Classic(self.id.clone(), Some(record.clone())).encode();
        if encoded.size() > fx.config.max_records_bytes && !record.members.is_empty() {
            return false;
        }
        fx.records([encoded]);
        self.apply(Some(record));
        true
    }

    /// Whether the generation as it is can be written down in a batch that has so many bytes already.
    pub(in super::super) fn can_be_written(&self, beside: usize, fx: &Effects<'_>) -> bool {
        if self.protocol.is_none() && !self.members.is_empty() {
            return false;
        }
        let record = Arc::new(self.to_record(Some(fx.now.wall_ms)));
        let encoded = Change::Classic(self.id.clone(), Some(record)).encode();
        beside + encoded.framed_size() <= fx.config.max_records_bytes
    }

    /// The generation as the log will have it.
    fn to_record(&self, since_ms: Option<i64>) -> GroupMetadata {
        let protocol = self.protocol.as_deref();
        GroupMetadata {
            protocol_type: Arc::from(self.protocol_type()),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_timestamp_ms: since_ms,
            members: self
                .members
                .values()
                .map(|member| member.to_record(protocol.unwrap_or_default()))
                .collect(),
        }
    }
}
