//! Registration, fencing, shutdown, failed replicas, elections.

use controller::decisions::{self, BrokerError, RegisterError};
use protocol::{
    BrokerEpoch, DirectoryId, ErrorCode, ProducerId,
    grpc::v1::{AllocateProducerIdsRequest, DamagedPartition, ElectLeadersRequest, PartitionRef, Register},
};

use crate::cluster::{Cluster, b, code, dir};

fn three() -> Cluster {
    Cluster::with_brokers(&[1, 2, 3], |_| "")
}

fn damaged(tp: protocol::TopicPartition) -> DamagedPartition {
    DamagedPartition {
        topic_id: tp.topic_id.to_vec().into(),
        partition: tp.partition.get(),
    }
}

#[test]
fn a_fenced_leader_is_replaced_from_the_isr() {
    let mut cluster = three();
    let tp = cluster.create("t", &[1, 2, 3], &[]);
    cluster.fence(1);
    assert_eq!(cluster.state(tp), (Some(2), vec![2, 3], vec![]));
    assert_eq!(cluster.partition(tp).leader_epoch.get(), 1);
    cluster.fence(3);
    assert_eq!(cluster.state(tp), (Some(2), vec![2], vec![3]));
    assert_eq!(cluster.partition(tp).leader_epoch.get(), 1, "the leader stayed");
    cluster.fence(3);
    assert_eq!(cluster.partition(tp).partition_epoch.get(), 2, "fenced is fenced");
}

#[test]
fn a_member_of_the_elr_leads_when_the_isr_is_empty() {
    let mut cluster = three();
    let tp = cluster.create("t", &[1, 2, 3], &[]);
    cluster.fence(1); // ISR 2, 3 is enough: the high watermark may leave 1 behind.
    cluster.fence(2);
    cluster.fence(3);
    assert_eq!(cluster.state(tp), (None, vec![], vec![2, 3]));
    cluster.unfence(1);
    assert_eq!(
        cluster.state(tp),
        (None, vec![], vec![2, 3]),
        "1 may lack records"
    );
    cluster.unfence(3);
    assert_eq!(cluster.state(tp), (Some(3), vec![3], vec![2]));
    cluster.set_isr(tp, &[3, 1]);
    assert_eq!(cluster.state(tp), (Some(3), vec![1, 3], vec![]));
}

#[test]
fn no_process_resumes_an_epoch_that_it_did_not_start() {
    let mut cluster = three();
    let alone = cluster.create("alone", &[1], &[]);
    let tp = cluster.create("t", &[1, 2, 3], &[]);
    let request = cluster.registration(1);
    let registered = cluster.register(&request);
    assert!(registered.new_incarnation);
    assert_eq!(cluster.state(alone), (None, vec![], vec![1]));
    assert_eq!(cluster.state(tp), (Some(2), vec![2, 3], vec![]));
    assert_eq!(cluster.partition(alone).leader_epoch.get(), 1);
    cluster.unfence(1);
    assert_eq!(cluster.state(alone), (Some(1), vec![1], vec![]));
    assert_eq!(cluster.partition(alone).leader_epoch.get(), 2);

    let again = cluster.register(&request);
    assert_eq!((again.epoch, again.new_incarnation), (registered.epoch, false));
    assert_eq!(
        cluster.state(alone),
        (Some(1), vec![1], vec![]),
        "a new session changes nothing"
    );
}

#[test]
fn a_second_process_with_the_same_id_is_refused() {
    let mut cluster = three();
    let request = cluster.registration(1);
    let refused = decisions::register(cluster.view(), &request, BrokerEpoch(100), true);
    assert_eq!(refused, Err(RegisterError::Duplicate { broker: b(1) }));
    let malformed = decisions::register(cluster.view(), &Register::default(), BrokerEpoch(100), false);
    assert!(matches!(malformed, Err(RegisterError::Malformed(_))));
}

#[test]
fn a_replica_whose_directory_is_gone_has_nothing() {
    let mut cluster = three();
    let alone = cluster.create("alone", &[1], &[]);
    let tp = cluster.create("t", &[1, 2, 3], &[]);
    let mut request = cluster.registration(1);
    request.log_dirs = vec![dir(99).to_vec().into()];
    cluster.register(&request);
    cluster.unfence(1);
    assert_eq!(cluster.state(alone), (None, vec![], vec![]));
    assert_eq!(cluster.partition(alone).directories, [dir(99)]);
    assert_eq!(cluster.partition(tp).directories, [dir(99), dir(2), dir(3)]);

    let elect = |unclean| ElectLeadersRequest {
        unclean,
        partitions: vec![],
    };
    let outcome = decisions::elect_leaders(cluster.view(), &elect(true));
    let results = cluster.commit(outcome);
    assert_eq!(results.len(), 1, "only what needed an election is answered");
    assert_eq!(
        cluster.state(alone),
        (Some(1), vec![1], vec![]),
        "an operator said so"
    );
}

