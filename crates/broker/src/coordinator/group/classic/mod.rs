//! One group of the classic protocol: members join, the leader assigns, all sync.
//!
//! ```text
//!              first member joins              all joined, or time is up
//!   Empty ──────────────────────▶ PreparingRebalance ──────────────────▶ CompletingRebalance
//!     ▲                             │          ▲ ▲                          │        │
//!     └─────────────────────────────┘          │ └──────────────────────────┘        │ the leader's
//!       nobody is left                         │   a member joins, leaves,           │ assignment
//!                                              │   expires or does not sync          ▼
//!                                              └─────────────────────────────────── Stable
//! ```
//!
//! A group without members, offsets and record is forgotten; Kafka calls what is not there `Dead`.
//! Only two moments are written down: a generation that has its assignment, and a group that became
//! empty. Whatever lies between is between the coordinator and the members that wait at it; after a
//! failover they find out by an error and join again.

mod join;
mod leave;
mod member;
mod migrate;
mod rebalance;
mod roster;
mod sync;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kafka_protocol::{
    messages::{
        self, OffsetCommitRequest, describe_groups_response::DescribedGroup,
        list_groups_response::ListedGroup,
    },
    protocol::StrBytes,
};
use protocol::ErrorCode;

use self::member::Member;
pub(super) use self::{
    join::Join,
    leave::{leaving, left},
    member::supported,
    migrate::{Heir, NoBequest},
};
use super::{
    effects::Effects,
    embedded,
    ids::{GenerationId, GroupId, InstanceId, MemberId, wire},
    records::{GroupMetadata, OffsetValue},
    request::GroupReply,
    views::GroupKind,
};

/// What a group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has no members; at most pending ones, and offsets.
    Empty,
    /// Members are to join, those that are there and those that come.
    PreparingRebalance {
        /// The delay of a group's first rebalance, while it goes on.
        initial: Option<InitialDelay>,
    },
    /// There is a new generation; its members wait for what the leader assigns to them.
    CompletingRebalance,
    /// Every member has its assignment, or can ask for it.
    Stable,
}

/// How long the first rebalance of a group may still wait for more members (KIP-134).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InitialDelay {
    /// The wait that is under way.
    pub(super) delay_ms: u64,
    /// What is left after it.
    pub(super) remaining_ms: u64,
    /// Whether someone joined since it began.
    pub(super) joined_since: bool,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance { .. } => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A group and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClassicGroup {
    id: GroupId,
    state: State,
    /// Since when, in milliseconds since 1970; `None` where an old record did not say.
    state_since_ms: Option<i64>,
    generation: GenerationId,
    /// Set by the first member and kept for good; `None` for a group that only has offsets.
    protocol_type: Option<Arc<str>>,
    /// What the members of this generation agreed on.
    protocol: Option<Arc<str>>,
    leader: Option<MemberId>,
    members: BTreeMap<MemberId, Member>,
    static_members: BTreeMap<InstanceId, MemberId>,
    /// Ids that were given out with MEMBER_ID_REQUIRED, and not joined with yet.
    pending: BTreeSet<MemberId>,
    /// Members of this generation that have not synced yet.
    pending_sync: BTreeSet<MemberId>,
    /// The topics that members consume; `None` if that cannot be known.
    subscribed: Option<BTreeSet<Arc<str>>>,
    /// What the log says of this group.
    recorded: Option<Arc<GroupMetadata>>,
}

impl ClassicGroup {
    /// A group of which nothing is known but its name.
    pub(super) fn new(id: GroupId) -> Self {
        Self {
            id,
            state: State::Empty,
            state_since_ms: None,
            generation: GenerationId(0),
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            subscribed: None,
            recorded: None,
        }
    }

    /// What the log says of this group.
    pub(super) fn recorded(&self) -> Option<&Arc<GroupMetadata>> {
        self.recorded.as_ref()
    }

    /// Whether nothing would be lost if this group were forgotten (its offsets aside).
    pub(super) fn is_vacant(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty() && self.recorded.is_none()
    }

    /// Whether it may be deleted.
    pub(super) fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    pub(super) fn protocol_type(&self) -> &str {
        self.protocol_type.as_deref().unwrap_or_default()
    }

    /// What the group's last record made of it, if it has not moved on: without what only memory has.
    #[cfg(test)]
    pub(super) fn at_rest(&self) -> Option<Self> {
        let is_at_rest = matches!(self.state, State::Empty | State::Stable) && self.recorded.is_some();
        let mut group = self.clone();
        group.pending.clear();
        group.pending_sync.clear();
        let protocol = self.protocol.as_deref();
        for member in group.members.values_mut() {
            member.is_new = false;
            member
                .protocols
                .retain(|supported| Some(&*supported.name) == protocol);
        }
        (is_at_rest && self.waiting() == 0).then_some(group)
    }

    /// How many requests wait for this group.
    pub(super) fn waiting(&self) -> usize {
        self.members
            .values()
            .map(|member| {
                usize::from(member.awaiting_join.is_some()) + usize::from(member.awaiting_sync.is_some())
            })
            .sum()
    }

