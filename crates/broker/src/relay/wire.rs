//! Between the messages of `relay.proto` and the types of this crate.

use bytes::Bytes;
use protocol::grpc::v1::{
    Acks as WireAcks, IsolationLevel, KafkaError, RelayAppendReply, RelayPartitionRead,
    RelayPartitionRecords, RelayRecordFault,
};
use protocol::{ErrorCode, LeaderEpoch, Offset};
use replication::{Acks, EpochEnd, FetchedRecords, Isolation};

use super::{Appended, PartitionRead};
use crate::partitions::append::Refusal;

pub(crate) fn kafka_error(code: ErrorCode, message: impl Into<String>) -> KafkaError {
    KafkaError {
        code: code.code().into(),
        message: message.into(),
    }
}

/// The code of an error that another broker sent; one that it should not know is none of ours.
pub(crate) fn code_of(error: &KafkaError) -> ErrorCode {
    i16::try_from(error.code)
        .ok()
        .and_then(ErrorCode::from_code)
        .unwrap_or(ErrorCode::UnknownServerError)
}

pub(crate) fn acks(acks: WireAcks) -> Acks {
    match acks {
        WireAcks::All => Acks::All,
        WireAcks::Leader => Acks::Leader,
        WireAcks::None => Acks::None,
    }
}

pub(super) fn acks_to_wire(acks: Acks) -> WireAcks {
    match acks {
        Acks::All => WireAcks::All,
        Acks::Leader => WireAcks::Leader,
        Acks::None => WireAcks::None,
    }
}

pub(crate) fn isolation(level: IsolationLevel) -> Isolation {
    match level {
        IsolationLevel::ReadUncommitted => Isolation::ReadUncommitted,
        IsolationLevel::ReadCommitted => Isolation::ReadCommitted,
    }
}

pub(super) fn isolation_to_wire(isolation: Isolation) -> IsolationLevel {
    match isolation {
        Isolation::ReadUncommitted => IsolationLevel::ReadUncommitted,
        Isolation::ReadCommitted => IsolationLevel::ReadCommitted,
    }
}

pub(super) fn fault_to_wire((index, message): (i32, String)) -> RelayRecordFault {
    RelayRecordFault { index, message }
}

pub(super) fn appended(reply: RelayAppendReply) -> Result<Appended, Refusal> {
    match reply.error {
        None => Ok(Appended {
            base_offset: Offset(reply.base_offset),
            log_append_time: reply.log_append_time_ms,
        }),
        Some(error) => Err(Refusal {
            error: code_of(&error),
            message: error.message,
            faults: reply
                .faults
                .into_iter()
                .map(|fault| (fault.index, fault.message))
                .collect(),
        }),
    }
}

pub(super) fn read_to_wire(read: &PartitionRead) -> RelayPartitionRead {
    RelayPartitionRead {
        topic_id: Bytes::copy_from_slice(read.tp.topic_id.0.as_bytes()),
        partition: read.tp.partition.get(),
        from: read.from.get(),
        last_epoch: LeaderEpoch::to_wire(read.last_epoch),
    }
}

pub(super) fn records_to_wire(found: Result<FetchedRecords, ErrorCode>) -> RelayPartitionRecords {
    match found {
        Ok(found) => RelayPartitionRecords {
            error: 0,
            batches: found.records,
            high_watermark: found.high_watermark.map(Offset::get),
            last_stable_offset: found.last_stable_offset.map(Offset::get),
            log_start_offset: found.log_start_offset.get(),
            diverges_at: found.diverging_epoch.map(|end| end.end_offset.get()),
            diverges_after_epoch: found.diverging_epoch.map_or(-1, |end| end.epoch.get()),
        },
        Err(error) => RelayPartitionRecords {
            error: error.code().into(),
            ..RelayPartitionRecords::default()
        },
    }
}

pub(super) fn records(found: RelayPartitionRecords) -> Result<FetchedRecords, ErrorCode> {
    if found.error != 0 {
        let error = KafkaError {
            code: found.error,
            message: String::new(),
        };
        return Err(code_of(&error));
    }
    Ok(FetchedRecords {
        records: found.batches,
        high_watermark: found.high_watermark.map(Offset),
        last_stable_offset: found.last_stable_offset.map(Offset),
        log_start_offset: Offset(found.log_start_offset),
        diverging_epoch: found.diverges_at.map(|end| EpochEnd {
            epoch: LeaderEpoch(found.diverges_after_epoch),
            end_offset: Offset(end),
        }),
    })
}
