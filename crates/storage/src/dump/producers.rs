//! `.snapshot`: a line for each batch of each producer.

use std::{fs, io::Write, path::Path};

use super::{DumpError, DumpSummary};
use crate::{
    error::StorageError,
    producer_snapshot::{SnapshotEntry, decode},
};

pub(super) fn dump(path: &Path, out: &mut dyn Write) -> Result<DumpSummary, DumpError> {
    let bytes = fs::read(path).map_err(StorageError::io("read", path))?;
    let entries = decode(&bytes).map_err(|source| DumpError::Snapshot {
        path: path.to_owned(),
        source,
    })?;
    super::print_title(path, out)?;
    for entry in &entries {
        print(entry, out)?;
    }
    Ok(DumpSummary {
        entries: entries.len() as u64,
        ..DumpSummary::default()
    })
}

fn print(entry: &SnapshotEntry, out: &mut dyn Write) -> Result<(), DumpError> {
    let transaction = entry.transaction_start.map_or_else(
        || "OptionalLong.empty".to_owned(),
        |offset| format!("OptionalLong[{offset}]"),
    );
    write!(
        out,
        "producerId: {} producerEpoch: {} coordinatorEpoch: {} currentTxnFirstOffset: {transaction} \
         lastTimestamp: {} ",
        entry.producer_id, entry.epoch, entry.coordinator_epoch, entry.timestamp
    )?;
    if let Some(batch) = entry.batch() {
        write!(
            out,
            "firstSequence: {} lastSequence: {} lastOffset: {} offsetDelta: {} timestamp: {}",
            batch.first_sequence(),
            batch.last_sequence,
            batch.last_offset,
            batch.offset_delta,
            batch.timestamp
        )?;
    }
    writeln!(out)?;
    Ok(())
}
