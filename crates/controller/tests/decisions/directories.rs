//! Log directories: placement, failure while running and at start, and where replicas really lie.

use controller::decisions;
use protocol::{
    DirectoryId, ErrorCode, TopicPartition,
    grpc::v1::{AssignDirectoriesRequest, DirectoryAssignment, KafkaError, Register},
};

use crate::cluster::{Cluster, b, code, dir};

/// Broker 1 has the directories 1 and 11, the others one each.
fn three() -> Cluster {
    let mut cluster = Cluster::with_brokers(&[1, 2, 3], |_| "");
    let request = with_dirs(&mut cluster, &[1, 11], 0);
    cluster.register(&request);
    cluster.unfence(1);
    cluster
}

/// Broker 1 with these directories, and so many more that it cannot use.
fn with_dirs(cluster: &mut Cluster, dirs: &[u128], unusable: u32) -> Register {
    let mut request = cluster.registration(1);
    request.log_dirs = dirs.iter().map(|&id| dir(id).to_vec().into()).collect();
    request.unusable_log_dirs = unusable;
    request
}

/// The directory of broker 1's replica.
fn home(cluster: &Cluster, tp: TopicPartition) -> DirectoryId {
    cluster.partition(tp).directory_of(b(1)).expect("a replica of 1")
}

fn fail(cluster: &mut Cluster, directory: u128) {
    let outcome = decisions::fail_directories(cluster.view(), b(1), cluster.epoch(1), &[dir(directory)]);
    cluster.commit(outcome.expect("the current epoch"));
}

#[test]
fn new_replicas_go_where_the_fewest_are() {
    let mut cluster = three();
    let homes: Vec<_> = (0..4)
        .map(|i| {
            let tp = cluster.create(&format!("t{i}"), &[1, 2], &[]);
            home(&cluster, tp)
        })
        .collect();
    assert_eq!(homes, [dir(1), dir(11), dir(1), dir(11)], "the first of equals");
    fail(&mut cluster, 11);
    for i in 4..6 {
        let tp = cluster.create(&format!("t{i}"), &[1, 2], &[]);
        assert_eq!(home(&cluster, tp), dir(1), "only where there is a disk");
    }
}

#[test]
fn a_directory_that_fails_takes_its_replicas_and_no_others() {
    let mut cluster = three();
    let (stays, moves) = (
        cluster.create("stays", &[1, 2, 3], &[]),
        cluster.create("moves", &[1, 2, 3], &[]),
    );
    assert_eq!((home(&cluster, stays), home(&cluster, moves)), (dir(1), dir(11)));
    fail(&mut cluster, 11);
    assert_eq!(cluster.state(stays), (Some(1), vec![1, 2, 3], vec![]));
    assert_eq!(cluster.state(moves), (Some(2), vec![2, 3], vec![]));
    assert_eq!(cluster.image.brokers[&b(1)].log_dirs, [dir(1)]);
    // Told with every heartbeat; only the first time is news.
    let again = decisions::fail_directories(cluster.view(), b(1), cluster.epoch(1), &[dir(11)]);
    assert_eq!(again.expect("current").records, []);

    // The directory is there after a restart, and so is the replica, as a follower.
    let request = with_dirs(&mut cluster, &[1, 11], 0);
    cluster.register(&request);
    cluster.unfence(1);
    assert_eq!(home(&cluster, moves), dir(11));
    cluster.set_isr(moves, &[1, 2, 3]);
    assert_eq!(cluster.state(moves), (Some(2), vec![1, 2, 3], vec![]));
}

#[test]
fn a_sole_replica_waits_for_its_directory() {
    let mut cluster = three();
    cluster.create("first", &[1], &[]);
    let alone = cluster.create("alone", &[1], &[]);
    assert_eq!(home(&cluster, alone), dir(11));
    fail(&mut cluster, 11);
    assert_eq!(cluster.state(alone), (None, vec![], vec![1]));

    // Still offline at the next start: it stays where it is, and is not led from nowhere.
    let request = with_dirs(&mut cluster, &[1], 1);
    cluster.register(&request);
    cluster.unfence(1);
    assert_eq!(cluster.state(alone), (None, vec![], vec![1]));
    assert_eq!(home(&cluster, alone), dir(11));

    let request = with_dirs(&mut cluster, &[1, 11], 0);
    cluster.register(&request);
    cluster.unfence(1);
    assert_eq!(cluster.state(alone), (Some(1), vec![1], vec![]));
}

#[test]
fn a_directory_that_is_missing_for_good_is_replaced_evenly() {
    let mut cluster = three();
    let topics: Vec<_> = (0..6)
        .map(|i| cluster.create(&format!("t{i}"), &[1, 2], &[]))
        .collect();
    // Another disk in the place of the first: three replicas begin anew.
    let request = with_dirs(&mut cluster, &[111, 11], 0);
    cluster.register(&request);
    cluster.unfence(1);
    for (i, &tp) in topics.iter().enumerate() {
        let lost = i % 2 == 0;
        assert_eq!(home(&cluster, tp), if lost { dir(111) } else { dir(11) });
        assert_eq!(cluster.state(tp).1, [2]);
    }
    // All of the broker's: what is left takes them in turn.
    let request = with_dirs(&mut cluster, &[112, 113], 0);
    cluster.register(&request);
    let count = |id| topics.iter().filter(|&&tp| home(&cluster, tp) == dir(id)).count();
    assert_eq!((count(112), count(113)), (3, 3));
}

#[test]
fn a_broker_says_where_its_replicas_lie() {
    let mut cluster = three();
    let tp = cluster.create("t", &[1, 2], &[]);
    let other = cluster.create("other", &[2, 3], &[]);
    let assign = |cluster: &mut Cluster, tp: TopicPartition, directory: DirectoryId| -> KafkaError {
        let request = AssignDirectoriesRequest {
            broker_id: 1,
            broker_epoch: cluster.epoch(1).get(),
            assignments: vec![DirectoryAssignment {
                topic_id: tp.topic_id.to_vec().into(),
                partition: tp.partition.get(),
                directory: directory.to_vec().into(),
            }],
        };
        let outcome = decisions::assign_directories(cluster.view(), &request).expect("current");
        cluster.commit(outcome).remove(0)
    };
    let before = cluster.partition(tp);
    assert_eq!(code(Some(&assign(&mut cluster, tp, dir(11)))), ErrorCode::None);
    let after = cluster.partition(tp);
    assert_eq!(after.directories, [dir(11), dir(2)]);
    assert_eq!(after.partition_epoch, before.partition_epoch.next());
    assert_eq!(
        (after.leader, after.leader_epoch),
        (before.leader, before.leader_epoch)
    );
    assert_eq!(code(Some(&assign(&mut cluster, tp, dir(11)))), ErrorCode::None);
    assert_eq!(cluster.partition(tp), after, "saying it twice changes nothing");

    let unknown = TopicPartition::new(tp.topic_id, protocol::PartitionIndex(9));
    for (tp, directory, expected) in [
        (unknown, dir(11), ErrorCode::UnknownTopicOrPartition),
        (other, dir(11), ErrorCode::NotLeaderOrFollower),
        (tp, dir(2), ErrorCode::KafkaStorageError),
        (tp, DirectoryId::ZERO, ErrorCode::InvalidRequest),
    ] {
        assert_eq!(code(Some(&assign(&mut cluster, tp, directory))), expected);
    }
    let stale = AssignDirectoriesRequest {
        broker_id: 1,
        broker_epoch: cluster.epoch(1).get() - 1,
        assignments: vec![],
    };
    assert!(decisions::assign_directories(cluster.view(), &stale).is_err());
}
