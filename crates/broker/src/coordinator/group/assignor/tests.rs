//! What holds of every assignment, for any members, topics and earlier assignments.

mod market;
mod racks;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use protocol::{PartitionIndex, TopicId, TopicName};
use uuid::Uuid;

use super::{Assignment, AssignorKind, MemberSpec, Problem, uniform};
use crate::coordinator::group::{
    ids::{InstanceId, MemberId},
    topics::{TopicView, TopicsView},
};

type Assignments = BTreeMap<MemberId, Assignment>;

/// A member, and all that a [`MemberSpec`] borrows.
#[derive(Clone, Debug)]
struct Member {
    id: MemberId,
    instance: Option<InstanceId>,
    rack: Option<&'static str>,
    topics: BTreeSet<TopicId>,
    assigned: Assignment,
}

/// A group, and what it is to be assigned.
#[derive(Clone, Debug)]
struct Group {
    members: Vec<Member>,
    topics: TopicsView,
}

fn topic(number: usize) -> TopicId {
    TopicId(Uuid::from_u128(number as u128 + 1))
}

fn partitions(indexes: impl IntoIterator<Item = i32>) -> BTreeSet<PartitionIndex> {
    indexes.into_iter().map(PartitionIndex).collect()
}

impl Group {
    /// Topics with so many partitions; members `m0`, `m1`, … that subscribe to the topics of these numbers.
    fn new(topics: &[usize], subscriptions: &[&[usize]]) -> Self {
        let topics = topics.iter().enumerate().map(|(number, &partitions)| {
            let name = TopicName::new(&format!("t{number}")).expect("a topic's name");
            TopicView::new(topic(number), name, vec![BTreeSet::<Arc<str>>::new(); partitions])
        });
        let members = subscriptions.iter().enumerate().map(|(number, topics)| Member {
            id: MemberId::from(format!("m{number}")),
            instance: None,
            rack: None,
            topics: topics.iter().map(|&number| topic(number)).collect(),
            assigned: Assignment::new(),
        });
        Self {
            members: members.collect(),
            topics: topics.collect(),
        }
    }

    fn problem(&self) -> Problem<'_> {
        let members = self.members.iter().map(|member| MemberSpec {
            member: &member.id,
            instance: member.instance.as_ref(),
            rack: member.rack,
            topics: &member.topics,
            assigned: &member.assigned,
        });
        Problem {
            members: members.collect(),
            topics: &self.topics,
        }
    }

    fn assign(&self, kind: AssignorKind) -> Assignments {
        kind.assign(&self.problem())
    }

    /// `uniform` for different subscriptions, for as long as anything can be made more even.
    fn assign_to_the_end(&self) -> Assignments {
        let problem = self.problem();
        let mut members = problem.members.clone();
        members.sort_unstable_by_key(|member| member.member);
        let mut table = uniform::Table::new(&problem, &members);
        table.keep(&members);
        table.hand_out();
        assert!(table.balance(usize::MAX));
        table.bring_near(&members, problem.topics);
        table.into_assignments(&members)
    }

    /// The group once its members have what they were assigned.
    fn with(mut self, assignments: &Assignments) -> Self {
        for member in &mut self.members {
            member.assigned = assignments.get(&member.id).cloned().unwrap_or_default();
        }
        self
    }

    /// How many partitions their members lose.
    fn lost(&self, assignments: &Assignments) -> usize {
        let had = self
            .members
            .iter()
            .flat_map(|member| member.assigned.iter().map(move |had| (&member.id, had)));
        had.map(|(member, (topic, had))| {
            let has = assignments[member].get(topic);
            had.iter()
                .filter(|partition| has.is_none_or(|has| !has.contains(partition)))
                .count()
        })
        .sum()
    }

    /// Every partition that somebody subscribes to.
    fn subscribed(&self) -> BTreeSet<(TopicId, PartitionIndex)> {
        let ids: BTreeSet<TopicId> = self
            .members
            .iter()
            .flat_map(|member| &member.topics)
            .copied()
            .collect();
        let topics = ids.into_iter().filter_map(|id| self.topics.topic_by_id(id));
        topics
            .flat_map(|topic| topic.partitions().map(|partition| (topic.id, partition)))
            .collect()
    }

    /// Every member is answered, and every partition goes to one member that subscribes to it.
    fn check_complete(&self, assignments: &Assignments) -> Result<(), TestCaseError> {
        let ids: BTreeSet<&MemberId> = self.members.iter().map(|member| &member.id).collect();
        prop_assert_eq!(assignments.keys().collect::<BTreeSet<_>>(), ids);
        let mut given = BTreeSet::new();
        for member in &self.members {
            for (topic, partitions) in &assignments[&member.id] {
                prop_assert!(member.topics.contains(topic));
                prop_assert!(!partitions.is_empty());
                for &partition in partitions {
                    prop_assert!(given.insert((*topic, partition)), "given twice");
                }
            }
        }
        prop_assert_eq!(given, self.subscribed());
        Ok(())
    }
}

