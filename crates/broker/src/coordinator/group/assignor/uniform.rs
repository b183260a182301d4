//! `uniform`: as many partitions for each member as its subscription allows, and as few moves as that
//! takes.
//!
//! Where members subscribe to different topics:
//! 1. Members keep what they have of topics that they still subscribe to.
//! 2. What nobody has goes, topic by topic, to the subscriber with the fewest partitions; topics that give
//!    each of their subscribers most come first, so that the others can even out what they leave.
//! 3. Topic by topic and over again, partitions move from the subscriber with most to the one with fewest,
//!    until no single move of a partition makes things more even (or [`PASSES`] are over).
//!
//! Every topic's subscribers then differ by one partition at most, but for those that have none of that
//! topic to give. Chains of moves over several topics are not looked for, as in Kafka.
//!
//! With racks, members then exchange partitions of topics with the same subscribers, as long as that brings
//! more of them near. Nobody has more or fewer for it, so there is nothing to even out afterwards.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{PartitionIndex, TopicId};

use super::{
    Assignment, MemberSpec, Place, Problem, TopicPartition,
    exchange::{Lot, exchange},
    homogeneous,
    racks::Racks,
};
use crate::coordinator::group::{ids::MemberId, topics::TopicsView};

/// How often step 3 goes through all topics. Subscriptions that do not overlap or are equal take one pass
/// and another that finds nothing; each further one of the others about halves what is uneven.
pub(super) const PASSES: usize = 16;

pub(super) fn assign(problem: &Problem<'_>) -> BTreeMap<MemberId, Assignment> {
    let mut members = problem.members.clone();
    members.sort_unstable_by_key(|member| member.member);
    match members.first() {
        None => BTreeMap::new(),
        Some(any) if problem.is_homogeneous() => homogeneous::assign(&members, any.topics, problem.topics),
        Some(_) => {
            let mut table = Table::new(problem, &members);
            table.keep(&members);
            table.hand_out();
            table.balance(PASSES);
            table.bring_near(&members, problem.topics);
            table.into_assignments(&members)
        }
    }
}

/// Who of the members had each partition: the first of them, where several say that they did.
pub(super) fn former_owners(members: &[MemberSpec<'_>]) -> BTreeMap<TopicPartition, Place> {
    let mut owners = BTreeMap::new();
    for (place, member) in members.iter().enumerate() {
        for (&topic, partitions) in member.assigned {
            for &partition in partitions {
                owners.entry((topic, partition)).or_insert(place);
            }
        }
    }
    owners
}

/// Has partitions exchanged that any of their owners may have.
pub(super) fn bring_near(
    owned: &mut [(TopicPartition, Place)],
    former: &BTreeMap<TopicPartition, Place>,
    racks: &Racks<'_>,
    topics: &TopicsView,
) {
    let lots = owned.iter().map(|&(partition, owner)| {
        let (topic, index) = partition;
        let replicas = topics
            .topic_by_id(topic)
            .and_then(|topic| topic.racks.get(usize::try_from(index.get()).ok()?));
        let near = replicas.into_iter().flat_map(|replicas| racks.near(replicas));
        Lot {
            owner,
            former: former.get(&partition).copied(),
            near: near.map(|rack| (rack, 1)).collect(),
        }
    });
    let mut lots: Vec<Lot> = lots.collect();
    exchange(&mut lots, racks);
    for ((_, owner), lot) in owned.iter_mut().zip(lots) {
        *owner = lot.owner;
    }
}

/// One topic that somebody subscribes to.
struct Topic {
    id: TopicId,
    subscribers: Vec<Place>,
    /// Who has each partition.
    owners: Vec<Option<Place>>,
}

impl Topic {
    /// Its partitions with their owners, once all are handed out.
    fn owned(&self) -> impl Iterator<Item = (TopicPartition, Place)> {
        self.owners.iter().enumerate().map(move |(index, owner)| {
            let owner = owner.expect("every partition was handed out");
            // Metadata numbers partitions in 31 bits.
            ((self.id, PartitionIndex(index as i32)), owner)
        })
    }

    /// Orders topics by partitions for each subscriber, most first, then by subscribers, fewest first.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let cross = |one: &Self, other: &Self| one.owners.len() as u64 * other.subscribers.len() as u64;
        cross(other, self)
            .cmp(&cross(self, other))
            .then(self.subscribers.len().cmp(&other.subscribers.len()))
            .then(self.id.cmp(&other.id))
    }
}

/// The assignment as it grows.
pub(super) struct Table {
    topics: Vec<Topic>,
    /// How many partitions each member has.
    loads: Vec<usize>,
}

