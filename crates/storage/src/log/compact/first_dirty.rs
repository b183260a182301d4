//! How far a log is compacted, in memory and against what a checkpoint file says after a crash.
//!
//! The checkpoint is the log directory's, written every few seconds. A truncation below the cleaned part
//! must not leave an offset there that the log outgrows again: what lies between would pass for clean
//! after a crash, a tombstone in it would go, and what it deletes would come back. So a file in the log's
//! own directory voids the checkpoint, durably, before the truncation, until a cleaning has come as far
//! as any checkpoint may say.

use std::{
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
};

use parking_lot::Mutex;
use protocol::Offset;

use crate::{disk, durable_file::read_if_present, error::StorageError, format::CLEANER_CHECKPOINT_VOID_FILE};

const UNKNOWN: i64 = -1;

/// Everything below it is compacted.
#[derive(Debug)]
pub(in crate::log) struct FirstDirty {
    offset: AtomicI64,
    /// Checkpoints up to this offset are void.
    void: Mutex<Option<Offset>>,
}

impl FirstDirty {
    /// Of the log in `dir`, before a checkpoint is heard.
    pub(in crate::log) fn open(dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join(CLEANER_CHECKPOINT_VOID_FILE);
        let text = read_if_present(&path).map_err(StorageError::io("read", &path))?;
        let void = text.map(|text| {
            let offset = String::from_utf8_lossy(&text).trim().parse();
            // What is not understood voids everything.
            Offset(offset.unwrap_or(i64::MAX))
        });
        Ok(Self {
            offset: AtomicI64::new(UNKNOWN),
            void: Mutex::new(void),
        })
    }

    pub(super) fn get(&self) -> Option<Offset> {
        Some(self.offset.load(Ordering::Acquire))
            .filter(|&offset| offset != UNKNOWN)
            .map(Offset)
    }

    /// Takes what a checkpoint says, unless it is void.
    pub(super) fn restore(&self, offset: Offset) {
        if self.void.lock().is_none() {
            self.offset.store(offset.0, Ordering::Release);
        }
    }

    /// To be called before the log in `dir` is cut to `end`.
    pub(in crate::log) fn void_above(&self, dir: &Path, end: Offset) -> Result<(), StorageError> {
        let Some(cleaned) = self.get().filter(|&cleaned| cleaned > end) else {
            return Ok(());
        };
        let mut void = self.void.lock();
        let up_to = void.map_or(cleaned, |void| void.max(cleaned));
        let path = dir.join(CLEANER_CHECKPOINT_VOID_FILE);
        disk::replace_durably(&path, format!("{up_to}\n").as_bytes())?;
        *void = Some(up_to);
        Ok(())
    }

    /// The log was cut to `end`.
    pub(in crate::log) fn lower(&self, end: Offset) {
        self.offset.fetch_min(end.0, Ordering::AcqRel);
    }

    /// The log in `dir` is compacted up to here.
    pub(super) fn advance(&self, dir: &Path, offset: Offset) -> Result<(), StorageError> {
        self.offset.store(offset.0, Ordering::Release);
        let mut void = self.void.lock();
        if void.is_some_and(|void| void <= offset) {
            // Whatever a checkpoint says by now is true again.
            disk::remove(&dir.join(CLEANER_CHECKPOINT_VOID_FILE))?;
            *void = None;
        }
        Ok(())
    }
}
