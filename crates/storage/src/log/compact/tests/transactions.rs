//! Transactions in a log that is compacted.

use std::time::Duration;

use super::*;
use crate::format::AbortedEntry;

#[test]
fn a_marker_stays_as_long_as_its_transaction_and_a_delete_retention_longer() {
    let log = TestLog::new(config());
    put(&log, "first", Some("x"));
    let transactional = |attributes| BatchBuilder {
        attributes,
        producer_id: 9,
        producer_epoch: 0,
        base_sequence: if attributes == 0x10 { 0 } else { -1 },
        ..at(5)
    };
    let one: &[(&[u8], Option<&[u8]>)] = &[(b"k", Some(b"1"))];
    lead(&log, keyed(transactional(0x10), Compression::None, one), 1);
    let commit = [0, 0, 0, 1];
    let marker = transactional(0x30).build_records(&[(Some(&commit), Some(&[0; 6]))]);
    lead(&log, marker.into(), 1);
    put(&log, "other", Some("x"));
    log.roll(0).expect("roll");
    compact(&log, 0);
    assert_eq!(offsets(&log), [0, 1, 2, 3]);
    put(&log, "k", Some("2"));
    log.roll(0).expect("roll");
    compact(&log, DAY);
    assert_eq!(
        offsets(&log),
        [0, 2, 3, 4],
        "its data are gone, the marker is not"
    );
    // The emptied batch stays as its producer's last. Forgotten, it goes; the next cleaning finds the
    // marker alone, and its horizon begins.
    assert_eq!(log.expire_producers(0, Duration::ZERO), 1);
    for (round, left) in [
        (2, vec![0, 2, 3, 4, 5]),
        (4, vec![0, 2, 3, 4, 5, 6]),
        (5, vec![0, 3, 4, 5, 6, 7]),
    ] {
        put(&log, &format!("k{round}"), Some("3"));
        log.roll(0).expect("roll");
        compact(&log, round * DAY);
        assert_eq!(offsets(&log), left, "{round}");
    }
}

#[test]
fn an_aborted_record_replaces_nothing_wherever_its_transaction_ended() {
    let log = TestLog::new(config());
    put(&log, "k", Some("committed"));
    let of_transaction = |attributes, base_sequence| BatchBuilder {
        attributes,
        producer_id: 9,
        producer_epoch: 0,
        base_sequence,
        ..at(5)
    };
    let one: &[(&[u8], Option<&[u8]>)] = &[(b"k", Some(b"aborted"))];
    lead(&log, keyed(of_transaction(0x10, 0), Compression::None, one), 1);
    log.roll(0).expect("roll");
    let marker = of_transaction(0x30, -1).build_records(&[(Some(&[0, 0, 0, 0]), Some(&[0; 6]))]);
    lead(&log, marker.into(), 1);
    log.roll(0).expect("roll");
    let aborted = AbortedEntry {
        producer_id: ProducerId(9),
        first_offset: Offset(1),
        last_offset: Offset(2),
        last_stable_offset: Offset(3),
    };
    let index = FileKind::TransactionIndex.path(&log.dir(), Offset(2));
    fs::write(&index, aborted.to_bytes()).expect("write");
    log.flush().expect("flush");
    // The marker's segment is not cleaned yet.
    try_compact(&log, 2, 0, 1 << 20).expect("compacts");
    assert_eq!(offsets(&log), [0, 2]);
    compact(&log, 0);
    assert_eq!(offsets(&log), [0, 2], "the emptied batch is its producer's last");
    assert_eq!(fs::read(&index).ok(), None, "merged into the first segment");
    let merged = FileKind::TransactionIndex.path(&log.dir(), Offset(0));
    assert_eq!(fs::read(merged).expect("kept"), aborted.to_bytes());

    // An index that cannot be read stops the cleaning, not the records.
    put(&log, "k", Some("newer"));
    log.roll(0).expect("roll");
    log.flush().expect("flush");
    fs::write(FileKind::TransactionIndex.path(&log.dir(), Offset(0)), [0; 33]).expect("write");
    let refused = try_compact(&log, 100, 0, 1 << 20);
    assert!(matches!(
        refused,
        Err(CompactError::Storage(crate::StorageError::Corrupt { .. }))
    ));
    assert_eq!(offsets(&log), [0, 2, 3]);
}
