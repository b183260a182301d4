//! How others see a consumer group.

use kafka_protocol::{
    messages::{
        self,
        consumer_group_describe_response::{
            Assignment as WireAssignment, DescribedGroup, Member, TopicPartitions,
        },
        list_groups_response::ListedGroup,
    },
    protocol::StrBytes,
};

use super::ConsumerGroup;
use crate::coordinator::group::{
    assignor::Assignment,
    config::GroupConfig,
    embedded::CONSUMER,
    ids::{InstanceId, MemberId, wire},
    records::MemberSubscription,
    topics::TopicsView,
    views::GroupKind,
};

/// What ConsumerGroupDescribe calls the protocols of members (KIP-1099).
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

impl ConsumerGroup {
    /// The group as ConsumerGroupDescribe shows it.
    pub(in super::super) fn describe(
        &self,
        group: &messages::GroupId,
        config: &GroupConfig,
        view: &TopicsView,
    ) -> DescribedGroup {
        let members = self
            .ledger
            .members()
            .map(|(id, said)| self.describe_member(id, said, view));
        DescribedGroup::default()
            .with_group_id(group.clone())
            .with_group_state(StrBytes::from_static_str(self.state().name()))
            .with_group_epoch(self.ledger.epoch().0)
            .with_assignment_epoch(self.ledger.target_epoch().0)
            .with_assignor_name(StrBytes::from_static_str(self.assignor(config).name()))
            .with_members(members.collect())
    }

    fn describe_member(&self, id: &MemberId, said: &MemberSubscription, view: &TopicsView) -> Member {
        let current = self.ledger.current(id.as_str());
        // What it is to give up it has until it says otherwise.
        let mut has = Assignment::new();
        for (topic, partition) in current.held() {
            has.entry(topic).or_default().insert(partition);
        }
        let target = self.ledger.target(id.as_str()).cloned().unwrap_or_default();
        let topics = said.topics.iter().map(|topic| wire(topic).into());
        Member::default()
            .with_member_id(id.to_wire())
            .with_instance_id(said.instance_id.as_ref().map(InstanceId::to_wire))
            .with_rack_id(said.rack_id.as_deref().map(wire))
            .with_member_epoch(current.epoch.0)
            .with_client_id(wire(&said.client_id))
            .with_client_host(wire(&said.client_host))
            .with_subscribed_topic_names(topics.collect())
            // As Kafka: no expression is an empty one.
            .with_subscribed_topic_regex(Some(wire(said.pattern.as_deref().unwrap_or_default())))
            .with_assignment(named(&has, view))
            .with_target_assignment(named(&target, view))
            .with_member_type(if said.classic.is_some() {
                CLASSIC_MEMBER
            } else {
                CONSUMER_MEMBER
            })
    }

    /// The group as ListGroups shows it.
    pub(in super::super) fn list(&self) -> ListedGroup {
        ListedGroup::default()
            .with_group_id(self.id.to_wire().into())
            .with_protocol_type(StrBytes::from_static_str(CONSUMER))
            .with_group_state(StrBytes::from_static_str(self.state().name()))
            .with_group_type(StrBytes::from_static_str(GroupKind::Consumer.name()))
    }
}

/// An assignment with the names of its topics; topics that are gone are left out.
fn named(assignment: &Assignment, view: &TopicsView) -> WireAssignment {
    let topics = assignment.iter().filter_map(|(id, partitions)| {
        let topic = view.topic_by_id(*id)?;
        let partitions = partitions.iter().map(|partition| partition.0);
        Some(
            TopicPartitions::default()
                .with_topic_id(id.0)
                .with_topic_name(wire(topic.name.as_str()).into())
                .with_partitions(partitions.collect()),
        )
    });
    WireAssignment::default().with_topic_partitions(topics.collect())
}
