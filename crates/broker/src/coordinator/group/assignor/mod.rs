//! Assignors of the KIP-848 protocol: who of a group's members is to have which partitions.
//!
//! An assignor is a function: members with what they subscribe to and what they were to have until now,
//! and the topics, to what each is to have from now on. Each partition of each subscribed topic goes to
//! exactly one subscriber. How members get there without two of them owning a partition at a time is not
//! its business.
//!
//! Both prefer partitions with a replica in the member's rack, where that makes nobody's share larger or
//! smaller ([`racks`]). (Kafka's `uniform` did so in 3.7, its `range` never; 4.x has racks for assignors of
//! one's own.)

mod exchange;
mod homogeneous;
mod market;
mod racks;
mod range;
#[cfg(test)]
mod tests;
mod uniform;

use std::collections::{BTreeMap, BTreeSet};

use protocol::{PartitionIndex, TopicId};

use super::{
    ids::{InstanceId, MemberId},
    topics::TopicsView,
};

/// Partitions by their topics. A topic without partitions is not in it.
pub type Assignment = BTreeMap<TopicId, BTreeSet<PartitionIndex>>;

type TopicPartition = (TopicId, PartitionIndex);

/// A member's place in the order in which an assignor looks at them.
type Place = usize;

/// One member, as far as assigning is concerned.
#[derive(Clone, Copy, Debug)]
pub struct MemberSpec<'a> {
    /// Its id; no two members of a problem have the same.
    pub member: &'a MemberId,
    /// Its `group.instance.id`, if it is static.
    pub instance: Option<&'a InstanceId>,
    /// Where it says that it stands (`client.rack`).
    pub rack: Option<&'a str>,
    /// What it subscribes to, patterns resolved. Topics that are not in the problem's view count for nothing.
    pub topics: &'a BTreeSet<TopicId>,
    /// What it was to have until now.
    pub assigned: &'a Assignment,
}

/// What an assignor is asked.
#[derive(Clone, Debug)]
pub struct Problem<'a> {
    /// The group's members, in any order: it has no influence on the answer.
    pub members: Vec<MemberSpec<'a>>,
    /// The cluster's topics.
    pub topics: &'a TopicsView,
}

/// The assignors that the coordinator has, by Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AssignorKind {
    /// As many partitions for each as for any other, and as few moves as that allows.
    Uniform,
    /// A range of each topic for each member; the same range of topics with as many partitions.
    Range,
}

impl AssignorKind {
    /// All of them; the first is what a group has that asks for none.
    pub const ALL: [Self; 2] = [Self::Uniform, Self::Range];

    /// The assignor of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its name on the wire and in `group.consumer.assignors`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// What each member is to have; every member of the problem is in the answer.
    pub fn assign(self, problem: &Problem<'_>) -> BTreeMap<MemberId, Assignment> {
        match self {
            Self::Uniform => uniform::assign(problem),
            Self::Range => range::assign(problem),
        }
    }
}

impl Problem<'_> {
    /// Whether all members subscribe to the same topics.
    fn is_homogeneous(&self) -> bool {
        let same = |one: &MemberSpec<'_>, other: &MemberSpec<'_>| {
            std::ptr::eq(one.topics, other.topics) || one.topics == other.topics
        };
        self.members.windows(2).all(|pair| same(&pair[0], &pair[1]))
    }
}
