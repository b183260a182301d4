//! Requests of the KIP-848 protocol: from the request to the group that it is about, and back.

use kafka_protocol::{
    messages::{self, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse},
    protocol::StrBytes,
};
use protocol::ErrorCode;
use uuid::Uuid;

use super::{
    consumer::{self, Beat, Leaving, Refusal},
    effects::Effects,
    ids::{GroupEpoch, GroupId},
    replies,
    request::GroupReply,
    requests::Handling,
    shard::{Group, GroupEntry},
};

fn not_found(group_id: &str) -> Refusal {
    Refusal::new(ErrorCode::GroupIdNotFound, format!("Group {group_id} not found."))
}

fn not_a_consumer_group(group_id: &str) -> Refusal {
    Refusal::new(
        ErrorCode::GroupIdNotFound,
        format!("Group {group_id} is not a consumer group."),
    )
}

impl Handling<'_> {
    pub(super) fn consumer_heartbeat(&mut self, body: &ConsumerGroupHeartbeatRequest, fresh_member_id: Uuid) {
        let reply = self.try_consumer_heartbeat(body, fresh_member_id);
        match reply {
            Ok(reply) => self.answer_committed(GroupReply::ConsumerHeartbeat(reply)),
            Err(Refusal { error, why }) => {
                self.answer_now(replies::consumer_heartbeat_refused(error, Some(why)));
            }
        }
    }

    fn try_consumer_heartbeat(
        &mut self,
        body: &ConsumerGroupHeartbeatRequest,
        fresh_member_id: Uuid,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let caller = self.caller;
        if let Some(refusal) = consumer::refuse(caller.api_version, body, &self.shard.config) {
            return Err(refusal);
        }
        let beat = Beat {
            caller,
            body,
            fresh_member_id,
        };
        let id = GroupId::from(body.group_id.as_str());
        match GroupEpoch(body.member_epoch) {
            GroupEpoch::JOINING => {
                let (entry, mut fx) = self.group_or_new(id.as_str());
                join(entry, &id, &beat, &mut fx)
            }
            GroupEpoch::LEAVING | GroupEpoch::AWAY => {
                let (entry, mut fx) = self.group(id.as_str()).ok_or_else(|| not_found(id.as_str()))?;
                leave(entry, &id, &beat, &mut fx)
            }
            _ => {
                let (entry, mut fx) = self.group(id.as_str()).ok_or_else(|| not_found(id.as_str()))?;
                let Group::Consumer(group) = &mut entry.group else {
                    return Err(not_a_consumer_group(id.as_str()));
                };
                let fresh = consumer::fresh(&id, Some(group), &beat, &fx)?;
                group.heartbeat(&beat, fresh, &mut fx)
            }
        }
    }

    pub(super) fn describe_consumer(&mut self, group_id: &messages::GroupId) {
        let shard = &*self.shard;
        let entry = shard.groups.get(group_id.as_str());
        let refused = |Refusal { error, why }| replies::describe_consumer_refused(group_id, error, Some(why));
        let reply = match entry.map(|entry| &entry.group) {
            Some(Group::Consumer(group)) => {
                GroupReply::DescribeConsumer(group.describe(group_id, &shard.config, &shard.topics.view))
            }
            Some(Group::Classic(_)) => refused(not_a_consumer_group(group_id.as_str())),
            None => refused(not_found(group_id.as_str())),
        };
        self.answer_committed(reply);
    }
}

/// A member that joins, or joins anew. A classic group becomes a consumer group for it, but not for one that
/// is refused.
fn join(
    entry: &mut GroupEntry,
    id: &GroupId,
    beat: &Beat<'_>,
    fx: &mut Effects<'_>,
) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
    let fresh = match &entry.group {
        Group::Consumer(group) => consumer::fresh(id, Some(group), beat, fx)?,
        Group::Classic(group) => {
            consumer::check_room(group.members(), fx.config)?;
            consumer::fresh(id, None, beat, fx)?
        }
    };
    entry.upgrade(id, fx)?.heartbeat(beat, fresh, fx)
}

/// A member that leaves, for good or for a while.
fn leave(
    entry: &mut GroupEntry,
    id: &GroupId,
    beat: &Beat<'_>,
    fx: &mut Effects<'_>,
) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
    let Group::Consumer(group) = &mut entry.group else {
        return Err(not_a_consumer_group(id.as_str()));
    };
    match group.leaving(beat)? {
        Leaving::Away(member) => group.go_away(&member, fx),
        Leaving::ForGood(member) => entry.remove_members(&[member], fx),
    }
    let member_id: StrBytes = beat.body.member_id.clone();
    Ok(ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(member_id))
        .with_member_epoch(beat.body.member_epoch))
}
