//! ConsumerGroupHeartbeat: a member says what is new with it, and is told what is new for it.

use std::sync::Arc;

use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    consumer_group_heartbeat_response::{Assignment as WireAssignment, TopicPartitions},
};
use protocol::{PartitionIndex, TopicId};
use uuid::Uuid;

use super::{ConsumerGroup, patterns::Fresh, refusal::Refusal, seat::Seat};
use crate::coordinator::group::{
    assignor::Assignment,
    config::GroupConfig,
    effects::Effects,
    ids::{GroupEpoch, InstanceId, LONGEST_STRING, MemberId, clip},
    records::{ConsumerChange, CurrentAssignment, MemberSubscription},
    request::Caller,
    timers::TimerKey,
};

/// One ConsumerGroupHeartbeat as it is worked on.
#[derive(Debug)]
pub(in super::super) struct Beat<'a> {
    pub(in super::super) caller: &'a Caller,
    pub(in super::super) body: &'a ConsumerGroupHeartbeatRequest,
    pub(in super::super) fresh_member_id: Uuid,
}

impl Beat<'_> {
    /// The member's id: its own, or a fresh one for a member of version 0 that has none yet.
    pub(super) fn member_id(&self) -> MemberId {
        if self.body.member_id.is_empty() {
            MemberId::from(self.fresh_member_id.to_string())
        } else {
            MemberId::from(self.body.member_id.as_str())
        }
    }

    /// What the member says that it owns.
    pub(super) fn owned(&self) -> Option<Assignment> {
        let mut owned = Assignment::new();
        for topic in self.body.topic_partitions.as_ref()? {
            let partitions = topic.partitions.iter().copied().map(PartitionIndex);
            owned
                .entry(TopicId(topic.topic_id))
                .or_default()
                .extend(partitions);
        }
        Some(owned)
    }

    /// Whether the member says nothing of itself that it has not said before: so do most heartbeats.
    fn repeats(&self, before: &MemberSubscription) -> bool {
        let body = self.body;
        let instance = before.instance_id.as_ref().map(InstanceId::as_str);
        let client_host = clip(&self.caller.client_host, LONGEST_STRING);
        body.instance_id
            .as_deref()
            .is_none_or(|said| Some(said) == instance)
            && body.rack_id.is_none()
            && body.rebalance_timeout_ms == -1
            && body.server_assignor.is_none()
            && body.subscribed_topic_names.is_none()
            && body.subscribed_topic_regex.is_none()
            && *before.client_id == *self.caller.client_id
            && *before.client_host == *client_host
            && before.classic.is_none()
    }

    /// What the member says of itself; what it left out is as it was.
    fn said(&self, before: Option<&MemberSubscription>) -> MemberSubscription {
        let body = self.body;
        let mut said = before.cloned().unwrap_or_default();
        if let Some(instance) = &body.instance_id {
            said.instance_id = Some(InstanceId::from(instance.as_str()));
        }
        if let Some(rack) = &body.rack_id {
            said.rack_id = Some(rack.as_str().into());
        }
        if body.rebalance_timeout_ms != -1 {
            said.rebalance_timeout_ms = body.rebalance_timeout_ms;
        }
        if let Some(assignor) = &body.server_assignor {
            said.server_assignor = Some(assignor.as_str().into());
        }
        if let Some(names) = &body.subscribed_topic_names {
            said.topics = names.iter().map(|name| Arc::from(name.as_str())).collect();
        }
        if let Some(pattern) = &body.subscribed_topic_regex {
            said.pattern = Some(pattern.as_str())
                .filter(|pattern| !pattern.is_empty())
                .map(Arc::from);
        }
        said.client_id = self.caller.client_id.as_str().into();
        said.client_host = clip(&self.caller.client_host, LONGEST_STRING).into();
        said.classic = None;
        said
    }

    /// Whether the member says everything, and is to be told everything: it has just come, or had an error.
    fn is_full(&self) -> bool {
        let body = self.body;
        let subscribes = body.subscribed_topic_names.is_some() || body.subscribed_topic_regex.is_some();
        body.member_epoch == GroupEpoch::JOINING.0
            || body.rebalance_timeout_ms != -1 && subscribes && body.topic_partitions.is_some()
    }
}