#[test]
fn a_lost_page_cache_costs_what_was_acknowledged_from_it() {
    const NEVER: &str = "9223372036854775807";
    for (broker_static, flushed_stays) in [(0, true), (i64::MAX, false)] {
        let mut cluster = three();
        let cached = cluster.create("cached", &[1], &[("flush.messages", NEVER)]);
        let flushed = cluster.create("flushed", &[1], &[]);
        let explicit = cluster.create("explicit", &[1], &[("flush.messages", "1")]);
        let mut request = cluster.registration(1);
        request.may_have_lost_data = true;
        request.static_flush_messages = broker_static;
        cluster.register(&request);
        cluster.unfence(1);
        assert_eq!(cluster.state(cached), (None, vec![], vec![]));
        let leader = flushed_stays.then_some(1);
        assert_eq!(cluster.state(flushed).0, leader);
        assert_eq!(cluster.state(explicit).0, Some(1));
    }
}

#[test]
fn a_damaged_replica_makes_way_where_another_has_everything() {
    let mut cluster = three();
    let alone = cluster.create("alone", &[1], &[]);
    let tp = cluster.create("t", &[1, 2], &[("min.insync.replicas", "2")]);
    cluster.fence(2);
    assert_eq!(cluster.state(tp), (Some(1), vec![1], vec![2]));
    let mut request = cluster.registration(1);
    request.damaged = vec![damaged(alone), damaged(tp)];
    cluster.register(&request);
    cluster.unfence(1);
    assert_eq!(
        cluster.state(alone),
        (Some(1), vec![1], vec![]),
        "nobody else has more"
    );
    assert_eq!(
        cluster.state(tp),
        (None, vec![], vec![2]),
        "2 has everything and will be back"
    );
    cluster.unfence(2);
    assert_eq!(cluster.state(tp), (Some(2), vec![2], vec![]));
}

#[test]
fn a_failed_replica_leaves_leadership_and_isr() {
    let mut cluster = three();
    let alone = cluster.create("alone", &[1], &[]);
    let tp = cluster.create("t", &[1, 2], &[("min.insync.replicas", "2")]);
    let epoch = cluster.epoch(1);
    let outcome = decisions::fail_replicas(cluster.view(), b(1), epoch, &[alone, tp]).expect("current");
    cluster.commit(outcome);
    assert_eq!(
        cluster.state(alone),
        (None, vec![], vec![1]),
        "readable after a repair, perhaps"
    );
    assert_eq!(
        cluster.state(tp),
        (Some(2), vec![2], vec![]),
        "what failed is not eligible"
    );
    let again = decisions::fail_replicas(cluster.view(), b(1), epoch, &[alone, tp]).expect("current");
    assert_eq!(again.records, []);
    cluster.restart(1);
    assert_eq!(cluster.state(alone), (Some(1), vec![1], vec![]));

    let outcome = decisions::fail_directories(cluster.view(), b(2), cluster.epoch(2), &[dir(2)]);
    cluster.commit(outcome.expect("current"));
    assert_eq!(cluster.state(tp), (None, vec![], vec![2]));
}

#[test]
fn a_controlled_shutdown_moves_everything_away() {
    let mut cluster = three();
    let tp = cluster.create("t", &[1, 2, 3], &[]);
    assert!(!decisions::may_shut_down(&cluster.image, b(1)));
    let outcome = decisions::begin_controlled_shutdown(cluster.view(), b(1), cluster.epoch(1));
    cluster.commit(outcome.expect("current"));
    assert_eq!(cluster.state(tp), (Some(2), vec![2, 3], vec![]));
    assert!(decisions::may_shut_down(&cluster.image, b(1)));
    let refused = cluster.alter(&cluster.alter_request(tp, &[1, 2, 3]));
    assert_eq!(code(refused.error.as_ref()), ErrorCode::IneligibleReplica);
    cluster.fence(1);
    cluster.unfence(1);
    assert!(
        cluster.image.brokers[&b(1)].fenced,
        "who is leaving is not let in"
    );
    cluster.restart(1);
    assert!(cluster.image.brokers[&b(1)].is_eligible());
}

