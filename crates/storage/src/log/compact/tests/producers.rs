//! Idempotent producers: what a cleaning must leave of them, so that a batch that is sent again is known.

use protocol::ProducerEpoch;

use super::*;

/// A batch with key `k`.
fn produce(log: &Log, producer_id: i64, producer_epoch: i16, base_sequence: i32) {
    let builder = BatchBuilder {
        producer_id,
        producer_epoch,
        base_sequence,
        ..at(5)
    };
    lead(log, keyed(builder, Compression::Zstd, &[(b"k", Some(b"1"))]), 1);
}

/// As in a copy that another replica was given: it knows producers by their batches alone.
fn forget_snapshots(log: &Log) {
    for entry in fs::read_dir(log.dir()).expect("list") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|extension| extension == "snapshot") {
            fs::remove_file(path).expect("remove");
        }
    }
}

#[test]
fn the_last_batch_of_a_producer_stays_without_records() {
    let log = TestLog::new(config());
    for (producer, sequence) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
        produce(&log, producer, 0, sequence);
    }
    log.roll(0).expect("roll");
    compact(&log, 0);
    let left: Vec<_> = batches(&log)
        .iter()
        .map(|(header, _)| (header.base_offset.0, header.record_count, header.base_sequence))
        .collect();
    // The first is where the leader epoch begins.
    assert_eq!(left, [(0, 0, 0), (1, 0, 1), (3, 1, 1)]);
    // A replay of what is left, without any snapshot, still knows both.
    forget_snapshots(&log);
    let (log, _) = log.reopen(synced_below(4));
    for producer in [1, 2] {
        let entry = log.producer(ProducerId(producer)).expect("known");
        assert_eq!(entry.last_sequence(), Some(1));
    }
}

/// A truncation may take what is not committed, and then the batch before it is the last: were it gone,
/// its retry would be written a second time.
#[test]
fn the_last_committed_batch_of_a_producer_outlives_those_behind_it() {
    // The same producer goes on, or a newer instance of it.
    for (epoch, sequence) in [(0, 1), (1, 0)] {
        let log = TestLog::new(config());
        put(&log, "first", Some("of its leader epoch"));
        produce(&log, 7, 0, 0);
        put(&log, "k", Some("newer"));
        log.roll(0).expect("roll");
        produce(&log, 7, epoch, sequence);
        log.flush().expect("flush");
        try_compact(&log, 3, 0, 1 << 20).expect("compacts");
        assert_eq!(offsets(&log), [0, 2, 3], "its record is superseded all the same");
        log.truncate_to(Offset(3)).expect("what was not committed goes");
        forget_snapshots(&log);
        let (log, _) = log.reopen(synced_below(3));
        let entry = log.producer(ProducerId(7)).expect("known");
        assert_eq!(
            (entry.epoch(), entry.last_sequence()),
            (ProducerEpoch(0), Some(0))
        );
    }
}

/// Who is forgotten at the log's end is not kept alive by what an older snapshot says.
#[test]
fn batches_of_expired_producers_go() {
    let log = TestLog::new(config());
    put(&log, "first", Some("of its leader epoch"));
    produce(&log, 7, 0, 0);
    put(&log, "k", Some("newer"));
    log.roll(0).expect("roll");
    log.expire_producers(0, std::time::Duration::ZERO);
    produce(&log, 8, 0, 0);
    log.flush().expect("flush");
    try_compact(&log, 3, 0, 1 << 20).expect("compacts");
    let left: Vec<_> = batches(&log)
        .iter()
        .map(|(header, _)| header.base_offset.0)
        .collect();
    assert_eq!(left, [0, 2, 3]);
}
