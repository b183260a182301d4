//! Who is to have what: the group's epoch, the target assignment of that epoch, and the way to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{ErrorCode, PartitionIndex, TopicId};

use super::{
    ConsumerGroup,
    patterns::Fresh,
    reconcile::{MustRejoin, Step},
    refusal::Refusal,
    seat::Seat,
};
use crate::coordinator::group::{
    assignor::{Assignment, AssignorKind, MemberSpec, Problem},
    config::GroupConfig,
    effects::Effects,
    ids::MemberId,
    records::{ConsumerChange, ConsumerGroupMetadata, MemberState, MemberSubscription},
    timers::TimerKey,
    topics::TopicsView,
};

/// What a topic takes at most in a target's record, besides its partitions: its identity and two lengths.
const TOPIC_BYTES: usize = 32;
/// What a partition takes in a target's record.
const PARTITION_BYTES: usize = 4;
/// What a target's record takes at most besides names and topics: versions and lengths.
const FRAMING: usize = 64;

impl ConsumerGroup {
    /// Begins a new epoch if something changed, or if the topics look other than when the last one began.
    pub(super) fn follow_topics(&mut self, changed: bool, fx: &mut Effects<'_>) {
        let metadata_hash = self.hash_of(&fx.topics.view);
        self.topics_seen = Some(fx.topics.version);
        if !changed && metadata_hash == self.ledger.metadata_hash() {
            return;
        }
        if self.records().partition_metadata.is_some() {
            self.write(ConsumerChange::PartitionMetadata(None), fx);
        }
        let group = ConsumerGroupMetadata {
            epoch: self.ledger.epoch().next(),
            metadata_hash,
        };
        self.write(ConsumerChange::Group(Some(group)), fx);
    }

    /// Over the topics that members subscribe to, as far as they are there, and over the racks of their
    /// replicas, if some member has a rack: the same on every broker. 0 when there is none.
    fn hash_of(&self, view: &TopicsView) -> i64 {
        let with_racks = self.ledger.knows_racks();
        let topics = self.ledger.topics().filter_map(|name| view.topic_by_name(name));
        let hash = topics.fold(0_u64, |hash, topic| {
            let of_topic = if with_racks {
                topic.metadata_hash_with_racks
            } else {
                topic.metadata_hash
            };
            // A multiplication and a rotation, so that the order counts and nothing cancels out.
            (hash ^ of_topic)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(31)
        });
        hash.cast_signed()
    }

    /// The assignor that most members ask for, or the first of the settings.
    pub(super) fn assignor(&self, config: &GroupConfig) -> AssignorKind {
        let mut votes: BTreeMap<AssignorKind, usize> = BTreeMap::new();
        for (_, member) in self.ledger.members() {
            let asked = member.server_assignor.as_deref().and_then(AssignorKind::by_name);
            if let Some(kind) = asked.filter(|kind| config.consumer_assignors.contains(kind)) {
                *votes.entry(kind).or_default() += 1;
            }
        }
        let most = votes.values().max().copied();
        let first = config.consumer_assignors.iter().copied();
        let mut first = first.filter(|kind| votes.get(kind).copied() == most);
        first.next().unwrap_or(AssignorKind::Uniform)
    }

    /// What a member subscribes to, by what is there.
    fn wants(&self, member: &MemberSubscription, view: &TopicsView) -> BTreeSet<TopicId> {
        let pattern = member.pattern.as_ref();
        let resolved = pattern.and_then(|pattern| self.ledger.resolved(pattern));
        let matched = resolved.iter().flat_map(|resolved| &resolved.topics);
        let names = member.topics.iter().chain(matched);
        names
            .filter_map(|name| Some(view.topic_by_name(name)?.id))
            .collect()
    }

    /// Computes the target assignment of the group's epoch and writes down what is new in it.
    pub(super) fn assign(&mut self, fx: &mut Effects<'_>) -> Result<(), Refusal> {
        let mut targets = self.targets(fx);
        let mut changes = Vec::new();
        for (id, _) in self.ledger.members() {
            let mut target = targets.remove(id).unwrap_or_default();
            target.retain(|_, partitions| !partitions.is_empty());
            if self
                .ledger
                .target(id.as_str())
                .is_none_or(|before| **before != target)
            {
                changes.push(ConsumerChange::Target(id.clone(), Some(Arc::new(target))));
            }
        }
        if changes.iter().any(|change| !self.fits(change, fx)) {
            return Err(Refusal::too_large("A member's assignment"));
        }
        for (id, records) in self.ledger.remainders() {
            if records.current.is_some() {
                changes.push(ConsumerChange::Current(id.clone(), None));
            }
            if records.target.is_some() {
                changes.push(ConsumerChange::Target(id.clone(), None));
            }
        }
        changes.push(ConsumerChange::TargetEpoch(Some(self.ledger.epoch())));
        for change in changes {
            self.write(change, fx);
        }
        fx.count_target();
        Ok(())
    }

