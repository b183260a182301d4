//! The protocol of KIP-848: a member comes, is given its partitions, lives, and goes; the group described.

use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use protocol::ErrorCode;
use uuid::Uuid;

use crate::{
    ground::{Topic, topic, wait_for},
    groups::{coordinator, group_id},
    support::{Client, DevNode, text, topic_name},
};

/// The epoch of a member that goes.
pub(crate) const LEAVES: i32 = -1;

/// A member of a group, and what it reads.
pub(crate) struct Member {
    version: i16,
    group: String,
    pub(crate) topic: Topic,
    id: String,
}

impl Member {
    /// One that has not joined yet, with a topic of its own.
    pub(crate) fn new(node: &DevNode, version: i16, group: &str, topic_name: &str) -> Self {
        // Members make their ids themselves from version 1 on (KIP-1082).
        let id = if version >= 1 {
            Uuid::new_v4().to_string()
        } else {
            String::new()
        };
        Self {
            version,
            group: group.to_owned(),
            topic: topic(node, topic_name),
            id,
        }
    }

    /// That nothing is new.
    pub(crate) fn beat(&self, epoch: i32) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id(&self.group))
            .with_member_id(text(&self.id))
            .with_member_epoch(epoch)
    }

    /// That it comes.
    fn first(&self) -> ConsumerGroupHeartbeatRequest {
        self.beat(0)
            .with_rebalance_timeout_ms(30_000)
            .with_subscribed_topic_names(Some(vec![topic_name(&self.topic.name)]))
            .with_topic_partitions(Some(Vec::new()))
    }

    pub(crate) fn send(
        &self,
        client: &mut Client,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        client.call(self.version, request)
    }

    /// Comes, and has the topic's one partition, if not at once: a topic can be used a moment before the
    /// coordinator of a group has heard of it. Its epoch.
    pub(crate) fn join(&mut self, client: &mut Client) -> i32 {
        let mut answer = self.send(client, &self.first());
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
        assert!(answer.member_epoch > 0 && answer.heartbeat_interval_ms > 0);
        assert!(answer.assignment.is_some(), "who comes is told what is its own");
        self.id = answer.member_id.as_ref().expect("a member has an id").to_string();
        wait_for("the topic's partition", || {
            if assigned(&answer).is_empty() {
                answer = self.send(client, &self.beat(answer.member_epoch));
                assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
            }
            !assigned(&answer).is_empty()
        });
        assert_eq!(assigned(&answer), [(self.topic.id, vec![0])]);
        answer.member_epoch
    }
}

/// What an answer assigns: partitions by topic.
fn assigned(answer: &ConsumerGroupHeartbeatResponse) -> Vec<(Uuid, Vec<i32>)> {
    let topics = answer
        .assignment
        .iter()
        .flat_map(|assignment| &assignment.topic_partitions);
    topics
        .map(|topic| (topic.topic_id, topic.partitions.clone()))
        .collect()
}

pub(crate) fn heartbeat(node: &DevNode, version: i16) {
    let group = format!("consumer-heartbeat-{version}");
    let mut client = coordinator(node, &group);
    let mut member = Member::new(node, version, &group, &format!("of-{group}"));
    let epoch = member.join(&mut client);
    let lives = member.send(&mut client, &member.beat(epoch));
    assert_eq!((lives.error_code, lives.member_epoch), (0, epoch));
    assert_eq!(lives.assignment, None, "nothing is new");

    let mut stranger = Member::new(node, version, &group, &format!("not-of-{group}"));
    stranger.id = Uuid::new_v4().to_string();
    let nameless = member.first().with_group_id(group_id(""));
    let assignor = stranger.first().with_server_assignor(Some(text("sticky")));
    let mut refused = vec![
        (member.beat(epoch + 1), ErrorCode::FencedMemberEpoch),
        (stranger.beat(epoch), ErrorCode::UnknownMemberId),
        (nameless, ErrorCode::InvalidRequest),
        (member.beat(0), ErrorCode::InvalidRequest),
        (assignor, ErrorCode::UnsupportedAssignor),
    ];
    if version >= 1 {
        let pattern = stranger.first().with_subscribed_topic_names(None);
        let pattern = pattern.with_subscribed_topic_regex(Some(text("(")));
        refused.push((pattern, ErrorCode::InvalidRegularExpression));
        refused.push((member.first().with_member_id(text("")), ErrorCode::InvalidRequest));
    }
    for (request, expected) in refused {
        let answer = member.send(&mut client, &request);
        assert_eq!(answer.error_code, expected.code(), "{request:?}");
        assert!(
            answer.error_message.is_some_and(|message| !message.is_empty()),
            "{request:?}"
        );
    }

    let left = member.send(&mut client, &member.beat(LEAVES));
    assert_eq!((left.error_code, left.member_epoch), (0, LEAVES));
    let gone = member.send(&mut client, &member.beat(epoch));
    assert_eq!(gone.error_code, ErrorCode::UnknownMemberId.code());
}

pub(crate) fn describe(node: &DevNode, version: i16) {
    let group = format!("consumer-describe-{version}");
    let mut client = coordinator(node, &group);
    let mut member = Member::new(node, 1, &group, &format!("of-{group}"));
    let epoch = member.join(&mut client);
    let request = ConsumerGroupDescribeRequest::default()
        .with_group_ids(vec![group_id(&group), group_id("not-there"), group_id("")])
        .with_include_authorized_operations(true);
    let mut groups = client.call(version, &request).groups;
    let (nameless, unknown) = (groups.remove(2), groups.remove(1));
    assert_eq!(nameless.error_code, ErrorCode::InvalidGroupId.code());
    assert_eq!(unknown.error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(unknown.authorized_operations, i32::MIN);

    let described = groups.remove(0);
    assert_eq!((described.error_code, &*described.group_state), (0, "Stable"));
    assert_eq!(&*described.assignor_name, "uniform");
    assert_eq!(
        (described.group_epoch, described.assignment_epoch),
        (epoch, epoch)
    );
    assert_ne!(described.authorized_operations, i32::MIN);
    assert_eq!(described.members.len(), 1);
    let found = &described.members[0];
    assert_eq!((&*found.member_id, &*found.client_id), (&*member.id, "test"));
    assert_eq!((&*found.client_host, found.member_epoch), ("/127.0.0.1", epoch));
    assert_eq!(found.subscribed_topic_names, [topic_name(&member.topic.name)]);
    assert_eq!(found.member_type, if version >= 1 { 1 } else { -1 });
    for assignment in [&found.assignment, &found.target_assignment] {
        let topic = &assignment.topic_partitions[0];
        assert_eq!(
            (topic.topic_id, topic.topic_name.as_str(), &topic.partitions[..]),
            (member.topic.id, &*member.topic.name, &[0][..])
        );
    }
    assert_eq!(member.send(&mut client, &member.beat(LEAVES)).error_code, 0);
}
