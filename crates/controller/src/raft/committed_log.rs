//! Committed entries, read for brokers.

use std::io;

use prost::Message;
use protocol::grpc::v1::{CommittedEntry, MetadataEntry};
use protocol::{LeaderEpoch, Offset};

use super::log_store::LogStore;
use super::state_machine::position;
use super::types::Payload;

/// Bytes of committed entries that are read for one message to a broker.
const COMMITTED_BYTES: usize = 1 << 20;

/// Reads committed entries. The caller never asks beyond what it knows to be applied.
#[derive(Clone)]
pub(crate) struct CommittedLog {
    store: LogStore,
}

impl CommittedLog {
    pub(super) fn new(store: LogStore) -> Self {
        Self { store }
    }

    /// The epoch of the entry at `offset`; `None` where the log begins later, or ends before.
    pub(crate) async fn epoch_at(&self, offset: Offset) -> io::Result<Option<LeaderEpoch>> {
        let Ok(index) = u64::try_from(offset.get()) else {
            return Ok(None);
        };
        let entries = self.store.read(index, index + 1, 1).await?;
        let found = entries.first().filter(|entry| entry.log_id.index == index);
        Ok(found
            .map(|entry| position(entry.log_id))
            .transpose()?
            .map(|(_, epoch)| epoch))
    }

    /// Some entries from `from` on, up to and including `applied`. `None` where the log begins later:
    /// then only a snapshot helps.
    pub(crate) async fn read(
        &self,
        from: Offset,
        applied: Offset,
    ) -> io::Result<Option<Vec<CommittedEntry>>> {
        let start = u64::try_from(from.get()).unwrap_or(0);
        let end = u64::try_from(applied.next().get()).unwrap_or(0);
        let entries = self.store.read(start, end, COMMITTED_BYTES).await?;
        let Some(first) = entries.first() else {
            return Ok(if start < end { None } else { Some(Vec::new()) });
        };
        if first.log_id.index != start {
            return Ok(None);
        }
        entries
            .into_iter()
            .map(|entry| {
                let (offset, epoch) = position(entry.log_id)?;
                let record = match entry.payload {
                    Payload::Normal(command) => {
                        Some(MetadataEntry::decode(command.entry).map_err(io::Error::other)?)
                    }
                    Payload::Blank | Payload::Membership(_) => None,
                };
                Ok(CommittedEntry {
                    offset: offset.get(),
                    epoch: epoch.get(),
                    entry: record,
                })
            })
            .collect::<io::Result<_>>()
            .map(Some)
    }
}
