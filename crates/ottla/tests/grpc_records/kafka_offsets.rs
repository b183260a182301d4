//! A Kafka client that asks a broker for the offsets of a group which another one coordinates: it is told
//! what the coordinator would tell it, also while the coordinator moves. Clients that are told
//! NOT_COORDINATOR there never read (librdkafka), or read from the beginning (aiokafka).

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use kafka_protocol::messages::{
    FindCoordinatorRequest, OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
};
use protocol::ErrorCode;

use crate::{
    cluster::{Cluster, PATIENCE, run},
    support::{Client, text, topic_name},
};

const BROKERS: [usize; 3] = [1, 2, 3];
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks again until there is an answer.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(PAUSE);
    }
}

/// The number of the group's coordinator, once there is one, as a broker knows it.
fn coordinator(client: &mut Client, group: &str) -> usize {
    until("no coordinator is found", || {
        let request = FindCoordinatorRequest::default().with_key(text(group));
        let found = client.call(3, &request);
        (found.error_code == 0).then_some(found.node_id.0 as usize)
    })
}

/// A group that broker `wanted` coordinates. Broker 1 is asked nothing: it would create the groups' topic with one
/// replica, as `ottla dev` does.
fn group_of(cluster: &Cluster, wanted: usize) -> String {
    let mut client = cluster.kafka(3);
    let group = (0..).map(|number| format!("group-{number}"));
    group
        .take(1000)
        .find(|group| coordinator(&mut client, group) == wanted)
        .expect("one of so many groups")
}

/// Commits for partition 0, at the coordinator; it may have to load its groups first, and on a busy machine it
/// may be another one in a moment.
fn commit(cluster: &Cluster, group: &str, topic: &str, offset: i64) {
    until("the commit is refused", || {
        let coordinator = coordinator(&mut cluster.kafka(3), group);
        let mut at_coordinator = cluster.kafka(coordinator);
        let partition = OffsetCommitRequestPartition::default()
            .with_committed_offset(offset)
            .with_committed_leader_epoch(3)
            .with_committed_metadata(Some(text("note")));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(text(group).into())
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        let answer = at_coordinator.call(8, &request);
        (answer.topics[0].partitions[0].error_code == 0).then_some(())
    });
}

/// A question after partitions of a topic, or all that the group has, in each version's own form.
fn question(version: i16, group: &str, wanted: Option<(&str, &[i32])>) -> OffsetFetchRequest {
    if version < 8 {
        let topics = wanted.map(|(topic, partitions)| {
            vec![
                OffsetFetchRequestTopic::default()
                    .with_name(topic_name(topic))
                    .with_partition_indexes(partitions.to_vec()),
            ]
        });
        return OffsetFetchRequest::default()
            .with_group_id(text(group).into())
            .with_topics(topics);
    }
    let topics = wanted.map(|(topic, partitions)| {
        vec![
            OffsetFetchRequestTopics::default()
                .with_name(topic_name(topic))
                .with_partition_indexes(partitions.to_vec()),
        ]
    });
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(text(group).into())
        .with_topics(topics);
    OffsetFetchRequest::default().with_groups(vec![asked])
}

/// Error of the group, and offset and error of the first partition.
fn found(version: i16, answer: &OffsetFetchResponse) -> (i16, Option<(i64, i16)>) {
    if version < 8 {
        let first = answer.topics.first().and_then(|topic| topic.partitions.first());
        let first = first.map(|partition| (partition.committed_offset, partition.error_code));
        return (answer.error_code, first);
    }
    let group = &answer.groups[0];
    let first = group.topics.first().and_then(|topic| topic.partitions.first());
    let first = first.map(|partition| (partition.committed_offset, partition.error_code));
    (group.error_code, first)
}

/// What a broker tells once it does not say that it is to be asked again, which it may on a busy machine.
fn told(
    cluster: &Cluster,
    broker: usize,
    version: i16,
    question: &OffsetFetchRequest,
) -> OffsetFetchResponse {
    let again = ErrorCode::CoordinatorLoadInProgress.code();
    let mut client = cluster.kafka(broker);
    until("it is always to be asked again", || {
        let answer = client.call(version, question);
        let of_partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let mut errors = of_partitions
            .map(|partition| partition.error_code)
            .chain(answer.groups.iter().map(|group| group.error_code))
            .chain([answer.error_code]);
        (!errors.any(|error| error == again)).then_some(answer)
    })
}

#[test]
fn every_broker_tells_what_a_group_has_committed() {
    let cluster = Cluster::shared();
    run(async { cluster.topic("asked", &[&[1, 2, 3], &[2, 3, 1]], &[]).await });
    let group = group_of(&cluster, 2);
    commit(&cluster, &group, "asked", 41);
    for version in 1..=9 {
        let mut questions = vec![
            question(version, &group, Some(("asked", &[0, 1, 7]))),
            question(version, &group, Some(("no such topic", &[0]))),
            question(version, &group, Some(("asked", &[]))),
            question(version, "nobody's", Some(("asked", &[0]))),
        ];
        if version >= 2 {
            questions.push(question(version, &group, None));
        }
        if version >= 9 {
            let mut by_a_member = question(version, &group, None);
            by_a_member.groups[0].member_id = Some(text("nobody"));
            by_a_member.groups[0].member_epoch = 5;
            questions.push(by_a_member);
        }
        for question in &questions {
            let expected = told(&cluster, 2, version, question);
            for broker in BROKERS {
                assert_eq!(
                    told(&cluster, broker, version, question),
                    expected,
                    "version {version} at broker {broker}: {question:?}"
                );
            }
        }
        let answer = told(&cluster, 3, version, &questions[0]);
        assert_eq!(found(version, &answer), (0, Some((41, 0))), "version {version}");
    }
    run(async { cluster.delete("asked").await });
}

#[test]
fn what_is_asked_while_the_coordinator_moves_is_answered_or_to_be_asked_again() {
    let mut cluster = Cluster::start();
    run(async { cluster.topic("asked", &[&[1, 2, 3]], &[]).await });
    let group = group_of(&cluster, 2);
    commit(&cluster, &group, "asked", 41);
    let mut clients = [(1, cluster.kafka(1)), (3, cluster.kafka(3))];
    cluster.kill(2);
    let mut right: BTreeSet<(usize, i16)> = BTreeSet::new();
    until("the offset is not found again", || {
        for (broker, client) in &mut clients {
            for version in [3, 9] {
                let answer = client.call(version, &question(version, &group, Some(("asked", &[0]))));
                let (error, first) = found(version, &answer);
                if error == 0 {
                    assert_eq!(first, Some((41, 0)), "version {version} at broker {broker}");
                    right.insert((*broker, version));
                } else {
                    let again = ErrorCode::CoordinatorLoadInProgress.code();
                    assert_eq!(error, again, "version {version} at broker {broker}");
                }
            }
        }
        (right.len() == 4).then_some(())
    });
}
