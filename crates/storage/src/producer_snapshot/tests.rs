//! Golden bytes, damage, and which file is loaded.

use proptest::prelude::*;
use protocol::{LeaderEpoch, batch::BatchHeader};

use super::*;

fn state(batches: i32) -> ProducerState {
    let mut state = ProducerState::new();
    for i in 0..batches {
        state.update(&BatchHeader {
            base_offset: Offset(100 + i64::from(i) * 2),
            size: 100,
            leader_epoch: LeaderEpoch(0),
            crc: 0,
            attributes: 0,
            last_offset_delta: 1,
            base_timestamp: 1_700_000_000_000,
            max_timestamp: 1_700_000_000_000,
            producer_id: Some(ProducerId(7)),
            producer_epoch: ProducerEpoch(3),
            base_sequence: i * 2,
            record_count: 2,
        });
    }
    state
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, b| text + &format!("{b:02x}"))
}

#[test]
fn the_bytes_are_kafka_s() {
    // Header and entry by Kafka's ProducerSnapshot schema, version 1; the checksum is CRC-32C of what follows it.
    let expected = concat!(
        "0001",
        "821fc702",
        "00000001",
        "0000000000000007",
        "0003",
        "00000001",
        "0000000000000065",
        "00000001",
        "0000018bcfe56800",
        "ffffffff",
        "ffffffffffffffff",
    );
    assert_eq!(hex(&state(1).snapshot_bytes()), expected);
}

#[test]
fn the_last_five_batches_survive_oldest_first() {
    let bytes = state(9).snapshot_bytes();
    let sequences: Vec<_> = decode(&bytes)
        .expect("own bytes")
        .iter()
        .map(|e| e.last_sequence)
        .collect();
    assert_eq!(sequences, [9, 11, 13, 15, 17]);
    assert_eq!(ProducerState::from_snapshot(&bytes), Ok(state(9)));
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let mut bytes = state(1).snapshot_bytes();
    bytes[1] = 2;
    assert_eq!(decode(&bytes), Err(SnapshotError::Version(2)));
}

#[test]
fn a_damaged_file_is_removed_and_the_one_before_it_loaded() {
    let dir = tempfile::tempdir().expect("temp dir");
    let dir = dir.path();
    write_snapshot(dir, Offset(102), &state(1)).expect("write");
    write_snapshot(dir, Offset(104), &state(2)).expect("write");
    write_snapshot(dir, Offset(106), &state(3)).expect("write");
    fs::write(dir.join("leader-epoch-checkpoint"), "0\n0\n").expect("another file");
    fs::write(snapshot_path(dir, Offset(104)), b"garbage").expect("damage");

    let load =
        |lower, upper| load_latest_snapshot(dir, Offset(lower), Offset(upper)).expect("readable directory");
    assert_eq!(load(0, i64::MAX), Some((Offset(106), state(3))));
    assert_eq!(load(0, 105), Some((Offset(102), state(1))));
    assert_eq!(load(103, 105), None);
    assert_eq!(list_snapshots(dir).expect("list"), [Offset(102), Offset(106)]);

    remove_snapshots_above(dir, Offset(104)).expect("remove");
    assert_eq!(list_snapshots(dir).expect("list"), [Offset(102)]);
    remove_snapshots_below(dir, Offset(103)).expect("remove");
    assert_eq!(list_snapshots(dir).expect("list"), []);
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ProducerState::from_snapshot(&bytes);
    }

    #[test]
    fn any_changed_byte_is_noticed(at in 0..56_usize, change in 1..=255_u8) {
        let mut bytes = state(1).snapshot_bytes();
        bytes[at] ^= change;
        prop_assert!(ProducerState::from_snapshot(&bytes).is_err());
    }

    #[test]
    fn well_summed_nonsense_never_panics(body in proptest::collection::vec(any::<u8>(), 46..=92)) {
        let count = body.len() / ENTRY_LEN;
        let mut bytes = vec![0, 1, 0, 0, 0, 0];
        bytes.extend_from_slice(&(count as i32).to_be_bytes());
        bytes.extend_from_slice(&body[..count * ENTRY_LEN]);
        let crc = crc32c::crc32c(&bytes[COUNT_AT..]);
        bytes[2..COUNT_AT].copy_from_slice(&crc.to_be_bytes());
        if let Ok(state) = ProducerState::from_snapshot(&bytes) {
            prop_assert_eq!(ProducerState::from_snapshot(&state.snapshot_bytes()), Ok(state));
        }
    }
}
