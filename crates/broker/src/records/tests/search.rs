//! Looking records up by time.

use super::*;

#[test]
fn records_are_found_by_time() {
    let mut records = three();
    records[0].timestamp_delta = 10;
    for codec in CODECS {
        // Offsets 100, 101, 102 with timestamps NOW + 10, + 50, + 2.
        let mut batch = compressed(&plain(&records), codec).to_vec();
        let prefix = batch::placed_prefix(&batch, Offset(100), protocol::LeaderEpoch(3));
        batch[..16].copy_from_slice(&prefix);
        let find = |at: i64, from: i64| first_at_or_after(&batch, NOW + at, Offset(from)).expect("sound");
        assert_eq!(find(0, 0), Some((NOW + 10, Offset(100))));
        assert_eq!(find(10, 0), Some((NOW + 10, Offset(100))));
        assert_eq!(find(11, 0), Some((NOW + 50, Offset(101))));
        assert_eq!(find(50, 0), Some((NOW + 50, Offset(101))));
        assert_eq!(find(51, 0), None);
        assert_eq!(find(0, 102), Some((NOW + 2, Offset(102))));
        assert_eq!(find(3, 102), None);
        assert_eq!(find(0, 103), None);
        let largest = |from| largest_timestamp(&batch, Offset(from)).expect("sound");
        let after = [0, 101, 102, 103].map(largest);
        assert_eq!(after, [Some(NOW + 50), Some(NOW + 50), Some(NOW + 2), None]);

        batch::set_log_append_time(&mut batch, NOW + 999);
        let find = |at: i64, from: i64| first_at_or_after(&batch, NOW + at, Offset(from)).expect("sound");
        assert_eq!(find(999, 0), Some((NOW + 999, Offset(100))));
        assert_eq!(find(999, 101), Some((NOW + 999, Offset(101))));
        assert_eq!(find(1000, 0), None);
    }
}

#[test]
fn compacted_batches_are_searched_over_their_holes() {
    let records = [rec(2, Some(b"k"), None), rec(7, Some(b"l"), None)];
    let batch = forged(&plain(&records), |b| {
        b[23..27].copy_from_slice(&9_i32.to_be_bytes());
    });
    let find = |at| first_at_or_after(&batch, NOW + at, Offset(0)).expect("sound");
    assert_eq!(find(0), Some((NOW + 2, Offset(2))));
    assert_eq!(find(3), Some((NOW + 7, Offset(7))));
    // Compaction keeps the last batch of a producer even when no record is left in it.
    let empty = around(&[], 0, 0);
    assert_eq!(first_at_or_after(&empty, NOW, Offset(0)), Ok(None));
}
