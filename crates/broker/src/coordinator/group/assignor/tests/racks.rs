//! What racks change in an assignment, and what they leave as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use protocol::{PartitionIndex, TopicId};

use super::{Assignments, Group, any_group, partitions, size, topic};
use crate::coordinator::group::{
    assignor::{Assignment, AssignorKind},
    ids::MemberId,
    topics::TopicView,
};

/// Racks of brokers.
const RACKS: [&str; 4] = ["a", "b", "c", "d"];

impl Group {
    /// With the racks of the replicas: of each topic, for each partition.
    fn with_replicas(mut self, mut racks: impl FnMut(TopicId, PartitionIndex) -> Vec<&'static str>) -> Self {
        let topics = self.topics.topics().map(|topic| {
            let racks = topic.partitions().map(|partition| {
                let racks = racks(topic.id, partition);
                racks.into_iter().map(Arc::from).collect()
            });
            TopicView::new(topic.id, topic.name.clone(), racks.collect())
        });
        self.topics = topics.collect();
        self
    }

    /// With the racks of the members.
    fn with_members(mut self, racks: &[Option<&'static str>]) -> Self {
        for (member, rack) in self.members.iter_mut().zip(racks) {
            member.rack = *rack;
        }
        self
    }

    /// The same group, had nobody told where it stands.
    fn without_racks(&self) -> Self {
        let mut group = self.clone();
        for member in &mut group.members {
            member.rack = None;
        }
        group
    }

    fn is_near(&self, member: usize, topic: TopicId, partition: PartitionIndex) -> bool {
        let topic = self.topics.topic_by_id(topic).expect("a topic that there is");
        let index = usize::try_from(partition.get()).expect("a partition that there is");
        let rack = self.members[member].rack;
        rack.is_some_and(|rack| topic.racks[index].contains(rack))
    }

    /// How many partitions are near whom they are assigned to.
    fn near(&self, assignments: &Assignments) -> usize {
        let owned = self.members.iter().enumerate().flat_map(|(number, member)| {
            let topics = assignments[&member.id].iter();
            topics.flat_map(move |(topic, partitions)| partitions.iter().map(move |p| (number, *topic, *p)))
        });
        owned
            .filter(|&(member, topic, partition)| self.is_near(member, topic, partition))
            .count()
    }

    /// How many of the partitions can be near at most, where everyone has as many of them as in `assignments`
    /// and may have any: a matching of partitions and what members have room for, path by path.
    fn most_near(&self, assignments: &Assignments, of: &[(TopicId, PartitionIndex)]) -> usize {
        let counts = |assignment: &Assignment| {
            let has = |(topic, partition): &&(TopicId, PartitionIndex)| {
                assignment.get(topic).is_some_and(|has| has.contains(partition))
            };
            of.iter().filter(has).count()
        };
        let room: Vec<usize> = self
            .members
            .iter()
            .enumerate()
            .flat_map(|(number, member)| vec![number; counts(&assignments[&member.id])])
            .collect();
        let mut taken: Vec<Option<usize>> = vec![None; room.len()];
        let finds_room = |partition: &usize| {
            let mut tried = vec![false; room.len()];
            self.finds_room(of, &room, &mut taken, &mut tried, *partition)
        };
        (0..of.len()).filter(finds_room).count()
    }

    fn finds_room(
        &self,
        of: &[(TopicId, PartitionIndex)],
        room: &[usize],
        taken: &mut [Option<usize>],
        tried: &mut [bool],
        partition: usize,
    ) -> bool {
        for (place, &member) in room.iter().enumerate() {
            let (topic, index) = of[partition];
            if tried[place] || !self.is_near(member, topic, index) {
                continue;
            }
            tried[place] = true;
            let goes = match taken[place] {
                None => true,
                Some(other) => self.finds_room(of, room, taken, tried, other),
            };
            if goes {
                taken[place] = Some(partition);
                return true;
            }
        }
        false
    }
}

/// A group whose members (some without, some where no broker is) and replicas are in racks.
fn any_group_in_racks(same: bool) -> impl Strategy<Value = Group> {
    let rack = prop_oneof![
        4 => prop::sample::select(&RACKS[..]).prop_map(Some),
        1 => Just(None),
        1 => Just(Some("elsewhere")),
    ];
    let racks = prop::collection::vec(rack, 6);
    let replicas = prop::collection::vec(prop::sample::subsequence(&RACKS[..], 0..=3), 48);
    (any_group(same), racks, replicas).prop_map(|(group, racks, replicas)| {
        let mut replicas = replicas.into_iter();
        let group = group.with_replicas(|_, _| replicas.next().unwrap_or_default());
        group.with_members(&racks)
    })
}

fn sizes(assignments: &Assignments) -> Vec<usize> {
    assignments.values().map(size).collect()
}

proptest! {
    #[test]
    fn every_partition_is_assigned_once_and_everyone_has_as_many_as_without_racks(
        group in prop_oneof![any_group_in_racks(true), any_group_in_racks(false)],
    ) {
        for kind in AssignorKind::ALL {
            let (aware, unaware) = (group.assign(kind), group.without_racks().assign(kind));
            group.check_complete(&aware)?;
            prop_assert_eq!(sizes(&aware), sizes(&unaware));
            if kind == AssignorKind::Range {
                for (aware, unaware) in aware.values().zip(unaware.values()) {
                    let of_topics = |assignment: &Assignment| -> Vec<(TopicId, usize)> {
                        assignment.iter().map(|(topic, has)| (*topic, has.len())).collect()
                    };
                    prop_assert_eq!(of_topics(aware), of_topics(unaware));
                }
            }
        }
    }

    #[test]
    fn more_is_near_or_nothing_is_different(
        group in prop_oneof![any_group_in_racks(true), any_group_in_racks(false)],
    ) {
        for kind in AssignorKind::ALL {
            let (aware, unaware) = (group.assign(kind), group.without_racks().assign(kind));
            let (more, before) = (group.near(&aware), group.near(&unaware));
            prop_assert!(more >= before);
            if more == before {
                prop_assert_eq!(aware, unaware);
            }
        }
    }

    #[test]
    fn as_much_is_near_as_the_shares_allow(group in any_group_in_racks(true)) {
        let assignments = group.assign(AssignorKind::Uniform);
        let all: Vec<_> = group.subscribed().into_iter().collect();
        prop_assert_eq!(group.near(&assignments), group.most_near(&assignments, &all));
    }

    #[test]
    fn as_much_of_a_lonely_topic_is_near_as_the_ranges_allow(mut group in any_group_in_racks(true)) {
        let only = BTreeSet::from([topic(0)]);
        for member in &mut group.members {
            member.topics.clone_from(&only);
        }
        let assignments = group.assign(AssignorKind::Range);
        let all: Vec<_> = group.subscribed().into_iter().collect();
        prop_assert_eq!(group.near(&assignments), group.most_near(&assignments, &all));
    }

    #[test]
    fn topics_of_a_size_stay_together(
        group in any_group(true),
        count in 1_usize..12,
        racks in prop::collection::vec(prop::option::of(prop::sample::select(&RACKS[..])), 6),
        replicas in prop::collection::vec(prop::sample::subsequence(&RACKS[..], 1..=2), 36),
    ) {
        let mut replicas = replicas.into_iter();
        let mut group = group.with_members(&racks);
        group.topics = Group::new(&[count; 3], &[]).topics;
        let group = group.with_replicas(|_, _| replicas.next().unwrap_or_default());
        for assignment in group.assign(AssignorKind::Range).values() {
            for partitions in assignment.values() {
                prop_assert_eq!(Some(partitions), assignment.values().next());
            }
        }
    }

    #[test]
    fn the_order_of_the_members_has_no_influence_on_racks_either(
        group in prop_oneof![any_group_in_racks(true), any_group_in_racks(false)],
    ) {
        let mut reversed = group.clone();
        reversed.members.reverse();
        for kind in AssignorKind::ALL {
            prop_assert_eq!(group.assign(kind), reversed.assign(kind));
        }
    }

    #[test]
    fn what_is_computed_again_from_its_own_result_stays(
        same in any_group_in_racks(true),
        different in any_group_in_racks(false),
    ) {
        let once = same.assign(AssignorKind::Uniform);
        prop_assert_eq!(&same.with(&once).assign(AssignorKind::Uniform), &once);
        let once = different.assign_to_the_end();
        prop_assert_eq!(&different.with(&once).assign_to_the_end(), &once);
    }

    #[test]
    fn partitions_move_only_where_something_comes_near(
        before in any_group_in_racks(true),
        racks in prop::collection::vec(prop::option::of(prop::sample::select(&RACKS[..])), 6),
    ) {
        // The members have moved house.
        let uniform = AssignorKind::Uniform;
        let now = before.clone().with(&before.assign(uniform)).with_members(&racks);
        let (aware, unaware) = (now.assign(uniform), now.without_racks().assign(uniform));
        prop_assert_eq!(now.lost(&unaware), 0);
        // Every rack gives one partition away at most for each that comes near; so do those outside of them.
        let gained = now.near(&aware) - now.near(&unaware);
        prop_assert!(now.lost(&aware) <= gained * (RACKS.len() + 1));
    }

    #[test]
    fn what_is_near_the_same_members_is_assigned_as_without_racks(
        group in prop_oneof![any_group_in_racks(true), any_group_in_racks(false)],
        replicas in prop::sample::subsequence(&RACKS[..], 0..=4),
    ) {
        let group = group.with_replicas(|_, _| replicas.clone());
        for kind in AssignorKind::ALL {
            prop_assert_eq!(group.assign(kind), group.without_racks().assign(kind));
        }
    }
}

/// Topic 0 with a partition in each of these racks, and members `m0`, `m1`, … in those.
fn group(replicas: &[&'static str], members: &[&'static str]) -> Group {
    let subscriptions = vec![&[0_usize][..]; members.len()];
    let racks: Vec<Option<&'static str>> = members.iter().copied().map(Some).collect();
    let mut replicas = replicas.iter();
    Group::new(&[replicas.len()], &subscriptions)
        .with_replicas(|_, _| replicas.next().copied().into_iter().collect())
        .with_members(&racks)
}

/// The partitions of topic 0 that each member has.
fn shares(assignments: &Assignments) -> Vec<BTreeSet<PartitionIndex>> {
    let share = |assignment: &Assignment| assignment.get(&topic(0)).cloned().unwrap_or_default();
    assignments.values().map(share).collect()
}

#[test]
fn range_is_no_range_any_more_where_racks_are_otherwise() {
    let group = group(&["b", "a", "b", "a", "b"], &["a", "b"]);
    let assignments = group.assign(AssignorKind::Range);
    assert_eq!(shares(&assignments), [partitions([0, 1, 3]), partitions([2, 4])]);
}

#[test]
fn a_partition_goes_where_most_of_its_namesakes_are_near() {
    // Two of three topics have partition 0 in b, and partition 1 in a.
    let group = Group::new(&[2; 3], &[&[0, 1, 2], &[0, 1, 2]])
        .with_replicas(|id, partition| match (id == topic(0), partition.get()) {
            (true, 0) | (false, 1) => vec!["a"],
            _ => vec!["b"],
        })
        .with_members(&[Some("a"), Some("b")]);
    let assignments = group.assign(AssignorKind::Range);
    for number in 0..3 {
        assert_eq!(
            assignments[&MemberId::from("m0")][&topic(number)],
            partitions([1])
        );
        assert_eq!(
            assignments[&MemberId::from("m1")][&topic(number)],
            partitions([0])
        );
    }
}

#[test]
fn rings_of_any_length_are_found() {
    for kind in AssignorKind::ALL {
        let assignments = group(&["b", "c", "d", "a"], &["a", "b", "c", "d"]).assign(kind);
        let expected = [3, 0, 1, 2].map(|partition| partitions([partition]));
        assert_eq!(shares(&assignments), expected, "{kind:?}");
    }
}

#[test]
fn a_newcomer_gets_what_is_near_it_and_far_from_its_owners() {
    let mut group = group(&["a", "b", "a", "a", "b", "a"], &["a", "a", "b"]);
    let had = [partitions(0..3), partitions(3..6)];
    for (member, had) in group.members.iter_mut().zip(had) {
        member.assigned = BTreeMap::from([(topic(0), had)]);
    }
    let assignments = group.assign(AssignorKind::Uniform);
    let expected = [[0, 2], [3, 5], [1, 4]].map(partitions);
    assert_eq!(shares(&assignments), expected);
    assert_eq!(group.lost(&assignments), 2);
}

#[test]
fn what_comes_back_to_a_rack_goes_to_who_had_it() {
    // m0 had 3, nobody had 2; both went to m2, which is not where they are near.
    let mut group = group(&["a", "b", "a", "a", "b", "a"], &["a", "a", "b"]);
    for (member, had) in group.members.iter_mut().zip([vec![0, 1, 3], vec![4, 5]]) {
        member.assigned = BTreeMap::from([(topic(0), partitions(had))]);
    }
    let assignments = group.assign(AssignorKind::Uniform);
    let expected = [[0, 3], [2, 5], [1, 4]].map(partitions);
    assert_eq!(shares(&assignments), expected);
}

#[test]
fn a_partition_that_is_near_nobody_stays_where_it_was() {
    let mut group = group(&["c", "a", "c", "b"], &["b", "a"]);
    let had = [partitions([0, 1]), partitions([2, 3])];
    for (member, had) in group.members.iter_mut().zip(had) {
        member.assigned = BTreeMap::from([(topic(0), had)]);
    }
    let assignments = group.assign(AssignorKind::Uniform);
    assert_eq!(shares(&assignments), [partitions([0, 3]), partitions([1, 2])]);
}

#[test]
fn members_of_different_subscriptions_exchange_what_both_may_have() {
    // m2 has topic 1 alone, whatever is near it.
    let group = Group::new(&[2, 2], &[&[0], &[0], &[1]])
        .with_replicas(|id, partition| match (id == topic(0), partition.get()) {
            (true, 0) => vec!["b"],
            (true, _) => vec!["a"],
            (false, _) => vec!["a", "b"],
        })
        .with_members(&[Some("a"), Some("b"), Some("c")]);
    let assignments = group.assign(AssignorKind::Uniform);
    assert_eq!(
        shares(&assignments),
        [partitions([1]), partitions([0]), partitions([])]
    );
    assert_eq!(assignments[&MemberId::from("m2")][&topic(1)], partitions(0..2));
}