/// Refuses a new member of a group that has as many as it may have.
pub(in super::super) fn check_room(members: usize, config: &GroupConfig) -> Result<(), Refusal> {
    let max_size = config.consumer_group_max_size;
    if members < max_size {
        Ok(())
    } else {
        Err(Refusal::full(max_size))
    }
}

impl ConsumerGroup {
    /// Takes a member's heartbeat. `fresh` is the expression in it, if it is not known yet.
    pub(in super::super) fn heartbeat(
        &mut self,
        beat: &Beat<'_>,
        fresh: Option<Fresh>,
        fx: &mut Effects<'_>,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let (id, owned) = (beat.member_id(), beat.owned());
        let seat = self.find_seat(beat, &id, owned.as_ref(), fx.config)?;
        let before = match &seat {
            Seat::New => None,
            Seat::Own => Some(&id),
            Seat::Of(holder) => Some(holder),
        };
        let had = before.map(|id| self.ledger.current(id.as_str()));
        let before = before.and_then(|id| self.ledger.subscription(id.as_str()));
        let spoke_classic = before.is_some_and(|before| before.classic.is_some());
        let repeats = seat == Seat::Own && before.is_some_and(|before| beat.repeats(before));
        let said = (!repeats).then(|| beat.said(before.map(AsRef::as_ref)));
        let mut changed = match said {
            Some(said) => {
                self.check_share(&id, &seat, &said, fresh.as_ref(), fx)?;
                self.admit(&id, seat, said, fx)?
            }
            None => false,
        };
        // Whatever comes of it: who is a member is one for as long as it is heard of.
        self.start_session(&id, fx);
        if spoke_classic {
            fx.cancel(&TimerKey::MemberJoin(self.id.clone(), id.clone()));
            fx.cancel(&TimerKey::MemberSync(self.id.clone(), id.clone()));
        }
        if let Some(Fresh {
            pattern,
            resolved,
            compiled,
        }) = fresh
        {
            self.compiled.insert(pattern.clone(), Ok(compiled));
            self.write(ConsumerChange::Pattern(pattern, Some(resolved)), fx);
            changed = true;
        }
        self.advance(&id, changed, owned.as_ref(), fx)?;
        let current = self.ledger.current(id.as_str());
        let has_changed = had.is_none_or(|had| had.assigned != current.assigned);
        let assignment = (beat.is_full() || has_changed).then(|| wire(&current.assigned));
        Ok(ConsumerGroupHeartbeatResponse::default()
            .with_member_id(Some(id.to_wire()))
            .with_member_epoch(current.epoch.0)
            .with_heartbeat_interval_ms(fx.config.consumer_heartbeat_interval_of(&self.id))
            .with_assignment(assignment))
    }

    /// The seat of a member that heartbeats, if there is one for it.
    pub(super) fn find_seat(
        &self,
        beat: &Beat<'_>,
        id: &MemberId,
        owned: Option<&Assignment>,
        config: &GroupConfig,
    ) -> Result<Seat, Refusal> {
        if !self.has_member(id.as_str()) {
            check_room(self.members(), config)?;
        }
        self.seat_of(id, beat.body, owned)
    }

