//! Raft's messages as payloads of the internal gRPC service: JSON, except that the entries of an
//! append travel as they lie in the metadata log.
//!
//! An append is the length of its JSON part (u32, big-endian), that part, and the batches.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::raft::AppendEntriesRequest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError};
use super::types::{LogId, TypeConfig, Vote};

/// A payload that is no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The JSON part does not parse.
    #[error("Raft message: {0}")]
    Json(#[from] serde_json::Error),
    /// An entry does not parse.
    #[error("Raft message: {0}")]
    Entry(#[from] CodecError),
    /// The payload is shorter than it says.
    #[error("Raft message is cut off")]
    CutOff,
    /// A term that this cluster can never have written.
    #[error("Raft message of term {0}, which does not fit the metadata log")]
    Term(u64),
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: Vote,
    prev_log_id: Option<LogId>,
    leader_commit: Option<LogId>,
}

/// Encodes a message other than an append.
pub(crate) fn to_payload(message: &impl Serialize) -> Result<Bytes, WireError> {
    Ok(serde_json::to_vec(message)?.into())
}

/// Decodes a message other than an append.
pub(crate) fn from_payload<T: DeserializeOwned>(payload: &[u8]) -> Result<T, WireError> {
    Ok(serde_json::from_slice(payload)?)
}

/// Encodes an append.
pub(crate) fn append_to_payload(request: &AppendEntriesRequest<TypeConfig>) -> Result<Bytes, WireError> {
    let head = serde_json::to_vec(&AppendHead {
        vote: request.vote,
        prev_log_id: request.prev_log_id,
        leader_commit: request.leader_commit,
    })?;
    let mut payload = BytesMut::new();
    payload.put_u32(head.len() as u32);
    payload.extend_from_slice(&head);
    for entry in &request.entries {
        payload.extend_from_slice(&codec::encode(entry)?);
    }
    Ok(payload.freeze())
}

/// Decodes an append; its entries share the payload's memory.
pub(crate) fn append_from_payload(payload: &Bytes) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let length: [u8; 4] = payload
        .get(..4)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(WireError::CutOff)?;
    let end = 4_usize
        .checked_add(u32::from_be_bytes(length) as usize)
        .filter(|&end| end <= payload.len())
        .ok_or(WireError::CutOff)?;
    let head: AppendHead = serde_json::from_slice(&payload[4..end])?;
    check_term(&head.vote)?;
    Ok(AppendEntriesRequest {
        vote: head.vote,
        prev_log_id: head.prev_log_id,
        leader_commit: head.leader_commit,
        entries: codec::decode_all(payload.slice(end..)).collect::<Result<_, _>>()?,
    })
}

/// Refuses a vote whose term does not fit the log, before Raft adopts it.
pub(crate) fn check_term(vote: &Vote) -> Result<(), WireError> {
    let term = vote.leader_id.term;
    i32::try_from(term).map(drop).map_err(|_| WireError::Term(term))
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry;
    use proptest::prelude::*;

    use super::super::types::{Entry, Payload, log_id};
    use super::*;

    fn append(term: u64) -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Vote::new_committed(term, 101),
            prev_log_id: Some(log_id(1, 4)),
            leader_commit: None,
            entries: vec![
                Entry::new(log_id(2, 5), Payload::Blank),
                Entry::new(log_id(2, 6), Payload::Blank),
            ],
        }
    }

    #[test]
    fn an_append_round_trips() {
        let request = append(3);
        let decoded = append_from_payload(&append_to_payload(&request).unwrap()).unwrap();
        assert_eq!(decoded.entries, request.entries);
        assert_eq!(
            (decoded.vote, decoded.prev_log_id, decoded.leader_commit),
            (request.vote, request.prev_log_id, request.leader_commit)
        );
    }

    #[test]
    fn a_term_that_no_log_can_hold_is_refused() {
        let payload = append_to_payload(&append(1 << 40)).unwrap();
        assert!(matches!(append_from_payload(&payload), Err(WireError::Term(_))));
    }

    proptest! {
        #[test]
        fn foreign_payloads_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..300) {
            let _ = append_from_payload(&bytes.clone().into());
            let mut whole = append_to_payload(&append(3)).unwrap().to_vec();
            whole.truncate(cut);
            whole.append(&mut bytes);
            let _ = append_from_payload(&whole.into());
        }
    }
}
