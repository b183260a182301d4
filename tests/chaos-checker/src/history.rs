//! What clients did and saw, one event a line.
//!
//! ```text
//! {"at_ms":1200,"process":3,"event":"invoked","partition":0,"value":77}
//! {"at_ms":1204,"process":3,"event":"answered","partition":0,"value":77,"outcome":{"acknowledged":{"offset":41}}}
//! {"at_ms":1290,"process":9,"event":"polled","partition":0,"records":[[40,76],[41,77]]}
//! {"at_ms":1300,"process":5,"event":"key-invoked","partition":1,"key":12,"version":4,"tombstone":false}
//! ```

use std::{fmt, io::BufRead};

use serde::{Deserialize, Serialize};

/// A client as it saw itself: one that is made anew (after a crash, say) is another process.
pub type Process = u32;
/// A partition of the one topic that a history is about; in events of keys, of its compacted topic.
pub type Partition = i32;
/// What a record carried; unique over the history.
pub type Value = u64;
/// A key of the compacted topic.
pub type Key = u32;
/// Which of its key's writes a record of the compacted topic is: each has a higher one than those that
/// were invoked before it.
pub type Version = u64;

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Milliseconds since the run began; for people, no rule looks at it.
    pub at_ms: u64,
    /// Whose event it is.
    pub process: Process,
    /// What happened. Events of one process are in its own order.
    #[serde(flatten)]
    pub event: Event,
}

/// What a client did or saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A value is about to be sent. From here on it may be read.
    Invoked {
        /// Where to.
        partition: Partition,
        /// What.
        value: Value,
    },
    /// How the sending ended. One that never ended counts as [`Outcome::Unknown`].
    Answered {
        /// Where the value was sent to.
        partition: Partition,
        /// Which value.
        value: Value,
        /// How it ended.
        outcome: Outcome,
    },
    /// The process chose where it reads on: its next poll of this partition follows no earlier one.
    Assigned {
        /// Of which partition.
        partition: Partition,
    },
    /// The process was given these records, in this order, by one poll.
    Polled {
        /// Of which partition.
        partition: Partition,
        /// Offset and value of each.
        records: Vec<(i64, Value)>,
    },
    /// After everything was healed and nobody wrote any more: the partition from its beginning to its end.
    FinalRead {
        /// Which partition.
        partition: Partition,
        /// Offset and value of each record.
        records: Vec<(i64, Value)>,
    },
    /// A write of the compacted topic is about to be sent. From here on it may be read.
    KeyInvoked {
        /// Where to. A key stays in one partition.
        partition: Partition,
        /// Of which key.
        key: Key,
        /// Which of its writes.
        version: Version,
        /// Whether it deletes the key.
        tombstone: bool,
    },
    /// How the sending of such a write ended; as [`Event::Answered`].
    KeyAnswered {
        /// Where it was sent to.
        partition: Partition,
        /// Of which key.
        key: Key,
        /// Which of its writes.
        version: Version,
        /// How it ended.
        outcome: Outcome,
    },
    /// As [`Event::Assigned`], for the compacted topic.
    KeyAssigned {
        /// Of which partition.
        partition: Partition,
    },
    /// As [`Event::Polled`], for the compacted topic.
    KeysPolled {
        /// Of which partition.
        partition: Partition,
        /// In the order in which they were given.
        records: Vec<KeyRecord>,
    },
    /// After everything was healed and nobody wrote any more: what one holder of a partition of the
    /// compacted topic has, from its beginning to its end.
    KeysAtTheEnd {
        /// Which partition.
        partition: Partition,
        /// Who has it.
        holder: Holder,
        /// All of it, in its order.
        records: Vec<KeyRecord>,
    },
    /// For people: a fault, a client's error. No rule looks at it.
    Note {
        /// What there is to say.
        text: String,
    },
}

/// A record of the compacted topic, as somebody read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Where it is.
    pub offset: i64,
    /// Of which key.
    pub key: Key,
    /// Which of its writes.
    pub version: Version,
    /// Whether it deletes the key.
    pub tombstone: bool,
}

/// Who has what a log is at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// What a client is given that reads from the leader.
    Clients,
    /// The files of this broker.
    Replica(u32),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clients => f.write_str("clients"),
            Self::Replica(broker) => write!(f, "replica {broker}"),
        }
    }
}

/// How a send ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The cluster has it.
    Acknowledged {
        /// Where; not every client says so for every answer.
        offset: Option<i64>,
    },
    /// The cluster definitely does not have it and never will. Few errors are that clear: a timeout, or
    /// `NOT_ENOUGH_REPLICAS_AFTER_APPEND`, is not.
    Refused {
        /// What was answered.
        error: String,
    },
    /// It may be there or not, now or later.
    Unknown {
        /// What was answered, or what the client made of silence.
        error: String,
    },
}

/// A line that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file could not be read.
    #[error("line {line}: {source}")]
    Io {
        /// Counted from 1.
        line: usize,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The line is no entry.
    #[error("line {line}: {source}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Entry {
    /// The entry's line, without its end.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("an entry has no map with keys that are no strings")
    }
}

/// Reads a history; empty lines are passed over.
pub fn read_history(lines: impl BufRead) -> Result<Vec<Entry>, HistoryError> {
    let mut entries = Vec::new();
    for (index, line) in lines.lines().enumerate() {
        let number = index + 1;
        let text = line.map_err(|source| HistoryError::Io { line: number, source })?;
        if text.trim().is_empty() {
            continue;
        }
        entries.push(
            serde_json::from_str(&text).map_err(|source| HistoryError::Malformed { line: number, source })?,
        );
    }
    Ok(entries)
}