    /// Takes over what a record says: the only way to a finished generation or an emptied group, for
    /// a request that completes it and for the log that is replayed.
    ///
    /// Of members that are there already, what only memory has (the requests that wait, the
    /// protocols besides the group's) stays.
    pub(super) fn apply(&mut self, record: Option<Arc<GroupMetadata>>) {
        let Some(record) = record else {
            *self = Self::new(self.id.clone());
            return;
        };
        let mut before = std::mem::take(&mut self.members);
        if let Some(protocol) = &record.protocol {
            for recorded in &record.members {
                let member = match before.remove(&recorded.member_id) {
                    Some(mut member) => {
                        member.take_over(recorded, protocol);
                        member
                    }
                    None => Member::replayed(recorded, protocol),
                };
                self.members.insert(member.id.clone(), member);
            }
        }
        self.static_members = self
            .members
            .values()
            .filter_map(|member| Some((member.instance_id.clone()?, member.id.clone())))
            .collect();
        self.state = if self.members.is_empty() {
            State::Empty
        } else {
            State::Stable
        };
        self.state_since_ms = record.state_timestamp_ms;
        self.generation = record.generation;
        self.protocol_type = Some(record.protocol_type.clone()).filter(|kind| !kind.is_empty());
        self.protocol.clone_from(&record.protocol);
        self.leader = record
            .leader
            .clone()
            .filter(|leader| self.members.contains_key(leader))
            .or_else(|| self.members.keys().next().cloned());
        self.subscribed = self.topics_of_members();
        self.recorded = Some(record);
    }

    /// The topics that all members together consume, as far as the coordinator can read them.
    fn topics_of_members(&self) -> Option<BTreeSet<Arc<str>>> {
        if !self.is_of_consumers() {
            return None;
        }
        let mut topics = BTreeSet::new();
        if let Some(protocol) = &self.protocol {
            for member in self.members.values() {
                embedded::add_topics(&member.metadata(protocol), &mut topics)?;
            }
        }
        Some(topics)
    }

    /// Whether its members consume, rather than share other work.
    pub(super) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(embedded::CONSUMER)
    }

    /// Whether members consume a topic; if that cannot be known, consumers are taken to.
    pub(super) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_of_consumers(),
        }
    }

    /// The group as DescribeGroups shows it.
    pub(super) fn describe(&self, group: &messages::GroupId) -> GroupReply {
        let protocol = self.protocol.as_deref().filter(|_| self.state == State::Stable);
        let members = self.members.values().map(|member| member.describe(protocol));
        GroupReply::Describe(
            DescribedGroup::default()
                .with_group_id(group.clone())
                .with_group_state(StrBytes::from_static_str(self.state.name()))
                .with_protocol_type(wire(self.protocol_type()))
                .with_protocol_data(protocol.map(wire).unwrap_or_default())
                .with_members(members.collect()),
        )
    }

    /// The group as ListGroups shows it.
    pub(super) fn list(&self) -> ListedGroup {
        ListedGroup::default()
            .with_group_id(self.id.to_wire().into())
            .with_protocol_type(wire(self.protocol_type()))
            .with_group_state(StrBytes::from_static_str(self.state.name()))
            .with_group_type(StrBytes::from_static_str(GroupKind::Classic.name()))
    }

    /// Ends the load: the members are expected to be heard of again.
    pub(super) fn loaded(&mut self, fx: &mut Effects<'_>) {
        for member in self.members.values() {
            fx.start_session(&self.id, &member.id, member.session_timeout());
        }
        // The limit became lower: whoever joins again first may stay.
        if self.members.len() > fx.config.group_max_size {
            self.prepare_rebalance(fx);
        }
    }

    /// Whether an offset may be committed by whoever says to be that member in that generation;
    /// commits of members keep their sessions alive.
    pub(super) fn check_commit(
        &self,
        body: &OffsetCommitRequest,
        fx: &mut Effects<'_>,
    ) -> Result<(), ErrorCode> {
        let generation = body.generation_id_or_member_epoch;
        let instance_id = body.group_instance_id.as_deref();
        // A consumer that manages its partitions itself, or an operator: only while nobody else is
        // at it.
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation < 0 && body.member_id.is_empty() && instance_id.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(&body.member_id, instance_id)?;
        if generation != self.generation.0 {
            return Err(ErrorCode::IllegalGeneration);
        }
        match self.state {
            // It has its generation but not what it owns in it.
            State::CompletingRebalance => Err(ErrorCode::RebalanceInProgress),
            // What it owned before the rebalance is still its own until it joined again.
            State::PreparingRebalance { .. } | State::Stable => {
                self.renew_session(&body.member_id, fx);
                Ok(())
            }
            State::Empty => Err(ErrorCode::UnknownMemberId),
        }
    }

    /// Whether an offset has outlived its use (KIP-211): with an expiry of its own when that has
    /// come, else a retention time after
    /// - it was committed, if the group never had members, or if all members are known to consume
    ///   other topics;
    /// - the group became empty.
    pub(super) fn has_expired(
        &self,
        topic: &str,
        offset: &OffsetValue,
        now_ms: i64,
        retention_ms: i64,
    ) -> bool {
        if self.is_subscribed_to(topic) {
            return false;
        }
        let since_ms = match (&self.protocol_type, self.state) {
            (None, _) => offset.commit_timestamp_ms,
            (Some(_), State::Empty) => self.state_since_ms.unwrap_or(offset.commit_timestamp_ms),
            (Some(_), State::Stable) if self.subscribed.is_some() => offset.commit_timestamp_ms,
            _ => return false,
        };
        match offset.expire_timestamp_ms {
            Some(at) => now_ms >= at,
            None => now_ms.saturating_sub(since_ms) >= retention_ms,
        }
    }

    /// Whether it may be deleted because nobody asked for it: nobody is about to join either.
    pub(super) fn is_abandoned(&self) -> bool {
        self.is_empty() && self.pending.is_empty()
    }

    /// Why its offsets may not be deleted, if they may not.
    pub(super) fn refuse_offset_delete(&self) -> Option<ErrorCode> {
        (!self.is_empty() && !self.is_of_consumers()).then_some(ErrorCode::NonEmptyGroup)
    }
}
