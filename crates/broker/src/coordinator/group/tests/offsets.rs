//! Committed offsets: what is kept, how long, and what is refused.

use kafka_protocol::messages::OffsetCommitRequest;
use protocol::ErrorCode;

use super::bench::{Bench, SESSION_MS, commit, error_of, fetch, heartbeat, leave, text};
use crate::coordinator::group::{GroupConfig, GroupReply, GroupRequest, records::Change};

const HOUR: u64 = 3_600_000;

/// A bench on which offsets live for an hour and are looked after every minute.
fn bench() -> Bench {
    Bench::with(GroupConfig {
        offsets_retention_ms: HOUR as i64,
        offsets_retention_check_interval_ms: 60_000,
        ..GroupConfig::default()
    })
}

fn commits(bench: &mut Bench, body: OffsetCommitRequest) -> ErrorCode {
    error_of(&bench.ask(8, GroupRequest::CommitOffsets(body)))
}

/// Lets time pass in which a member is heard of.
fn pass_with(bench: &mut Bench, id: &str, ms: u64) {
    let step = SESSION_MS as u64 / 2;
    for _ in 0..ms / step {
        bench.pass(step);
        bench.ask(4, GroupRequest::Heartbeat(heartbeat(id, 1)));
    }
}

#[test]
fn members_commit_for_partitions_of_others_too() {
    let mut bench = Bench::new();
    for (member, offset) in bench.stable(2).iter().zip(1..) {
        for topic in ["t", "u"] {
            let body = commit(member, 1, topic, offset);
            assert_eq!(commits(&mut bench, body), ErrorCode::None);
            assert_eq!(bench.committed(topic), offset);
        }
    }
}

#[test]
fn what_is_committed_is_fetched() {
    let mut bench = Bench::new();
    assert_eq!(bench.committed("t"), -1);
    assert_eq!(commits(&mut bench, commit("", -1, "t", 42)), ErrorCode::None);
    assert_eq!(commits(&mut bench, commit("", -1, "u", 7)), ErrorCode::None);
    bench.fail_over();
    let GroupReply::FetchOffsets(reply) = bench.ask(9, fetch(None)) else {
        panic!("another reply");
    };
    let all: Vec<_> = reply
        .topics
        .iter()
        .map(|topic| {
            let partition = &topic.partitions[0];
            (
                topic.name.as_str(),
                partition.committed_offset,
                partition.committed_leader_epoch,
                partition.metadata.as_deref(),
            )
        })
        .collect();
    assert_eq!(all, [("t", 42, 4, Some("m")), ("u", 7, 4, Some("m"))]);
    // A group that only has offsets.
    assert_eq!(bench.state(), "Empty");
    assert_eq!(bench.committed("v"), -1);
}

#[test]
fn metadata_has_a_limit() {
    let mut bench = Bench::with(GroupConfig {
        offset_metadata_max_bytes: 10,
        ..GroupConfig::default()
    });
    let with = |metadata: &str| {
        let mut body = commit("", -1, "t", 1);
        body.topics[0].partitions[0].committed_metadata = Some(text(metadata));
        body
    };
    // Counted as Kafka does: ten characters, whatever bytes they take.
    for (metadata, code) in [
        ("0123456789", ErrorCode::None),
        ("öööööööööö", ErrorCode::None),
        ("0123456789a", ErrorCode::OffsetMetadataTooLarge),
    ] {
        assert_eq!(commits(&mut bench, with(metadata)), code, "{metadata}");
    }
    // One partition's is too large, the other's is not.
    let mut body = with("0123456789a");
    let mut other = body.topics[0].partitions[0].clone();
    other.partition_index = 1;
    other.committed_metadata = None;
    body.topics[0].partitions.push(other);
    let records = bench.log.len();
    let GroupReply::CommitOffsets(reply) = bench.ask(8, GroupRequest::CommitOffsets(body)) else {
        panic!("another reply");
    };
    let codes: Vec<_> = reply.topics[0]
        .partitions
        .iter()
        .map(|partition| partition.error_code)
        .collect();
    assert_eq!(codes, [ErrorCode::OffsetMetadataTooLarge.code(), 0]);
    assert_eq!(bench.log.len(), records + 1);

    let mut bench = Bench::with(GroupConfig {
        offset_metadata_max_bytes: usize::MAX,
        ..GroupConfig::default()
    });
    let code = commits(&mut bench, with(&"x".repeat(40_000)));
    assert_eq!(code, ErrorCode::OffsetMetadataTooLarge);
}

#[test]
fn a_commit_that_no_batch_holds_changes_nothing() {
    let mut bench = Bench::with(GroupConfig {
        max_records_bytes: 100,
        ..GroupConfig::default()
    });
    let mut body = commit("", -1, "t", 1);
    for index in 1..4 {
        let mut partition = body.topics[0].partitions[0].clone();
        partition.partition_index = index;
        body.topics[0].partitions.push(partition);
    }
    assert_eq!(commits(&mut bench, body), ErrorCode::InvalidCommitOffsetSize);
    assert_eq!((bench.state(), bench.log.len()), ("Dead", 0));
}