    /// Writes down who a member is and what it says. True when that concerns the others.
    pub(super) fn admit(
        &mut self,
        id: &MemberId,
        seat: Seat,
        said: MemberSubscription,
        fx: &mut Effects<'_>,
    ) -> Result<bool, Refusal> {
        let before = match &seat {
            Seat::New => None,
            Seat::Own => self.ledger.subscription(id.as_str()),
            Seat::Of(holder) => self.ledger.subscription(holder.as_str()),
        };
        if seat == Seat::Own && before.is_some_and(|before| **before == said) {
            return Ok(false);
        }
        // In another rack it may be given other partitions.
        let changed = before.is_none_or(|before| {
            before.topics != said.topics || before.pattern != said.pattern || before.rack_id != said.rack_id
        });
        let member = ConsumerChange::Member(id.clone(), Some(Arc::new(said)));
        if !self.fits(&member, fx) {
            return Err(Refusal::too_large("What the member says of itself"));
        }
        match seat {
            Seat::New | Seat::Own => self.write(member, fx),
            Seat::Of(holder) => {
                let target = self.ledger.target(holder.as_str()).cloned();
                let current = CurrentAssignment {
                    epoch: GroupEpoch::JOINING,
                    previous_epoch: GroupEpoch::JOINING,
                    ..(*self.ledger.current(holder.as_str())).clone()
                };
                self.forget(&holder, fx);
                self.write(member, fx);
                if target.is_some() {
                    self.write(ConsumerChange::Target(id.clone(), target), fx);
                }
                self.write(ConsumerChange::Current(id.clone(), Some(Arc::new(current))), fx);
            }
        }
        Ok(changed)
    }

    /// Brings the group's epoch, its target and a member up to date, in this order.
    pub(super) fn advance(
        &mut self,
        id: &MemberId,
        changed: bool,
        owned: Option<&Assignment>,
        fx: &mut Effects<'_>,
    ) -> Result<(), Refusal> {
        let resolved_anew = self.refresh_patterns(fx);
        // A group leaves epoch 0 with its first member, even one that subscribes to nothing.
        let changed = changed || resolved_anew || self.ledger.epoch() == GroupEpoch::JOINING;
        if changed || self.topics_seen != Some(fx.topics.version) {
            self.follow_topics(changed, fx);
        }
        if self.ledger.epoch() != self.ledger.target_epoch() {
            self.assign(fx)?;
        }
        self.reconcile(id, owned, fx)
    }
}

fn wire(assigned: &Assignment) -> WireAssignment {
    let topics = assigned.iter().map(|(topic, partitions)| {
        TopicPartitions::default()
            .with_topic_id(topic.0)
            .with_partitions(partitions.iter().map(|partition| partition.0).collect())
    });
    WireAssignment::default().with_topic_partitions(topics.collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    fn beat<'a>(caller: &'a Caller, body: &'a ConsumerGroupHeartbeatRequest) -> Beat<'a> {
        Beat {
            caller,
            body,
            fresh_member_id: Uuid::nil(),
        }
    }

    #[test]
    fn a_heartbeat_that_leaves_everything_out_says_nothing_new() {
        let caller = |client_id| Caller {
            client_id: StrBytes::from_static_str(client_id),
            client_host: StrBytes::from_static_str("/127.0.0.1"),
            api_version: 1,
        };
        let silent = ConsumerGroupHeartbeatRequest::default()
            .with_instance_id(None)
            .with_rack_id(None)
            .with_rebalance_timeout_ms(-1)
            .with_subscribed_topic_names(None)
            .with_subscribed_topic_regex(None)
            .with_server_assignor(None);
        let instance = |id| Some(StrBytes::from_static_str(id));
        let joining = silent.clone().with_instance_id(instance("i"));
        let repeats = |client_id, body: ConsumerGroupHeartbeatRequest| {
            let before = beat(&caller("app"), &joining).said(None);
            let (caller, body) = (caller(client_id), body);
            beat(&caller, &body).repeats(&before)
        };
        assert!(repeats("app", silent.clone()));
        assert!(repeats("app", silent.clone().with_instance_id(instance("i"))));
        assert!(!repeats("app", silent.clone().with_instance_id(instance("j"))));
        assert!(!repeats("other", silent.clone()));
        assert!(!repeats("app", silent.clone().with_rebalance_timeout_ms(1)));
        assert!(!repeats(
            "app",
            silent.with_subscribed_topic_names(Some(Vec::new()))
        ));
    }
}
