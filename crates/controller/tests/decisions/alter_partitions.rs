//! In-sync sets as compare-and-set.

use controller::decisions::{self, BrokerError};
use protocol::{
    ErrorCode,
    grpc::v1::{AlterPartition, AlterPartitionsRequest},
};

use crate::cluster::{Cluster, b, code};

#[test]
fn the_isr_shrinks_and_grows_and_the_elr_with_it() {
    let mut cluster = Cluster::with_brokers(&[1, 2, 3], |_| "");
    let tp = cluster.create("t", &[1, 2, 3], &[]);
    cluster.set_isr(tp, &[1, 2]);
    assert_eq!(cluster.state(tp), (Some(1), vec![1, 2], vec![]), "2 are enough");
    cluster.set_isr(tp, &[1]);
    assert_eq!(cluster.state(tp), (Some(1), vec![1], vec![2]));
    let altered = cluster.alter(&cluster.alter_request(tp, &[3, 1]));
    assert_eq!((altered.isr, altered.partition_epoch), (vec![1, 3], 3));
    assert_eq!(cluster.state(tp), (Some(1), vec![1, 3], vec![]));
    assert_eq!(cluster.partition(tp).leader_epoch.get(), 0);
}

#[test]
fn an_unchanged_isr_is_a_success_without_a_record() {
    let mut cluster = Cluster::with_brokers(&[1, 2, 3], |_| "");
    let tp = cluster.create("t", &[1, 2, 3], &[]);
    let outcome = decisions::alter_partitions(cluster.view(), &cluster.alter_request(tp, &[3, 2, 1]));
    let outcome = outcome.expect("current");
    assert_eq!(outcome.records, []);
    assert_eq!(outcome.reply[0].partition_epoch, 0);
    assert_eq!(code(outcome.reply[0].error.as_ref()), ErrorCode::None);
    cluster.commit(outcome);
}

#[test]
fn whatever_is_stale_or_wrong_is_refused_by_its_name() {
    let mut cluster = Cluster::with_brokers(&[1, 2, 3, 4], |_| "");
    let tp = cluster.create("t", &[1, 2, 3], &[]);
    cluster.fence(3);
    let good = cluster.alter_request(tp, &[1, 2]);
    let with = |change: &dyn Fn(&mut AlterPartition)| {
        let mut request = good.clone();
        change(&mut request.partitions[0]);
        request
    };
    let member = |id: i32| cluster.alter_request(tp, &[id]).partitions[0].new_isr[0];
    let cases: Vec<(&str, AlterPartitionsRequest, ErrorCode)> = vec![
        (
            "topic",
            with(&|p| p.topic_id = vec![9; 16].into()),
            ErrorCode::UnknownTopicId,
        ),
        (
            "no id",
            with(&|p| p.topic_id = vec![].into()),
            ErrorCode::UnknownTopicId,
        ),
        (
            "partition",
            with(&|p| p.partition = 7),
            ErrorCode::UnknownTopicOrPartition,
        ),
        (
            "future leader epoch",
            with(&|p| p.leader_epoch += 1),
            ErrorCode::NotController,
        ),
        (
            "future partition epoch",
            with(&|p| p.partition_epoch += 1),
            ErrorCode::NotController,
        ),
        (
            "old leader epoch",
            with(&|p| p.leader_epoch -= 1),
            ErrorCode::FencedLeaderEpoch,
        ),
        (
            "old partition epoch",
            with(&|p| p.partition_epoch -= 1),
            ErrorCode::InvalidUpdateVersion,
        ),
        (
            "without the leader",
            with(&|p| p.new_isr = vec![member(2)]),
            ErrorCode::InvalidRequest,
        ),
        ("empty", with(&|p| p.new_isr.clear()), ErrorCode::InvalidRequest),
        (
            "no replica",
            with(&|p| p.new_isr.push(member(4))),
            ErrorCode::InvalidRequest,
        ),
        (
            "twice",
            with(&|p| p.new_isr.push(member(2))),
            ErrorCode::InvalidRequest,
        ),
        (
            "fenced",
            with(&|p| p.new_isr.push(member(3))),
            ErrorCode::IneligibleReplica,
        ),
        (
            "another incarnation",
            with(&|p| p.new_isr[1].broker_epoch -= 1),
            ErrorCode::IneligibleReplica,
        ),
    ];
    for (name, request, expected) in cases {
        let outcome = decisions::alter_partitions(cluster.view(), &request).expect("current");
        assert_eq!(code(outcome.reply[0].error.as_ref()), expected, "{name}");
        assert_eq!(outcome.records, [], "{name}");
    }
    let mut follower = good.clone();
    follower.broker_id = 2;
    follower.broker_epoch = cluster.epoch(2).get();
    let outcome = decisions::alter_partitions(cluster.view(), &follower).expect("current");
    assert_eq!(code(outcome.reply[0].error.as_ref()), ErrorCode::InvalidRequest);
    let mut stale = good.clone();
    stale.broker_epoch -= 1;
    let refused = decisions::alter_partitions(cluster.view(), &stale).expect_err("stale");
    assert!(matches!(refused, BrokerError::StaleEpoch { broker, .. } if broker == b(1)));

    let mut twice = good;
    twice.partitions.push(twice.partitions[0].clone());
    let outcome = decisions::alter_partitions(cluster.view(), &twice).expect("current");
    assert_eq!(code(outcome.reply[1].error.as_ref()), ErrorCode::InvalidRequest);
}
