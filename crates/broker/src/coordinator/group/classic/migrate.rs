//! A classic group goes on as one of the KIP-848 protocol, or comes out of one.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use protocol::{ErrorCode, PartitionIndex, TopicId};

use super::{ClassicGroup, State, member::Member};
use crate::coordinator::group::{
    assignor::Assignment,
    consumer::Inheritance,
    effects::Effects,
    embedded::{self, CONSUMER, Subscription},
    ids::{GenerationId, GroupId, MemberId},
    records::{ClassicProtocols, MemberSubscription, SupportedProtocol},
    timers::TimerKey,
    topics::TopicsView,
};

/// Why a classic group cannot become a consumer group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum NoBequest {
    /// What a member said or was assigned is not of the embedded consumer protocol.
    Malformed,
    /// The assignor tells members more than their partitions.
    CustomAssignor,
}

/// A member that a classic group takes over from a consumer group.
#[derive(Clone, Debug)]
pub(in super::super) struct Heir {
    pub(in super::super) id: MemberId,
    pub(in super::super) said: Arc<MemberSubscription>,
    /// How long it may be silent, in milliseconds.
    pub(in super::super) session_timeout_ms: i32,
    /// What it has, in the embedded protocol.
    pub(in super::super) assignment: Bytes,
}

impl Heir {
    /// The member, with these protocols.
    fn member(&self, protocols: Vec<SupportedProtocol>) -> Member {
        Member {
            id: self.id.clone(),
            instance_id: self.said.instance_id.clone(),
            client_id: self.said.client_id.clone(),
            client_host: self.said.client_host.clone(),
            rebalance_timeout_ms: self.said.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            protocols,
            assignment: self.assignment.clone(),
            is_new: false,
            awaiting_join: None,
            awaiting_sync: None,
        }
    }
}

/// The partitions of an assignment.
fn places(assignment: &Assignment) -> impl Iterator<Item = (TopicId, PartitionIndex)> {
    assignment.iter().flat_map(|(topic, partitions)| {
        let topic = *topic;
        partitions.iter().map(move |partition| (topic, *partition))
    })
}

impl ClassicGroup {
    /// The group's generation.
    pub(in super::super) fn generation(&self) -> GenerationId {
        self.generation
    }

    /// What a consumer group would have of this one's members. Those that have not been in any generation
    /// know nothing yet and have nothing.
    ///
    /// A member has what it was assigned, and what it said that it owns where nobody else has that: a
    /// cooperative one keeps it while the group shares anew, and gives it up only when it is told to.
    ///
    /// # Errors
    /// When a member cannot be understood, or would lose what only its assignor understands.
    pub(in super::super) fn bequest(&self, view: &TopicsView) -> Result<Vec<Inheritance>, NoBequest> {
        let members = self.members.values().filter(|member| !member.is_new);
        let bequests = members.map(|member| self.bequest_of(member, view));
        let (mut heirs, owned): (Vec<Inheritance>, Vec<Assignment>) =
            bequests.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let mut taken: HashSet<_> = heirs.iter().flat_map(|heir| places(&heir.assigned)).collect();
        for (heir, owned) in heirs.iter_mut().zip(&owned) {
            for (topic, partition) in places(owned).filter(|place| taken.insert(*place)) {
                heir.assigned.entry(topic).or_default().insert(partition);
            }
        }
        Ok(heirs)
    }

    /// What a member leaves, having what it was assigned; and what it said that it owns.
    fn bequest_of(&self, member: &Member, view: &TopicsView) -> Result<(Inheritance, Assignment), NoBequest> {
        let agreed = self.protocol.as_deref();
        let agreed = member
            .protocols
            .iter()
            .find(|known| agreed.is_some_and(|agreed| *known.name == *agreed));
        let said = agreed.or_else(|| member.protocols.first());
        let subscription = said.and_then(|said| Subscription::read(&said.metadata));
        let subscription = subscription.ok_or(NoBequest::Malformed)?;
        let assigned = embedded::read_assignment(&member.assignment).ok_or(NoBequest::Malformed)?;
        // The coordinator's assignments have none: an assignor that waits for some (as that of Kafka Streams
        // does) would not understand them.
        if assigned.has_user_data {
            return Err(NoBequest::CustomAssignor);
        }
        let inheritance = Inheritance {
            member: member.id.clone(),
            said: MemberSubscription {
                instance_id: member.instance_id.clone(),
                rack_id: subscription.rack,
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                topics: subscription.topics,
                pattern: None,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                server_assignor: None,
                classic: Some(ClassicProtocols {
                    session_timeout_ms: member.session_timeout_ms,
                    protocols: member.protocols.clone(),
                }),
            },
            assigned: embedded::identified(&assigned.partitions, view),
        };
        Ok((inheritance, embedded::identified(&subscription.owned, view)))
    }

    /// Ends what is under way: whoever waits is to join again, and no timer runs any more.
    pub(in super::super) fn dissolve(&mut self, fx: &mut Effects<'_>) {
        self.refuse_all_waiting(ErrorCode::RebalanceInProgress, fx);
        for member_id in self.members.keys().chain(&self.pending) {
            fx.end_session(&self.id, member_id);
        }
        self.pending.clear();
        fx.cancel(&TimerKey::Join(self.id.clone()));
        self.expect_no_syncs(fx);
    }

    /// The group that is left when the last member of the KIP-848 protocol has gone. Those who go with it
    /// are in its record like any member that leaves between two generations: a coordinator that takes over
    /// before the next one misses them, and has everyone share anew.
    pub(in super::super) fn heir_of(
        id: GroupId,
        generation: GenerationId,
        staying: &[Heir],
        going: &[Heir],
    ) -> Self {
        let mut group = Self::new(id);
        group.generation = generation;
        group.protocol_type = Some(CONSUMER.into());
        for heir in staying {
            let protocols = heir.said.classic.as_ref();
            let protocols = protocols.map_or_else(Vec::new, |classic| classic.protocols.clone());
            group.add(heir.member(protocols));
        }
        group.protocol = group.vote();
        for heir in going {
            let protocol = group.protocol.iter().map(|name| SupportedProtocol {
                name: name.clone(),
                metadata: Subscription::write(&heir.said.topics),
            });
            let protocols = protocol.collect();
            group.add(heir.member(protocols));
        }
        group.state = State::Stable;
        group
    }

    /// Begins: writes the inherited generation down, lets go of who goes, and has all others share anew.
    pub(in super::super) fn succeed(&mut self, going: &[Heir], fx: &mut Effects<'_>) {
        let fits = self.write_generation(Some(fx.now.wall_ms), fx);
        debug_assert!(fits, "asked before");
        for heir in going {
            self.remove(&heir.id, fx);
        }
        for member in self.members.values() {
            fx.start_session(&self.id, &member.id, member.session_timeout());
        }
        self.prepare_rebalance(fx);
    }
}
