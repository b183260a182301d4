//! A Raft entry as it lies in the metadata log: one record batch of one record. The batch's base
//! offset is the Raft index and its leader epoch the Raft term.
//!
//! Proposals are plain records whose value is a `MetadataEntry`. Raft's own entries are control
//! batches; their key is Kafka's control record key (version, type) with types outside Kafka's.

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use protocol::batch::{self, BatchBuilder, BatchError, BatchHeader, Batches};
use protocol::{LeaderEpoch, Offset};

use super::types::{Command, Entry, Membership, log_id};

/// Attribute bit 5: the batch holds control records.
const CONTROL: i16 = 0x20;
/// Version of the control records' keys and values.
const CONTROL_VERSION: i16 = 0;
/// Control record of a new leader's first entry.
const TYPE_BLANK: i16 = 100;
/// Control record that carries the quorum's membership as JSON.
const TYPE_MEMBERSHIP: i16 = 101;

/// Why an entry cannot be written to, or read from, the metadata log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// The log's leader epochs are 32 bits wide.
    #[error("Raft term {0} does not fit the metadata log's leader epoch")]
    Term(u64),
    /// Offsets are signed.
    #[error("Raft index {0} does not fit the metadata log's offsets")]
    Index(u64),
    /// The membership could not be turned into, or read from, JSON.
    #[error("membership entry: {0}")]
    Membership(#[from] serde_json::Error),
    /// The batch is damaged.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The batch is whole but is no entry of a metadata log.
    #[error("batch at offset {offset} of the metadata log: {what}")]
    NotAnEntry {
        /// Where.
        offset: Offset,
        /// What is wrong.
        what: &'static str,
    },
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Encodes an entry as its record batch.
pub(crate) fn encode(entry: &Entry) -> Result<Vec<u8>, CodecError> {
    let (leader_id, index) = entry.log_id_parts();
    let term = leader_id.term;
    let mut builder = BatchBuilder {
        base_offset: Offset(i64::try_from(index).map_err(|_| CodecError::Index(index))?),
        leader_epoch: LeaderEpoch(i32::try_from(term).map_err(|_| CodecError::Term(term))?),
        ..BatchBuilder::default()
    };
    Ok(match &entry.payload {
        EntryPayload::Normal(command) => {
            builder.base_timestamp = command.timestamp_ms;
            builder.max_timestamp = command.timestamp_ms;
            builder.build_records(&[(None, Some(&command.entry))])
        }
        EntryPayload::Blank => {
            builder.attributes = CONTROL;
            builder.build_records(&[(Some(&control_key(TYPE_BLANK)), None)])
        }
        EntryPayload::Membership(membership) => {
            builder.attributes = CONTROL;
            let json = serde_json::to_vec(membership)?;
            builder.build_records(&[(Some(&control_key(TYPE_MEMBERSHIP)), Some(&json))])
        }
    })
}

/// Decodes the entry of one batch, whose checksum is verified too.
pub(crate) fn decode(header: &BatchHeader, bytes: &Bytes) -> Result<Entry, CodecError> {
    let offset = header.base_offset;
    let damaged = |what| CodecError::NotAnEntry { offset, what };
    batch::verify_crc(bytes)?;
    let index = u64::try_from(offset.get()).map_err(|_| damaged("negative offset"))?;
    let term = u64::try_from(header.leader_epoch.get()).map_err(|_| damaged("negative leader epoch"))?;
    if header.record_count != 1 || header.last_offset_delta != 0 || header.attributes & 0x07 != 0 {
        return Err(damaged("an entry is one uncompressed record"));
    }
    let (key, value) =
        only_record(&bytes.slice(batch::HEADER_LEN..)).ok_or_else(|| damaged("the record is malformed"))?;
    let payload = if header.is_control() {
        let key = key.ok_or_else(|| damaged("control record without a key"))?;
        if key[..] == control_key(TYPE_BLANK) {
            EntryPayload::Blank
        } else if key[..] == control_key(TYPE_MEMBERSHIP) {
            let json = value.ok_or_else(|| damaged("membership without a value"))?;
            EntryPayload::Membership(serde_json::from_slice::<Membership>(&json)?)
        } else {
            return Err(damaged("control record of an unknown type"));
        }
    } else {
        EntryPayload::Normal(Command {
            timestamp_ms: header.base_timestamp,
            entry: value.ok_or_else(|| damaged("record without a value"))?,
        })
    };
    Ok(Entry::new(log_id(term, index), payload))
}

/// Decodes batches that lie back to back.
pub(crate) fn decode_all(bytes: Bytes) -> impl Iterator<Item = Result<Entry, CodecError>> {
    Batches::new(bytes).map(|batch| {
        let (header, bytes) = batch?;
        decode(&header, &bytes)
    })
}

fn control_key(kind: i16) -> [u8; 4] {
    let [v0, v1] = CONTROL_VERSION.to_be_bytes();
    let [k0, k1] = kind.to_be_bytes();
    [v0, v1, k0, k1]
}

/// Key and value of the single record in `records`; `None` when it is not exactly one record.
fn only_record(records: &Bytes) -> Option<(Option<Bytes>, Option<Bytes>)> {
    let mut at = 0;
    let varint = |at: &mut usize| -> Option<i64> {
        let (value, taken) = batch::get_varint(records.get(*at..)?)?;
        *at += taken;
        Some(value)
    };
    let length = usize::try_from(varint(&mut at)?).ok()?;
    if records.len().checked_sub(at)? != length {
        return None;
    }
    at += 1; // the record's attributes, which are unused
    let _timestamp_delta = varint(&mut at)?;
    let _offset_delta = varint(&mut at)?;
    let part = |at: &mut usize| -> Option<Option<Bytes>> {
        let length = varint(at)?;
        if length < 0 {
            return Some(None);
        }
        let end = at.checked_add(usize::try_from(length).ok()?)?;
        if end > records.len() {
            return None;
        }
        let bytes = records.slice(*at..end);
        *at = end;
        Some(Some(bytes))
    };
    let key = part(&mut at)?;
    let value = part(&mut at)?;
    Some((key, value))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::types::{Payload, Voter};
    use super::*;

    fn round_trip(entry: &Entry) -> Entry {
        let bytes = Bytes::from(encode(entry).expect("fits"));
        let mut entries = decode_all(bytes);
        let decoded = entries.next().expect("one batch").expect("an entry");
        assert!(entries.next().is_none());
        decoded
    }

    #[test]
    fn every_payload_round_trips() {
        let voter = Voter {
            address: "host:19192".to_owned(),
            ..Voter::default()
        };
        let membership =
            Membership::new(vec![BTreeSet::from([101])], BTreeMap::from([(101, voter)])).expect("valid");
        let command = Command {
            timestamp_ms: 1_700_000_000_000,
            entry: Bytes::from_static(b"records"),
        };
        for payload in [
            Payload::Blank,
            Payload::Membership(membership),
            Payload::Normal(command),
        ] {
            let entry = Entry::new(log_id(7, 42), payload);
            assert_eq!(round_trip(&entry), entry);
        }
    }

    #[test]
    fn a_term_beyond_the_epoch_is_refused() {
        let entry = Entry::new(log_id(1 << 31, 1), Payload::Blank);
        assert!(matches!(encode(&entry), Err(CodecError::Term(_))));
    }

    #[test]
    fn a_damaged_batch_is_no_entry() {
        let mut bytes = encode(&Entry::new(log_id(1, 1), Payload::Blank)).expect("fits");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(decode_all(bytes.into()).next().expect("one batch").is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..80), control: bool) {
            let builder = BatchBuilder {
                attributes: if control { CONTROL } else { 0 },
                ..BatchBuilder::default()
            };
            for entry in decode_all(builder.build(&body, 1).into()) {
                let _ = entry;
            }
        }
    }
}
