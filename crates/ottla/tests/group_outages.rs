//! Groups over gRPC while brokers are gone: every broker says of a group what is known, lists what is there, and
//! does once what must not be done twice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

#[allow(dead_code, reason = "records over gRPC use the rest")]
#[path = "grpc_records/cluster.rs"]
mod cluster;
#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use protocol::ErrorCode;
use protocol::grpc::v1::reset_group_offsets_request::To;
use protocol::grpc::v1::{
    CommitRequest, CommitResponse, DescribeGroupRequest, DescribeGroupResponse, EarliestOffset, KafkaError,
    ListGroupsRequest, OffsetToCommit, ResetGroupOffsetsRequest, ResetGroupOffsetsResponse,
};
use tokio::time::{Instant, sleep};

use cluster::{Cluster, PATIENCE, run, to, value};

const PAUSE: Duration = Duration::from_millis(50);

fn code(error: Option<&KafkaError>) -> ErrorCode {
    let code = error.map_or(0, |error| error.code);
    ErrorCode::from_code(code as i16).unwrap()
}

/// Commits these offsets of the topic's partitions, from 0 on.
async fn commit(cluster: &Cluster, group: &str, topic: &str, offsets: &[i64]) {
    let offsets = (0..).zip(offsets).map(|(partition, &offset)| OffsetToCommit {
        topic: topic.to_owned(),
        partition,
        offset,
        ..OffsetToCommit::default()
    });
    let request = CommitRequest {
        group_id: group.to_owned(),
        offsets: offsets.collect(),
    };
    // The first call of all creates the topic that groups are kept in, with as many replicas as the asked
    // broker wants: `ottla dev`, which is broker 1, wants one.
    // On a slow disk that may take longer than a commit may: it is repeated.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = cluster.records(3).commit(request.clone()).await;
        let committed = |answer: &CommitResponse| answer.offsets.iter().all(|offset| offset.error.is_none());
        if answer.as_ref().is_ok_and(|answer| committed(answer.get_ref())) {
            return;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        sleep(PAUSE).await;
    }
}

async fn describe(cluster: &Cluster, broker: usize, group: &str) -> DescribeGroupResponse {
    let request = DescribeGroupRequest {
        group_id: group.to_owned(),
    };
    let answer = cluster.admin(broker).describe_group(request).await;
    answer.unwrap().into_inner()
}

async fn reset(cluster: &Cluster, broker: usize, group: &str, to: To) -> ResetGroupOffsetsResponse {
    let request = ResetGroupOffsetsRequest {
        group_id: group.to_owned(),
        topics: Vec::new(),
        to: Some(to),
        execute: true,
    };
    let answer = cluster.admin(broker).reset_group_offsets(request).await;
    answer.unwrap().into_inner()
}