#[test]
fn an_old_incarnation_decides_nothing() {
    let mut cluster = three();
    let old = cluster.epoch(1);
    cluster.restart(1);
    let stale = BrokerError::StaleEpoch {
        broker: b(1),
        presented: old,
        current: cluster.epoch(1),
    };
    assert_eq!(decisions::unfence(cluster.view(), b(1), old), Err(stale.clone()));
    assert_eq!(
        decisions::begin_controlled_shutdown(cluster.view(), b(1), old),
        Err(stale.clone())
    );
    assert_eq!(
        decisions::fail_replicas(cluster.view(), b(1), old, &[]),
        Err(stale)
    );
    let unknown = BrokerError::NotRegistered { broker: b(9) };
    assert_eq!(decisions::unregister(cluster.view(), b(9)), Err(unknown));
}

#[test]
fn an_unregistered_broker_is_forgotten_and_its_replicas_wait() {
    let mut cluster = three();
    let tp = cluster.create("t", &[1, 2, 3], &[]);
    let outcome = decisions::unregister(cluster.view(), b(1)).expect("registered");
    cluster.commit(outcome);
    assert!(!cluster.image.brokers.contains_key(&b(1)));
    assert_eq!(cluster.state(tp), (Some(2), vec![2, 3], vec![]));
    cluster.restart(1);
    cluster.set_isr(tp, &[1, 2, 3]);
}

#[test]
fn preferred_leaders_get_their_partitions_back() {
    let mut cluster = three();
    let tps: Vec<_> = ["t", "u"]
        .map(|name| cluster.create(name, &[1, 2, 3], &[]))
        .to_vec();
    cluster.restart(1);
    assert_eq!(
        decisions::rebalance_leaders(cluster.view(), 10).reply,
        0,
        "1 is in no ISR yet"
    );
    for &tp in &tps {
        cluster.set_isr(tp, &[1, 2, 3]);
    }
    let outcome = decisions::rebalance_leaders(cluster.view(), 1);
    assert_eq!(cluster.commit(outcome), 1);
    let named = |name: &str| PartitionRef {
        name: name.to_owned(),
        ..PartitionRef::default()
    };
    let request = ElectLeadersRequest {
        unclean: false,
        partitions: vec![named("t"), named("u"), named("nope"), named("t")],
    };
    let outcome = decisions::elect_leaders(cluster.view(), &request);
    let codes: Vec<_> = cluster
        .commit(outcome)
        .iter()
        .map(|r| code(r.error.as_ref()))
        .collect();
    assert_eq!(
        codes,
        [
            ErrorCode::ElectionNotNeeded,
            ErrorCode::None,
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::ElectionNotNeeded
        ]
    );
    for &tp in &tps {
        assert_eq!(cluster.state(tp), (Some(1), vec![1, 2, 3], vec![]));
    }
    cluster.fence(1);
    let outcome = decisions::elect_leaders(cluster.view(), &request);
    assert_eq!(
        code(outcome.reply[0].error.as_ref()),
        ErrorCode::PreferredLeaderNotAvailable
    );
}

#[test]
fn producer_ids_are_given_once() {
    let mut cluster = three();
    let request = AllocateProducerIdsRequest {
        broker_id: 1,
        broker_epoch: cluster.epoch(1).get(),
    };
    for expected in [0, 1000, 2000] {
        let outcome = decisions::allocate_producer_ids(cluster.view(), &request).expect("current");
        let block = cluster.commit(outcome);
        assert_eq!((block.first, block.count), (ProducerId(expected), 1000));
    }
    cluster.restart(1);
    assert!(decisions::allocate_producer_ids(cluster.view(), &request).is_err());
}

#[test]
fn a_broker_without_directories_is_not_taken_for_wiped() {
    let mut cluster = Cluster::new();
    let mut request = cluster.registration(1);
    request.log_dirs.clear();
    cluster.register(&request);
    cluster.unfence(1);
    let tp = cluster.create("t", &[1], &[]);
    assert_eq!(cluster.partition(tp).directories, [DirectoryId::ZERO]);
    cluster.restart(1);
    assert_eq!(cluster.state(tp), (Some(1), vec![1], vec![]));
    assert_eq!(cluster.partition(tp).directories, [dir(1)]);
}
