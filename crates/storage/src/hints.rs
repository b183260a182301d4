//! High-watermark hints in sled: what a restarted broker believes until it is told.
//!
//! sled is not power-loss safe, so nothing here is ever relied on: a hint that is missing means "begin
//! at the log start", one that is too old is merely late, and one beyond the log's end is bounded by
//! whoever uses it. A store that does not open is deleted and begun anew.

use std::{fs, io, panic, path::Path};

use protocol::{Offset, TopicPartition};

/// Bytes of cache; sled's own default is a gibibyte.
const CACHE_BYTES: u64 = 4 << 20;
/// Layout of keys and values; another one begins the store anew.
const FORMAT: &[u8] = b"hints-1";
const FORMAT_KEY: &[u8] = b"format";

/// The hint store could not be used. Whoever gets this goes on without hints.
#[derive(Debug, thiserror::Error)]
pub enum HintError {
    /// sled reported an error.
    #[error("hint store: {0}")]
    Sled(#[from] sled::Error),
    /// sled gave up on the store with a panic.
    #[error("hint store: sled panicked")]
    Panicked,
    /// The damaged store could not be removed.
    #[error("the damaged hint store cannot be removed: {0}")]
    Remove(#[source] io::Error),
}

/// Last known high watermarks, by partition.
#[derive(Debug)]
pub struct HintStore {
    db: sled::Db,
}

impl HintStore {
    /// Opens the store in the directory `path`, which it has for itself; creates it, and creates it
    /// anew when what is there does not open or is of another format.
    pub fn open(path: &Path) -> Result<Self, HintError> {
        // sled checks damaged files with assertions too: a panic while it opens is one more way of not opening.
        match panic::catch_unwind(|| Self::open_existing(path)).unwrap_or(Err(HintError::Panicked)) {
            Ok(Some(store)) => return Ok(store),
            Ok(None) => tracing::info!(path = %path.display(), "hint store of another format begun anew"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "hint store begun anew"),
        }
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(HintError::Remove(error)),
            _ => {}
        }
        let db = open_db(path)?;
        db.insert(FORMAT_KEY, FORMAT)?;
        Ok(Self { db })
    }

    fn open_existing(path: &Path) -> Result<Option<Self>, HintError> {
        let db = open_db(path)?;
        if !db.was_recovered() {
            db.insert(FORMAT_KEY, FORMAT)?;
        }
        let known = db.get(FORMAT_KEY)?.is_some_and(|format| format == FORMAT);
        Ok(known.then_some(Self { db }))
    }

    /// The high watermark last noted for a partition.
    pub fn get(&self, partition: TopicPartition) -> Result<Option<Offset>, HintError> {
        let value = self.db.get(key(partition))?;
        let offset = value.and_then(|value| Some(i64::from_be_bytes(value.as_ref().try_into().ok()?)));
        Ok(offset.filter(|&offset| offset >= 0).map(Offset))
    }

    /// Notes high watermarks, all together.
    pub fn set(&self, hints: impl IntoIterator<Item = (TopicPartition, Offset)>) -> Result<(), HintError> {
        let mut batch = sled::Batch::default();
        for (partition, offset) in hints {
            batch.insert(&key(partition)[..], &offset.0.to_be_bytes());
        }
        Ok(self.db.apply_batch(batch)?)
    }

    /// Forgets a partition that is deleted.
    pub fn remove(&self, partition: TopicPartition) -> Result<(), HintError> {
        self.db.remove(key(partition))?;
        Ok(())
    }

    /// Writes what is noted to the file; returns when sled has.
    pub fn flush(&self) -> Result<(), HintError> {
        self.db.flush()?;
        Ok(())
    }
}

fn open_db(path: &Path) -> sled::Result<sled::Db> {
    sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
        .open()
}

fn key(partition: TopicPartition) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(partition.topic_id.0.as_bytes());
    key[16..].copy_from_slice(&partition.partition.0.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use protocol::{PartitionIndex, TopicId};

    use super::*;

    fn partition(index: i32) -> TopicPartition {
        TopicPartition::new(
            "AAAAAAAAAAAAAAAAAAAAAQ".parse::<TopicId>().expect("valid"),
            PartitionIndex(index),
        )
    }

    #[test]
    fn hints_are_there_after_a_restart() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("hints");
        let store = HintStore::open(&path).expect("open");
        store
            .set([(partition(0), Offset(7)), (partition(1), Offset(9))])
            .expect("set");
        store.set([(partition(0), Offset(8))]).expect("set");
        store.remove(partition(1)).expect("remove");
        store.flush().expect("flush");
        drop(store);
        let store = HintStore::open(&path).expect("open again");
        assert_eq!(store.get(partition(0)).expect("get"), Some(Offset(8)));
        assert_eq!(store.get(partition(1)).expect("get"), None);
    }

    #[test]
    fn a_damaged_store_is_begun_anew() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("hints");
        let store = HintStore::open(&path).expect("open");
        store.set([(partition(0), Offset(7))]).expect("set");
        store.flush().expect("flush");
        drop(store);
        for file in fs::read_dir(&path).expect("list") {
            let file = file.expect("list").path();
            if file.is_file() {
                fs::write(&file, [0xa5; 4096]).expect("damage");
            }
        }
        let store = HintStore::open(&path).expect("begun anew");
        assert_eq!(store.get(partition(0)).expect("get"), None);
        store.set([(partition(0), Offset(1))]).expect("works");
    }

    #[test]
    fn a_store_of_another_format_is_begun_anew() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("hints");
        let store = HintStore::open(&path).expect("open");
        store.set([(partition(0), Offset(7))]).expect("set");
        store.db.insert(FORMAT_KEY, "hints-9").expect("another format");
        store.flush().expect("flush");
        drop(store);
        let store = HintStore::open(&path).expect("begun anew");
        assert_eq!(store.get(partition(0)).expect("get"), None);
    }
}
