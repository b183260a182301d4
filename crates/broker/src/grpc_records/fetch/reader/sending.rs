//! What a poll found of a partition, on its way to the client: decoded message by message, with the partition's
//! next offset, which moves on with each message that the client has room for.

use std::time::Duration;

use bytes::Bytes;
use protocol::batch::Batches;
use protocol::grpc::v1::FetchResponse;
use protocol::{ErrorCode, LeaderEpoch, Offset, PartitionIndex};
use replication::{FetchedRecords, Isolation};
use tokio::time::timeout;
use tonic::Status;

use super::super::decode::{self, OpenBatch, Part, Undecodable};
use super::super::status;
use super::{Cursor, Reader};

/// Bytes of records that go into one message, unless a single record is larger.
const MESSAGE_BYTES: usize = 1 << 20;
/// For how long a client may leave a message waiting, and what was read behind it be held.
const PATIENCE: Duration = Duration::from_secs(5);

impl Reader {
    /// Sends what was found of a partition. False: the client did not take all of it.
    pub(super) async fn send(
        &self,
        partition: PartitionIndex,
        cursor: &mut Cursor,
        found: FetchedRecords,
    ) -> Result<bool, Status> {
        if let Some(end) = found.diverging_epoch {
            let why = format!(
                "an unclean election has taken back what was sent of partition {partition} from offset {} on",
                end.end_offset
            );
            return Err(status::refused(ErrorCode::FencedLeaderEpoch, why));
        }
        let end = match self.reading.isolation {
            Isolation::ReadUncommitted => found.high_watermark,
            Isolation::ReadCommitted => found.last_stable_offset,
        };
        if self.reading.stop_at_end && cursor.end.is_none() {
            cursor.end = end;
        }
        let (mut message, mut bytes) = (FetchResponse::default(), 0);
        let mut told = (cursor.next, cursor.epoch);
        let mut fault = None;
        'batches: for batch in Batches::new(found.records) {
            let (header, batch) = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    fault = Some(error.into());
                    break;
                }
            };
            if cursor.end.is_some_and(|end| header.base_offset >= end) {
                break;
            }
            let mut open = None;
            loop {
                let room = MESSAGE_BYTES.saturating_sub(bytes);
                let alone = message.records.is_empty();
                let decoded = self.decode(&batch, open, cursor.next, room, alone).await;
                let (opened, part) = match decoded {
                    Ok(decoded) => decoded,
                    Err(error) => {
                        fault = Some(error);
                        break 'batches;
                    }
                };
                cursor.next = part.next;
                if part.ends_batch || !part.records.is_empty() {
                    cursor.epoch = Some(part.epoch);
                }
                message.records.extend(part.records);
                bytes += part.bytes;
                if part.ends_batch {
                    break;
                }
                open = Some(opened);
                let whole = std::mem::take(&mut message);
                if !self.hand_out(partition, cursor, end, whole).await? {
                    (cursor.next, cursor.epoch) = told;
                    return Ok(false);
                }
                (bytes, told) = (0, (cursor.next, cursor.epoch));
            }
        }
        // Without records, where compaction left none, the offset is still news.
        if cursor.next > told.0 && !self.hand_out(partition, cursor, end, message).await? {
            (cursor.next, cursor.epoch) = told;
            return Ok(false);
        }
        match fault {
            Some(error) => Err(undecodable(partition, cursor.next, &error)),
            None => Ok(true),
        }
    }

    /// The next part of a batch, which is `open` where it has begun.
    async fn decode(
        &self,
        batch: &Bytes,
        open: Option<OpenBatch>,
        from: Offset,
        room: usize,
        alone: bool,
    ) -> Result<(OpenBatch, Part), Undecodable> {
        let brief = decode::is_brief(batch);
        let batch = batch.clone();
        let work = move || {
            let mut open = match open {
                Some(open) => open,
                None => OpenBatch::new(&batch, from)?,
            };
            let part = open.part(room, alone)?;
            Ok((open, part))
        };
        if brief {
            return work();
        }
        self.reading.ahead.decoding.beside(work).await
    }

    /// Waits until the client has room for the message; false where it does not come to have it.
    async fn hand_out(
        &self,
        partition: PartitionIndex,
        cursor: &Cursor,
        end: Option<Offset>,
        message: FetchResponse,
    ) -> Result<bool, Status> {
        let message = FetchResponse {
            partition: partition.get(),
            next_offset: cursor.next.get(),
            leader_epoch: LeaderEpoch::to_wire(cursor.epoch),
            high_watermark: end.map_or(-1, Offset::get),
            ..message
        };
        match timeout(PATIENCE, self.out.reserve()).await {
            Ok(Ok(room)) => {
                room.send(Ok(message));
                Ok(true)
            }
            Ok(Err(_)) => Err(Status::cancelled("the client is gone")),
            Err(_) => Ok(false),
        }
    }
}

fn undecodable(partition: PartitionIndex, offset: Offset, error: &Undecodable) -> Status {
    let why = format!("partition {partition} at offset {offset}: {error}");
    let code = if error.is_too_large() {
        ErrorCode::MessageTooLarge
    } else {
        ErrorCode::CorruptMessage
    };
    status::refused(code, why)
}