fn size(assignment: &Assignment) -> usize {
    assignment.values().map(BTreeSet::len).sum()
}

/// Any earlier assignment: of partitions that others have too, that are gone, of topics that are gone.
fn any_assignment() -> impl Strategy<Value = Assignment> {
    let partitions = prop::collection::btree_set((-1_i32..9).prop_map(PartitionIndex), 1..6);
    prop::collection::btree_map((0_usize..6).prop_map(topic), partitions, 0..5)
}

/// A group whose members all subscribe to the same topics, or each to its own.
fn any_group(same: bool) -> impl Strategy<Value = Group> {
    let topics = prop::collection::vec(0_usize..8, 0..6);
    let subscription = || prop::collection::btree_set((0_usize..6).prop_map(topic), 0..6);
    let member = (subscription(), any_assignment(), prop::option::of(0_usize..100));
    let members = prop::collection::vec(member, 1..7);
    (topics, subscription(), members).prop_map(move |(topics, everybodys, members)| {
        let mut group = Group::new(&topics, &[]);
        group.members = members
            .into_iter()
            .enumerate()
            .map(|(number, (own, assigned, instance))| Member {
                id: MemberId::from(format!("m{number}")),
                // No two members have the same.
                instance: instance.map(|any| InstanceId::from(format!("i{any}-{number}"))),
                rack: None,
                topics: if same { everybodys.clone() } else { own },
                assigned,
            })
            .collect();
        group
    })
}

proptest! {
    #[test]
    fn every_subscribed_partition_goes_to_one_subscriber(
        group in prop_oneof![any_group(true), any_group(false)],
    ) {
        for kind in AssignorKind::ALL {
            group.check_complete(&group.assign(kind))?;
        }
    }

    #[test]
    fn the_order_of_the_members_has_no_influence(
        group in prop_oneof![any_group(true), any_group(false)],
    ) {
        let mut reversed = group.clone();
        reversed.members.reverse();
        for kind in AssignorKind::ALL {
            prop_assert_eq!(group.assign(kind), reversed.assign(kind));
        }
    }

    #[test]
    fn uniform_is_even_to_one_partition_where_all_subscribe_to_the_same(group in any_group(true)) {
        let assignments = group.assign(AssignorKind::Uniform);
        let sizes: Vec<usize> = assignments.values().map(size).collect();
        prop_assert!(sizes.iter().max() <= sizes.iter().min().map(|least| least + 1).as_ref());
    }

    #[test]
    fn uniform_takes_no_more_than_evenness_asks_for(
        before in any_group(true),
        joined in 0_usize..4,
        left in 0_usize..4,
    ) {
        let mut now = before.clone().with(&before.assign(AssignorKind::Uniform));
        let topics = now.members[0].topics.clone();
        now.members.drain(..left.min(now.members.len() - 1));
        for number in 0..joined {
            // Between the others in the order of the ids.
            let id = MemberId::from(format!("m0-{number}"));
            let (topics, assigned) = (topics.clone(), Assignment::new());
            now.members.push(Member { id, instance: None, rack: None, topics, assigned });
        }
        let after = now.assign(AssignorKind::Uniform);
        now.check_complete(&after)?;

        let had: Vec<usize> = now.members.iter().map(|member| size(&member.assigned)).collect();
        let (least, larger) = (now.subscribed().len() / had.len(), now.subscribed().len() % had.len());
        // Beyond the larger share everything must go, and the larger share is not for everybody.
        let beyond: usize = had.iter().map(|had| had.saturating_sub(least + 1)).sum();
        let too_many = had.iter().filter(|&&had| had > least).count().saturating_sub(larger);
        prop_assert_eq!(now.lost(&after), beyond + too_many);
    }

    #[test]
    fn uniform_changes_nothing_where_nothing_changed(group in any_group(true)) {
        let once = group.assign(AssignorKind::Uniform);
        prop_assert_eq!(&group.with(&once).assign(AssignorKind::Uniform), &once);
    }

    #[test]
    fn no_single_move_makes_different_subscriptions_more_even(group in any_group(false)) {
        let assignments = group.assign_to_the_end();
        group.check_complete(&assignments)?;
        for owner in &group.members {
            for topic in assignments[&owner.id].keys() {
                let others = group.members.iter().filter(|member| member.topics.contains(topic));
                let poorest = others.map(|member| size(&assignments[&member.id])).min();
                prop_assert!(size(&assignments[&owner.id]) <= poorest.expect("the owner subscribes") + 1);
            }
        }
        prop_assert_eq!(&group.with(&assignments).assign_to_the_end(), &assignments);
    }

    #[test]
    fn range_cuts_each_topic_into_ranges_of_about_a_size(
        group in prop_oneof![any_group(true), any_group(false)],
    ) {
        let assignments = group.assign(AssignorKind::Range);
        for topic in group.topics.topics() {
            let subscribers = group.members.iter().filter(|member| member.topics.contains(&topic.id));
            let nothing = BTreeSet::new();
            let ranges: Vec<&BTreeSet<PartitionIndex>> = subscribers
                .map(|member| assignments[&member.id].get(&topic.id).unwrap_or(&nothing))
                .collect();
            let sizes: BTreeSet<usize> = ranges.iter().map(|range| range.len()).collect();
            prop_assert!(sizes.last() <= sizes.first().map(|least| least + 1).as_ref());
            for range in ranges {
                let span = range.first().zip(range.last()).map_or(0, |(first, last)| last.get() - first.get() + 1);
                prop_assert_eq!(span as usize, range.len());
            }
        }
    }

    #[test]
    fn range_cuts_topics_of_a_size_alike(mut group in any_group(true), count in 1_usize..12) {
        group.topics = Group::new(&[count; 3], &[]).topics;
        for assignment in group.assign(AssignorKind::Range).values() {
            for partitions in assignment.values() {
                prop_assert_eq!(Some(partitions), assignment.values().next());
            }
        }
    }
}