/// Groups that brokers 1, 2 and 3 coordinate, each with these offsets of the topic.
async fn one_group_each(cluster: &Cluster, topic: &str, offsets: &[i64]) -> [String; 3] {
    let mut found = [const { None }; 3];
    for number in 0.. {
        let group = format!("group-{number}");
        commit(cluster, &group, topic, offsets).await;
        let described = describe(cluster, 1, &group).await;
        assert_eq!(code(described.error.as_ref()), ErrorCode::None, "{described:?}");
        found[described.coordinator as usize - 1] = Some(group);
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found.map(|group| group.expect("the loop ended"))
}

async fn write(cluster: &Cluster, topic: &str, partition: i32, records: usize) {
    let record = |_| protocol::grpc::v1::NewRecord {
        partition: Some(partition),
        ..value("v")
    };
    let request = to(topic, (0..records).map(record).collect());
    let answer = cluster.records(1).produce(request).await.unwrap().into_inner();
    assert_eq!(answer.failed, 0);
}

#[test]
fn a_partition_without_a_leader_hides_nothing_else() {
    let mut cluster = Cluster::start();
    run(async {
        cluster.topic("half", &[&[1], &[2]], &[]).await;
        for partition in [0, 1] {
            write(&cluster, "half", partition, 10).await;
        }
        let groups = one_group_each(&cluster, "half", &[4, 6]).await;
        cluster.kill(2);

        // Those that broker 2 coordinated have another coordinator now, and none is missing.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let listed = cluster.admin(1).list_groups(ListGroupsRequest::default()).await;
            let listed = listed.unwrap().into_inner();
            let all_there = groups
                .iter()
                .all(|group| listed.groups.iter().any(|found| found.group_id == *group));
            if listed.unavailable.is_empty() && listed.groups.iter().all(|group| group.coordinator != 2) {
                assert!(all_there, "{listed:?}");
                break;
            }
            assert!(Instant::now() < deadline, "{listed:?}");
            sleep(PAUSE).await;
        }

        // Each of both that are left is told of the other's group as of its own.
        let told = async |broker, group| {
            // A leader that lives may be asked in vain too, for as long as a broker asks: once more then.
            let deadline = Instant::now() + PATIENCE;
            loop {
                let described = describe(&cluster, broker, group).await;
                let told: Vec<_> = described
                    .offsets
                    .iter()
                    .map(|offset| (offset.committed_offset, offset.end_offset, offset.lag))
                    .collect();
                if told == [(Some(4), Some(10), Some(6)), (Some(6), None, None)] {
                    break;
                }
                assert!(Instant::now() < deadline, "{group} at {broker}: {described:?}");
            }

            let answer = loop {
                let answer = reset(&cluster, broker, group, To::Earliest(EarliestOffset {})).await;
                let known = answer.offsets.iter().any(|offset| offset.after.is_some());
                if known || Instant::now() >= deadline {
                    break answer;
                }
            };
            let told: Vec<_> = answer
                .offsets
                .iter()
                .map(|offset| (offset.before, offset.after, code(offset.error.as_ref())))
                .collect();
            let expected = [
                (Some(4), Some(0), ErrorCode::None),
                (Some(6), None, ErrorCode::LeaderNotAvailable),
            ];
            assert_eq!(told, expected, "{group} at {broker}: {answer:?}");
        };
        tokio::join!(told(3, &groups[0]), told(1, &groups[2]), told(3, &groups[1]));
    });
}

#[test]
fn a_shift_whose_coordinator_hangs_is_not_done_twice() {
    const BEFORE: i64 = 50;
    const SHIFT: i64 = 10;
    let cluster = Cluster::start();
    run(async {
        cluster.topic("shifted", &[&[1, 3]], &[]).await;
        write(&cluster, "shifted", 0, 100).await;
        let [_, group, _] = one_group_each(&cluster, "shifted", &[BEFORE]).await;
        cluster.signal(2, "STOP");
        let answer = reset(&cluster, 1, &group, To::ShiftBy(-SHIFT)).await;
        cluster.signal(2, "CONT");
        match code(answer.error.as_ref()) {
            // It got another coordinator before it was asked.
            ErrorCode::None => assert_eq!(answer.offsets[0].after, Some(BEFORE - SHIFT), "{answer:?}"),
            ErrorCode::RequestTimedOut => {
                let said = answer.error.unwrap_or_default().message;
                assert!(said.contains("may have been done"), "{said}");
            }
            other => panic!("{other:?}: {answer:?}"),
        }

        // At every broker: not shifted twice.
        let deadline = Instant::now() + PATIENCE;
        for broker in [1, 2, 3] {
            let described = loop {
                let described = describe(&cluster, broker, &group).await;
                if described.error.is_none() {
                    break described;
                }
                assert!(Instant::now() < deadline, "{described:?}");
                sleep(PAUSE).await;
            };
            let committed = described.offsets[0].committed_offset;
            assert!(
                [Some(BEFORE), Some(BEFORE - SHIFT)].contains(&committed),
                "{committed:?} at {broker}"
            );
        }
        // What may be repeated is done.
        let answer = loop {
            let answer = reset(&cluster, 3, &group, To::Offset(7)).await;
            if answer.error.is_none() {
                break answer;
            }
            assert!(Instant::now() < deadline, "{answer:?}");
            sleep(PAUSE).await;
        };
        assert_eq!(answer.offsets[0].after, Some(7), "{answer:?}");
    });
}
