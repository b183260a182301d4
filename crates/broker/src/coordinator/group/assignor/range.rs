//! `range`: the partitions of each topic in as many ranges as the topic has subscribers.
//!
//! Ranges go out in the order of the members, static ones by their instance ids first: a static member
//! that comes back under another member id has what it had. The first ranges of a topic are longer by one
//! where its partitions do not divide evenly. Where all members subscribe to the same topics, topics with as
//! many partitions are therefore cut alike, and a member has the same partitions of each of them.

use std::collections::BTreeMap;

use protocol::{PartitionIndex, TopicId};

use super::{Assignment, MemberSpec, Problem};
use crate::coordinator::group::ids::MemberId;

/// What is left of one topic.
struct Ranges {
    /// How many ranges are one partition longer than the others.
    longer: usize,
    /// The length of the others.
    length: usize,
    /// Where the next range begins.
    next: usize,
}

impl Ranges {
    fn of(partitions: usize, subscribers: usize) -> Self {
        Self {
            longer: partitions % subscribers,
            length: partitions / subscribers,
            next: 0,
        }
    }

    fn cut(&mut self) -> impl Iterator<Item = PartitionIndex> + use<> {
        let start = self.next;
        self.next += self.length;
        if self.longer > 0 {
            self.longer -= 1;
            self.next += 1;
        }
        // Metadata numbers partitions in 31 bits.
        (start..self.next).map(|index| PartitionIndex(index as i32))
    }
}

pub(super) fn assign(problem: &Problem<'_>) -> BTreeMap<MemberId, Assignment> {
    let mut subscribers: BTreeMap<TopicId, usize> = BTreeMap::new();
    for member in &problem.members {
        for &topic in member.topics {
            *subscribers.entry(topic).or_default() += 1;
        }
    }
    let mut topics: BTreeMap<TopicId, Ranges> = subscribers
        .into_iter()
        .filter_map(|(id, subscribers)| {
            let topic = problem.topics.topic_by_id(id)?;
            Some((id, Ranges::of(topic.partition_count(), subscribers)))
        })
        .collect();
    in_order(problem)
        .into_iter()
        .map(|member| {
            let mut assignment = Assignment::new();
            for &id in member.topics {
                let Some(ranges) = topics.get_mut(&id) else {
                    continue;
                };
                let mut range = ranges.cut().peekable();
                if range.peek().is_some() {
                    assignment.insert(id, range.collect());
                }
            }
            (member.member.clone(), assignment)
        })
        .collect()
}

/// Static members by their instance ids, then the others by their member ids.
fn in_order<'p>(problem: &Problem<'p>) -> Vec<MemberSpec<'p>> {
    let mut members = problem.members.clone();
    members.sort_unstable_by_key(|member| (member.instance.is_none(), member.instance, member.member));
    members
}