#[test]
fn a_new_group_is_assigned_as_kafka_assigns_it() {
    let group = Group::new(&[3, 3], &[&[0, 1], &[0, 1]]);
    let expected = |first: [BTreeSet<_>; 2], second: [BTreeSet<_>; 2]| -> Assignments {
        let of = |partitions: [BTreeSet<PartitionIndex>; 2]| -> Assignment {
            let topics = [topic(0), topic(1)].into_iter().zip(partitions);
            topics.filter(|(_, partitions)| !partitions.is_empty()).collect()
        };
        [
            (MemberId::from("m0"), of(first)),
            (MemberId::from("m1"), of(second)),
        ]
        .into()
    };
    assert_eq!(
        group.assign(AssignorKind::Range),
        expected(
            [partitions(0..2), partitions(0..2)],
            [partitions(2..3), partitions(2..3)]
        )
    );
    assert_eq!(
        group.assign(AssignorKind::Uniform),
        expected(
            [partitions(0..3), partitions([])],
            [partitions([]), partitions(0..3)]
        )
    );
}

#[test]
fn partitions_are_evened_out_by_who_can_take_others() {
    // Only m2 can have topic 1, so topic 0 is for the others.
    let group = Group::new(&[4, 2], &[&[0], &[0], &[0, 1]]);
    let sizes: Vec<usize> = group.assign(AssignorKind::Uniform).values().map(size).collect();
    assert_eq!(sizes, [2, 2, 2]);
}

#[test]
fn a_static_member_under_another_id_has_the_same_range() {
    let mut group = Group::new(&[5], &[&[0], &[0], &[0]]);
    for (number, member) in group.members.iter_mut().enumerate() {
        member.instance = Some(InstanceId::from(format!("i{number}")));
    }
    let before = group.assign(AssignorKind::Range);
    let first = group.members[0].id.clone();
    group.members[0].id = MemberId::from("z");
    let after = group.assign(AssignorKind::Range);
    assert_eq!(after[&MemberId::from("z")], before[&first]);
    assert_eq!(after[&group.members[2].id], before[&group.members[2].id]);
}

#[test]
fn assignors_are_known_by_kafka_s_names() {
    for kind in AssignorKind::ALL {
        assert_eq!(AssignorKind::by_name(kind.name()), Some(kind));
    }
    assert_eq!(AssignorKind::by_name("uniform"), Some(AssignorKind::Uniform));
    assert_eq!(AssignorKind::by_name("range"), Some(AssignorKind::Range));
    assert_eq!(AssignorKind::by_name("sticky"), None);
}

#[test]
fn an_empty_group_has_an_empty_assignment() {
    for kind in AssignorKind::ALL {
        assert!(Group::new(&[3], &[]).assign(kind).is_empty());
    }
}
