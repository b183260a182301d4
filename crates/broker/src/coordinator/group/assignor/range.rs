//! `range`: the partitions of each topic in as many ranges as the topic has subscribers.
//!
//! Ranges go out in the order of the members, static ones by their instance ids first: a static member
//! that comes back under another member id has what it had. The first ranges of a topic are longer by one
//! where its partitions do not divide evenly. Topics with the same subscribers and as many partitions are
//! therefore cut alike, and a member has the same partitions of each of them.
//!
//! With racks, members exchange partitions of a topic for others of it, as long as that brings more of them
//! near: the shares are as long as before, though not ranges any more. Topics that are cut alike stay alike:
//! a partition goes with its namesakes, to where most of them are near. (Kafka's consumers look only for
//! places where all of them are: KIP-881.)

use std::collections::{BTreeMap, BTreeSet};

use protocol::{PartitionIndex, TopicId};

use super::{
    Assignment, MemberSpec, Place, Problem,
    exchange::{Lot, exchange},
    racks::{Rack, Racks},
};
use crate::coordinator::group::{ids::MemberId, topics::TopicView};

/// Topics that the same members subscribe to.
struct Subscribed<'p> {
    by: Vec<Place>,
    topics: Vec<&'p TopicView>,
}

pub(super) fn assign(problem: &Problem<'_>) -> BTreeMap<MemberId, Assignment> {
    let members = in_order(problem);
    let subscribed = subscribed(problem, &members);
    let topics = subscribed.iter().flat_map(|subscribed| &subscribed.topics);
    let racks = Racks::of(&members, topics.copied());
    let mut assignments = vec![Assignment::new(); members.len()];
    for Subscribed { by, topics } in subscribed {
        let mut alike: BTreeMap<usize, Vec<&TopicView>> = BTreeMap::new();
        for topic in topics {
            alike.entry(topic.partition_count()).or_default().push(topic);
        }
        for (partitions, topics) in alike {
            let mut owners = cut(partitions, &by);
            if let Some(racks) = &racks {
                bring_near(&mut owners, &topics, racks);
            }
            for (owner, share) in shares(&owners) {
                for topic in &topics {
                    assignments[owner].insert(topic.id, share.clone());
                }
            }
        }
    }
    let ids = members.iter().map(|member| member.member.clone());
    ids.zip(assignments).collect()
}

/// Static members by their instance ids, then the others by their member ids.
fn in_order<'p>(problem: &Problem<'p>) -> Vec<MemberSpec<'p>> {
    let mut members = problem.members.clone();
    members.sort_unstable_by_key(|member| (member.instance.is_none(), member.instance, member.member));
    members
}

/// All topics that are there, by their subscribers.
fn subscribed<'p>(problem: &Problem<'p>, members: &[MemberSpec<'p>]) -> Vec<Subscribed<'p>> {
    let views = |topics: Vec<TopicId>| -> Vec<&'p TopicView> {
        let views = topics.into_iter().filter_map(|id| problem.topics.topic_by_id(id));
        views.collect()
    };
    if let Some(any) = members.first().filter(|_| problem.is_homogeneous()) {
        return vec![Subscribed {
            by: (0..members.len()).collect(),
            topics: views(any.topics.iter().copied().collect()),
        }];
    }
    let mut subscribers: BTreeMap<TopicId, Vec<Place>> = BTreeMap::new();
    for (place, member) in members.iter().enumerate() {
        for &topic in member.topics {
            subscribers.entry(topic).or_default().push(place);
        }
    }
    let mut topics: BTreeMap<Vec<Place>, Vec<TopicId>> = BTreeMap::new();
    for (topic, by) in subscribers {
        topics.entry(by).or_default().push(topic);
    }
    let subscribed = topics.into_iter().map(|(by, topics)| Subscribed {
        by,
        topics: views(topics),
    });
    subscribed.collect()
}

/// Who has each of so many partitions: ranges, the first ones longer where it does not come out even.
fn cut(partitions: usize, subscribers: &[Place]) -> Vec<Place> {
    let (length, longer) = (partitions / subscribers.len(), partitions % subscribers.len());
    let ranges = subscribers.iter().enumerate().flat_map(|(number, &place)| {
        let length = length + usize::from(number < longer);
        std::iter::repeat_n(place, length)
    });
    ranges.collect()
}

/// Has partitions exchanged, those of the same number of all these topics together.
fn bring_near(owners: &mut [Place], topics: &[&TopicView], racks: &Racks<'_>) {
    let lots = owners.iter().enumerate().map(|(partition, &owner)| {
        let mut near: BTreeMap<Rack, u32> = BTreeMap::new();
        for topic in topics {
            for rack in racks.near(&topic.racks[partition]) {
                *near.entry(rack).or_default() += 1;
            }
        }
        Lot {
            owner,
            former: None,
            near: near.into_iter().collect(),
        }
    });
    let mut lots: Vec<Lot> = lots.collect();
    exchange(&mut lots, racks);
    for (owner, lot) in owners.iter_mut().zip(lots) {
        *owner = lot.owner;
    }
}

/// The partitions of each who has any.
fn shares(owners: &[Place]) -> BTreeMap<Place, BTreeSet<PartitionIndex>> {
    let mut shares: BTreeMap<Place, BTreeSet<PartitionIndex>> = BTreeMap::new();
    for (partition, &owner) in owners.iter().enumerate() {
        // Metadata numbers partitions in 31 bits.
        let partition = PartitionIndex(partition as i32);
        shares.entry(owner).or_default().insert(partition);
    }
    shares
}
