//! What must not happen, and how it is told.

use serde::Serialize;

use crate::history::{Partition, Process, Value};

/// Something that clients of a correct cluster never see.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[serde(tag = "anomaly", rename_all = "kebab-case")]
pub enum Anomaly {
    /// Acknowledged at an offset that readers have passed, and read by nobody.
    #[error(
        "lost-write: partition {partition}: value {value} was acknowledged at offset {offset}, readers came as far as {read_up_to}, nobody was given it"
    )]
    LostWrite {
        /// Where.
        partition: Partition,
        /// What.
        value: Value,
        /// The last offset that it was acknowledged at.
        offset: i64,
        /// The highest offset that anybody was given.
        read_up_to: i64,
    },
    /// Acknowledged, and never read, by the final read neither.
    #[error("unseen: partition {partition}: value {value} was acknowledged ({}) and is not there at the end", offset_text(*.offset))]
    Unseen {
        /// Where.
        partition: Partition,
        /// What.
        value: Value,
        /// Where it was acknowledged, if the client was told.
        offset: Option<i64>,
    },
    /// Somebody was given it, and at the end it is not there: it was shown before it was safe. Jepsen
    /// has no name for it, its lost-write takes any read for presence.
    #[error(
        "vanished: partition {partition}: value {value} was read at offset {offset} and is not there at the end"
    )]
    Vanished {
        /// Where.
        partition: Partition,
        /// What.
        value: Value,
        /// The last offset that it was read at.
        offset: i64,
    },
    /// One offset with two values.
    #[error("inconsistent-offsets: partition {partition}: offset {offset} held values {values:?}")]
    InconsistentOffset {
        /// Where.
        partition: Partition,
        /// The offset.
        offset: i64,
        /// All that it held.
        values: Vec<Value>,
    },
    /// One value at two offsets.
    #[error("duplicate: partition {partition}: value {value} is at offsets {offsets:?}")]
    Duplicate {
        /// Where.
        partition: Partition,
        /// What.
        value: Value,
        /// Everywhere it is.
        offsets: Vec<i64>,
    },
    /// A refused value was read (Adya's G1a, without a transaction).
    #[error("aborted-read: partition {partition}: value {value} was refused and is at offset {offset}")]
    AbortedRead {
        /// Where.
        partition: Partition,
        /// What.
        value: Value,
        /// Where it was read.
        offset: i64,
    },
    /// A value was read that nobody had sent to this partition.
    #[error("phantom: partition {partition}: value {value} at offset {offset} was never sent there")]
    Phantom {
        /// Where.
        partition: Partition,
        /// What.
        value: Value,
        /// Where it was read.
        offset: i64,
    },
    /// A reader was not given records that lie between two which it was given one after the other.
    #[error(
        "poll-skip: partition {partition}: process {process} was given offset {to} after {from}, {missed} in between were passed over"
    )]
    PollSkip {
        /// Where.
        partition: Partition,
        /// Who.
        process: Process,
        /// Given first.
        from: i64,
        /// Given next.
        to: i64,
        /// How many records are known in between.
        missed: usize,
    },
    /// A reader was given an offset that does not lie behind the one before it.
    #[error("nonmonotonic-poll: partition {partition}: process {process} was given offset {to} after {from}")]
    NonmonotonicPoll {
        /// Where.
        partition: Partition,
        /// Who.
        process: Process,
        /// Given first.
        from: i64,
        /// Given next.
        to: i64,
    },
    /// A process's later send was acknowledged at an earlier offset.
    #[error(
        "nonmonotonic-send: partition {partition}: process {process} sent a value to offset {to} after one to {from}"
    )]
    NonmonotonicSend {
        /// Where.
        partition: Partition,
        /// Who.
        process: Process,
        /// Of the value that was sent first.
        from: i64,
        /// Of the value that was sent next.
        to: i64,
    },
    /// The history does not say what the partition held at the end, so nothing is proven.
    #[error("no-final-read: partition {partition}: nobody read it to its end")]
    NoFinalRead {
        /// Which.
        partition: Partition,
    },
}

fn offset_text(offset: Option<i64>) -> String {
    offset.map_or_else(
        || "at an offset it was not told".to_owned(),
        |offset| format!("at offset {offset}"),
    )
}

impl Anomaly {
    /// The anomaly's name, as its text begins.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::LostWrite { .. } => "lost-write",
            Self::Unseen { .. } => "unseen",
            Self::Vanished { .. } => "vanished",
            Self::InconsistentOffset { .. } => "inconsistent-offsets",
            Self::Duplicate { .. } => "duplicate",
            Self::AbortedRead { .. } => "aborted-read",
            Self::Phantom { .. } => "phantom",
            Self::PollSkip { .. } => "poll-skip",
            Self::NonmonotonicPoll { .. } => "nonmonotonic-poll",
            Self::NonmonotonicSend { .. } => "nonmonotonic-send",
            Self::NoFinalRead { .. } => "no-final-read",
        }
    }

    /// Whether an acknowledged record, or one that was shown to a reader, is gone.
    pub const fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::LostWrite { .. } | Self::Unseen { .. } | Self::Vanished { .. }
        )
    }
}