impl Table {
    /// Nobody has anything yet. `members` are those of the problem, in the order of their ids.
    pub(super) fn new(problem: &Problem<'_>, members: &[MemberSpec<'_>]) -> Self {
        let mut subscribers: BTreeMap<TopicId, Vec<Place>> = BTreeMap::new();
        for (place, member) in members.iter().enumerate() {
            for &topic in member.topics {
                subscribers.entry(topic).or_default().push(place);
            }
        }
        let mut topics: Vec<Topic> = subscribers
            .into_iter()
            .filter_map(|(id, subscribers)| {
                let partitions = problem.topics.topic_by_id(id)?.partition_count();
                Some(Topic {
                    id,
                    subscribers,
                    owners: vec![None; partitions],
                })
            })
            .collect();
        topics.sort_unstable_by(Topic::order);
        Self {
            topics,
            loads: vec![0; members.len()],
        }
    }

    /// Step 1.
    pub(super) fn keep(&mut self, members: &[MemberSpec<'_>]) {
        for topic in &mut self.topics {
            for &place in &topic.subscribers {
                let had = members[place].assigned.get(&topic.id);
                for partition in had.into_iter().flatten() {
                    let owner = usize::try_from(partition.get())
                        .ok()
                        .and_then(|index| topic.owners.get_mut(index));
                    // Not a partition that is not there, and none that an earlier member has.
                    if let Some(owner @ None) = owner {
                        *owner = Some(place);
                        self.loads[place] += 1;
                    }
                }
            }
        }
    }

    /// Step 2.
    pub(super) fn hand_out(&mut self) {
        let loads = &mut self.loads;
        for topic in self
            .topics
            .iter_mut()
            .filter(|topic| topic.owners.contains(&None))
        {
            let mut poorest: BTreeSet<(usize, Place)> = topic
                .subscribers
                .iter()
                .map(|&place| (loads[place], place))
                .collect();
            for owner in topic.owners.iter_mut().filter(|owner| owner.is_none()) {
                let (load, place) = poorest.pop_first().expect("a topic here has subscribers");
                *owner = Some(place);
                loads[place] = load + 1;
                poorest.insert((load + 1, place));
            }
        }
    }

    /// Step 3; true when no single move makes things more even any more.
    pub(super) fn balance(&mut self, passes: usize) -> bool {
        for _ in 0..passes {
            let mut moved = false;
            for topic in &mut self.topics {
                moved |= balance_topic(topic, &mut self.loads);
            }
            if !moved {
                return true;
            }
        }
        false
    }

    /// Has partitions exchanged within topics that have the same subscribers.
    pub(super) fn bring_near(&mut self, members: &[MemberSpec<'_>], view: &TopicsView) {
        let topics = self.topics.iter().filter_map(|topic| view.topic_by_id(topic.id));
        let Some(racks) = Racks::of(members, topics) else {
            return;
        };
        let former = former_owners(members);
        let mut alike: BTreeMap<&[Place], Vec<usize>> = BTreeMap::new();
        for (number, topic) in self.topics.iter().enumerate() {
            alike.entry(&topic.subscribers).or_default().push(number);
        }
        let alike: Vec<Vec<usize>> = alike.into_values().collect();
        for numbers in alike {
            let mut owned: Vec<(TopicPartition, Place)> = numbers
                .iter()
                .flat_map(|&number| self.topics[number].owned())
                .collect();
            bring_near(&mut owned, &former, &racks, view);
            let mut owners = owned.into_iter().map(|(_, owner)| Some(owner));
            for number in numbers {
                for owner in &mut self.topics[number].owners {
                    *owner = owners.next().flatten();
                }
            }
        }
    }

    pub(super) fn into_assignments(self, members: &[MemberSpec<'_>]) -> BTreeMap<MemberId, Assignment> {
        let mut assignments = vec![Assignment::new(); members.len()];
        for ((topic, partition), owner) in self.topics.iter().flat_map(Topic::owned) {
            assignments[owner].entry(topic).or_default().insert(partition);
        }
        let ids = members.iter().map(|member| member.member.clone());
        ids.zip(assignments).collect()
    }
}

/// Moves partitions of one topic from who has most to who has fewest; whether any was moved.
///
/// Each move makes the sum of the squares of the loads smaller: it ends.
fn balance_topic(topic: &mut Topic, loads: &mut [usize]) -> bool {
    let by_load: Vec<(usize, Place)> = topic
        .subscribers
        .iter()
        .map(|&place| (loads[place], place))
        .collect();
    let (least, most) = (by_load.iter().min(), by_load.iter().max());
    if least.zip(most).is_none_or(|(least, most)| most.0 - least.0 <= 1) {
        return false;
    }
    let mut owned: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
    for (index, owner) in topic.owners.iter().enumerate() {
        if let Some(owner) = owner {
            owned.entry(*owner).or_default().push(index);
        }
    }
    let mut poorest: BTreeSet<(usize, Place)> = by_load.into_iter().collect();
    let mut givers: BTreeSet<(usize, Place)> = owned.keys().map(|&place| (loads[place], place)).collect();
    let mut moved = false;
    while let (Some(&(least, to)), Some(&(most, from))) = (poorest.first(), givers.last())
        && most > least + 1
    {
        let given = owned.get_mut(&from).expect("a giver has partitions of the topic");
        let index = given.pop().expect("a giver has partitions of the topic");
        let has_more = !given.is_empty();
        topic.owners[index] = Some(to);
        owned.entry(to).or_default().push(index);

        for (place, before, now) in [(from, most, most - 1), (to, least, least + 1)] {
            loads[place] = now;
            poorest.remove(&(before, place));
            poorest.insert((now, place));
            givers.remove(&(before, place));
        }
        if has_more {
            givers.insert((most - 1, from));
        }
        givers.insert((least + 1, to));
        moved = true;
    }
    moved
}