#[test]
fn offsets_of_a_group_without_members_expire_by_their_commit() {
    let mut bench = bench();
    commits(&mut bench, commit("", -1, "t", 1));
    bench.pass(HOUR / 2);
    commits(&mut bench, commit("", -1, "u", 2));
    bench.pass(HOUR / 2 + 60_000);
    assert_eq!((bench.committed("t"), bench.committed("u")), (-1, 2));
    bench.pass(HOUR / 2);
    assert_eq!(bench.state(), "Dead");
    let last = bench.log.last().expect("a tombstone");
    assert_eq!(last.value, None);
}

#[test]
fn an_expiry_of_its_own_counts_alone() {
    let mut bench = bench();
    let brief = commit("", -1, "t", 1).with_retention_time_ms(60_000);
    let lasting = commit("", -1, "u", 1).with_retention_time_ms(2 * HOUR as i64);
    for body in [brief, lasting] {
        let reply = bench.ask(4, GroupRequest::CommitOffsets(body));
        assert_eq!(error_of(&reply), ErrorCode::None);
    }
    bench.pass(180_000);
    assert_eq!((bench.committed("t"), bench.committed("u")), (-1, 1));
    bench.pass(HOUR);
    assert_eq!(bench.committed("u"), 1);
    bench.pass(HOUR);
    assert_eq!(bench.committed("u"), -1);
}

#[test]
fn offsets_of_a_group_with_members_stay_while_it_consumes_the_topic() {
    let mut bench = bench();
    let ids = bench.stable(1);
    for topic in ["t", "other"] {
        assert_eq!(commits(&mut bench, commit(&ids[0], 1, topic, 5)), ErrorCode::None);
    }
    pass_with(&mut bench, &ids[0], 2 * HOUR);
    // Nobody consumes the other one.
    assert_eq!((bench.committed("t"), bench.committed("other")), (5, -1));
    assert_eq!(bench.state(), "Stable");

    // From now on the time counts since the group became empty.
    bench.ask(5, GroupRequest::Leave(leave(&ids[0], None)));
    bench.pass(HOUR - 60_000);
    bench.fail_over();
    bench.pass(59_999);
    assert_eq!((bench.committed("t"), bench.state()), (5, "Empty"));
    bench.pass(61_000);
    assert_eq!((bench.committed("t"), bench.state()), (-1, "Dead"));
    // The group is deleted with its last offset.
    let last = bench.log.last().expect("a tombstone");
    let change = Change::decode(&last.key, last.value.as_deref());
    assert_eq!(change, Ok(Change::Classic("g".into(), None)));
}

#[test]
fn an_empty_group_without_offsets_is_deleted() {
    let mut bench = bench();
    let ids = bench.stable(1);
    bench.ask(5, GroupRequest::Leave(leave(&ids[0], None)));
    assert_eq!(bench.state(), "Empty");
    bench.pass(60_000);
    assert_eq!(bench.state(), "Dead");
    bench.fail_over();
    assert_eq!(bench.state(), "Dead");
}

#[test]
fn deleting_a_group_or_a_topic_leaves_tombstones() {
    let mut bench = Bench::new();
    let ids = bench.stable(1);
    for topic in ["t", "u"] {
        commits(&mut bench, commit(&ids[0], 1, topic, 5));
    }
    let before = bench.log.len();
    let outcome = bench.shard.topics_deleted(bench.now, &["u", "never heard of"]);
    assert_eq!((outcome.records.len(), outcome.replies.len()), (1, 0));
    bench.log.extend(outcome.records);
    assert_eq!((bench.committed("t"), bench.committed("u")), (5, -1));
    bench.ask(5, GroupRequest::Leave(leave(&ids[0], None)));
    let reply = bench.ask(2, GroupRequest::Delete(text("g").into()));
    assert_eq!(error_of(&reply), ErrorCode::None);
    // The topic's, that the group is empty, its offset's and its own.
    assert_eq!((bench.state(), bench.log.len() - before), ("Dead", 4));
    bench.fail_over();
    assert_eq!((bench.state(), bench.committed("t")), ("Dead", -1));
}

#[test]
fn a_record_that_cannot_be_read_leaves_the_rest() {
    let mut bench = Bench::new();
    commits(&mut bench, commit("", -1, "t", 42));
    let record = bench.log[0].clone();
    let value = record.value.clone().expect("a value");
    let shard = &mut bench.shard;
    assert!(shard.replay(&record.key, Some(&value[..9])).is_err());
    assert!(shard.replay(b"\0\x63", Some(&value)).is_err());
    assert!(shard.replay(b"", None).is_err());
    assert_eq!(bench.committed("t"), 42);
}