    /// Refuses what a member says if its share of the next target could not be written down: no member of the
    /// group would get anything new any more. `fresh` is the expression in it, if that is not known yet.
    pub(super) fn check_share(
        &self,
        id: &MemberId,
        seat: &Seat,
        said: &MemberSubscription,
        fresh: Option<&Fresh>,
        fx: &Effects<'_>,
    ) -> Result<(), Refusal> {
        let mut wanted = self.wants(said, &fx.topics.view);
        let matched = fresh.into_iter().flat_map(|fresh| &fresh.resolved.topics);
        wanted.extend(matched.filter_map(|name| Some(fx.topics.view.topic_by_name(name)?.id)));
        let topics = wanted
            .iter()
            .filter_map(|topic| fx.topics.view.topic_by_id(*topic));
        let sizes = topics.map(|topic| TOPIC_BYTES + PARTITION_BYTES * topic.partition_count());
        let names = self.id.as_str().len() + id.as_str().len();
        if FRAMING + names + sizes.sum::<usize>() <= fx.config.max_records_bytes {
            return Ok(());
        }
        // All that it wants would not fit; its share of that may. This is rare enough to try it.
        let mut tried = self.clone();
        if let Seat::Of(holder) = seat {
            let target = self.ledger.target(holder.as_str()).cloned();
            tried.apply(ConsumerChange::Member(holder.clone(), None));
            tried.apply(ConsumerChange::Target(holder.clone(), None));
            tried.apply(ConsumerChange::Target(id.clone(), target));
        }
        tried.apply(ConsumerChange::Member(id.clone(), Some(Arc::new(said.clone()))));
        if let Some(fresh) = fresh {
            let resolved = Some(fresh.resolved.clone());
            tried.apply(ConsumerChange::Pattern(fresh.pattern.clone(), resolved));
        }
        let share = tried.targets(fx).remove(id).unwrap_or_default();
        if self.fits(&ConsumerChange::Target(id.clone(), Some(Arc::new(share))), fx) {
            Ok(())
        } else {
            Err(Refusal::too_large("The member's assignment"))
        }
    }

    fn targets(&self, fx: &Effects<'_>) -> BTreeMap<MemberId, Assignment> {
        static NOTHING: Assignment = Assignment::new();
        let view = &*fx.topics.view;
        // Most groups subscribe to the same in all their members, or to few different things: topics are
        // looked up once for each of these.
        let mut wanted: Vec<BTreeSet<TopicId>> = Vec::new();
        let mut subscriptions: BTreeMap<(&BTreeSet<Arc<str>>, Option<&str>), usize> = BTreeMap::new();
        let mut last: Option<(&MemberSubscription, usize)> = None;
        let mut members = Vec::with_capacity(self.members());
        for (id, said) in self.ledger.members() {
            let same = last.filter(|(last, _)| last.topics == said.topics && last.pattern == said.pattern);
            let number = same.map_or_else(
                || {
                    let subscription = (&said.topics, said.pattern.as_deref());
                    *subscriptions.entry(subscription).or_insert_with(|| {
                        wanted.push(self.wants(said, view));
                        wanted.len() - 1
                    })
                },
                |(_, number)| number,
            );
            last = Some((said, number));
            members.push((id, said, number));
        }
        let members = members.into_iter().map(|(id, said, topics)| MemberSpec {
            member: id,
            instance: said.instance_id.as_ref(),
            rack: said.rack_id.as_deref(),
            topics: &wanted[topics],
            assigned: self.ledger.target(id.as_str()).map_or(&NOTHING, AsRef::as_ref),
        });
        let problem = Problem {
            members: members.collect(),
            topics: view,
        };
        self.assignor(fx.config).assign(&problem)
    }

    /// Takes a member one step towards its target.
    pub(super) fn reconcile(
        &mut self,
        id: &MemberId,
        owned: Option<&Assignment>,
        fx: &mut Effects<'_>,
    ) -> Result<(), Refusal> {
        let current = self.ledger.current(id.as_str());
        let target = self.ledger.target(id.as_str()).cloned().unwrap_or_default();
        let has = |assignment: &Assignment, topic: TopicId, partition: PartitionIndex| {
            assignment
                .get(&topic)
                .is_some_and(|partitions| partitions.contains(&partition))
        };
        let step = Step {
            current: &current,
            target_epoch: self.ledger.target_epoch(),
            target: &target,
            owned,
            held_by_others: |topic: TopicId, partition: PartitionIndex| {
                let itself =
                    has(&current.assigned, topic, partition) || has(&current.revoking, topic, partition);
                self.ledger.holders(topic, partition) > usize::from(itself)
            },
        };
        let next = step.take().map_err(|MustRejoin| {
            Refusal::new(
                ErrorCode::FencedMemberEpoch,
                "The member is in an unknown state. It must abandon all its partitions and rejoin.",
            )
        })?;
        let Some(next) = next else {
            return Ok(());
        };
        let is_revoking = next.state == MemberState::UnrevokedPartitions;
        let change = ConsumerChange::Current(id.clone(), Some(Arc::new(next)));
        if !self.fits(&change, fx) {
            return Err(Refusal::too_large("The member's assignment"));
        }
        self.write(change, fx);
        // Members of the classic protocol have their time to join and to sync instead.
        let timeout_ms = self
            .ledger
            .subscription(id.as_str())
            .filter(|member| is_revoking && member.classic.is_none())
            .map(|member| member.rebalance_timeout_ms);
        match timeout_ms {
            Some(timeout_ms) => self.expect_revocation(id, timeout_ms, fx),
            None => fx.cancel(&TimerKey::Revocation(self.id.clone(), id.clone())),
        }
        Ok(())
    }
}
