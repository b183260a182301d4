//! The consensus library's own conformance suite, over our log store and state machine, and what it
//! does not look at: that everything survives a restart.

use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{RaftLogReader, StorageError};
use tempfile::TempDir;

use super::log_store::LogStore;
use super::snapshot::SnapshotDirectory;
use super::state_machine::StateMachine;
use super::types::{Command, Entry, Payload, TypeConfig, Vote, log_id};

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = LogStore::open(dir.path(), 0).expect("an empty directory opens");
        let machine = StateMachine::open(SnapshotDirectory::new(dir.path().to_owned())).expect("no snapshot");
        Ok((dir, store, machine))
    }
}

#[test]
fn the_conformance_suite_passes() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        Suite::test_all(OnDisk).await.expect("conforms");
    });
}

fn command(term: u64, index: u64, size: usize) -> Entry {
    let payload = Payload::Normal(Command {
        timestamp_ms: 1,
        entry: vec![index as u8; size].into(),
    });
    Entry::new(log_id(term, index), payload)
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_votes_and_pointers_survive_a_restart() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut store = LogStore::open(dir.path(), 0).expect("opens");
    store
        .blocking_append((0..100).map(|index| command(1, index, 10)))
        .await
        .expect("appended");
    store
        .truncate_after(Some(log_id(1, 89)))
        .await
        .expect("truncated");
    store
        .blocking_append((90..95).map(|index| command(2, index, 20)))
        .await
        .expect("appended");
    store
        .save_vote(&Vote::new_committed(2, 101))
        .await
        .expect("saved");
    store.save_committed(Some(log_id(2, 93))).await.expect("saved");
    store.purge(log_id(1, 19)).await.expect("purged");
    store.close().await.expect("closed");
    drop(store);

    let mut store = LogStore::open(dir.path(), 0).expect("opens again");
    let state = store.get_log_state().await.expect("state");
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 19)));
    assert_eq!(state.last_log_id, Some(log_id(2, 94)));
    assert_eq!(
        store.read_vote().await.expect("vote"),
        Some(Vote::new_committed(2, 101))
    );
    assert_eq!(store.read_committed().await.expect("hint"), Some(log_id(2, 93)));
    let entries = store.try_get_log_entries(0..).await.expect("read");
    let expected: Vec<Entry> = (20..90)
        .map(|index| command(1, index, 10))
        .chain((90..95).map(|index| command(2, index, 20)))
        .collect();
    assert_eq!(entries, expected);
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_memory_is_read_from_disk() {
    const ENTRIES: u64 = 40;
    let dir = tempfile::tempdir().expect("temp dir");
    let mut store = LogStore::open(dir.path(), 0).expect("opens");
    for index in 0..ENTRIES {
        // Forty times 600 kB: more than is kept in memory.
        store
            .blocking_append([command(1, index, 600_000)])
            .await
            .expect("appended");
    }
    let entries = store.try_get_log_entries(0..ENTRIES).await.expect("read");
    assert_eq!(entries.len() as u64, ENTRIES);
    assert!(
        entries
            .iter()
            .zip(0..)
            .all(|(entry, index)| *entry == command(1, index, 600_000))
    );
    let limited = store.limited_get_log_entries(3, ENTRIES).await.expect("read");
    assert_eq!(limited.first().map(Entry::index), Some(3));
    assert!(limited.len() <= 3, "a message is bounded by bytes");
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_a_snapshot_replaces_the_log_is_healed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut store = LogStore::open(dir.path(), 0).expect("opens");
    store
        .blocking_append((0..10).map(|index| command(1, index, 10)))
        .await
        .expect("appended");
    store.save_vote(&Vote::new(1, 101)).await.expect("saved");
    let pointers = dir.path().join("quorum-state");
    let before = std::fs::read(&pointers).expect("read");
    store.purge(log_id(3, 49)).await.expect("purged");
    store.close().await.expect("closed");
    // The log was replaced, its pointer not yet written.
    std::fs::write(&pointers, before).expect("written");

    let mut store = LogStore::open(dir.path(), 0).expect("opens again");
    assert_eq!(store.get_log_state().await.expect("state").last_log_id, None);
    // What the library does when the snapshot ends after the log.
    store.purge(log_id(3, 49)).await.expect("purged");
    store
        .blocking_append([command(3, 50, 10)])
        .await
        .expect("appended");
    store.close().await.expect("closed");

    let mut store = LogStore::open(dir.path(), 0).expect("opens");
    let state = store.get_log_state().await.expect("state");
    assert_eq!(state.last_purged_log_id, Some(log_id(3, 49)));
    assert_eq!(state.last_log_id, Some(log_id(3, 50)));
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_kept_away() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = LogStore::open(dir.path(), 0).expect("opens");
    let error = LogStore::open(dir.path(), 0).expect_err("in use");
    assert!(error.to_string().contains("in use"), "{error}");
    store.close().await.expect("closed");
    LogStore::open(dir.path(), 0)
        .expect("free again")
        .close()
        .await
        .expect("closed");
}
