//! `uniform` where all members subscribe to the same topics: all partitions are alike then, and only their
//! number counts.
//!
//! Members keep what they have up to their share; what is beyond it, and what nobody had, goes to those who
//! have less. Where partitions do not divide evenly, the larger shares go to who had most: no assignment
//! in balance moves fewer partitions. (Kafka gives them to whom it meets first; the balance is the same.)
//! With racks, members then exchange partitions as long as that brings more of them near.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use protocol::TopicId;

use super::{
    Assignment, MemberSpec, Place, TopicPartition,
    racks::Racks,
    uniform::{bring_near, former_owners},
};
use crate::coordinator::group::{
    ids::MemberId,
    topics::{TopicView, TopicsView},
};

/// Members in the order of their ids, which all subscribe to `subscribed`.
pub(super) fn assign(
    members: &[MemberSpec<'_>],
    subscribed: &BTreeSet<TopicId>,
    view: &TopicsView,
) -> BTreeMap<MemberId, Assignment> {
    let topics: Vec<&TopicView> = subscribed.iter().filter_map(|&id| view.topic_by_id(id)).collect();
    let mut free: BTreeSet<TopicPartition> = topics
        .iter()
        .flat_map(|topic| topic.partitions().map(|partition| (topic.id, partition)))
        .collect();
    let total = free.len();
    let mut kept: Vec<Vec<TopicPartition>> = members
        .iter()
        .map(|member| {
            let had = member
                .assigned
                .iter()
                .flat_map(|(&topic, partitions)| partitions.iter().map(move |&partition| (topic, partition)));
            // What is not subscribed to or not there any more, or taken by an earlier member, is not free.
            had.filter(|partition| free.remove(partition)).collect()
        })
        .collect();

    let shares = shares(total, &kept);
    for (kept, &share) in kept.iter_mut().zip(&shares) {
        free.extend(kept.drain(share.min(kept.len())..));
    }
    let mut free = free.into_iter();
    for (kept, share) in kept.iter_mut().zip(shares) {
        kept.extend(free.by_ref().take(share - kept.len()));
    }
    let mut owned: Vec<(TopicPartition, Place)> = kept
        .into_iter()
        .enumerate()
        .flat_map(|(place, partitions)| partitions.into_iter().map(move |partition| (partition, place)))
        .collect();
    if let Some(racks) = Racks::of(members, topics.into_iter()) {
        bring_near(&mut owned, &former_owners(members), &racks, view);
    }
    let mut assignments = vec![Assignment::new(); members.len()];
    for ((topic, partition), owner) in owned {
        assignments[owner].entry(topic).or_default().insert(partition);
    }
    let ids = members.iter().map(|member| member.member.clone());
    ids.zip(assignments).collect()
}

/// How many partitions each member is to have: they sum up to `total` and differ by one at most.
fn shares(total: usize, kept: &[Vec<TopicPartition>]) -> Vec<usize> {
    let (least, larger) = (total / kept.len(), total % kept.len());
    let mut by_size: Vec<usize> = (0..kept.len()).collect();
    by_size.sort_by_key(|&member| Reverse(kept[member].len()));
    let mut shares = vec![least; kept.len()];
    for &member in &by_size[..larger] {
        shares[member] += 1;
    }
    shares
}
