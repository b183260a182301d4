//! What must not happen, and how it is told.

use serde::Serialize;

use crate::history::{Holder, Key, Partition, Process, Value, Version};

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
    /// A key of the compacted topic was written, and at the end nobody knows it.
    #[error(
        "key-lost: partition {partition}: {holder}: key {key} is not there, and version {version} was written ({}) and never deleted",
        offset_text(*.offset)
    )]
    KeyLost {
        /// Where.
        partition: Partition,
        /// Who does not have it.
        holder: Holder,
        /// What.
        key: Key,
        /// The last write of it that is known to have happened.
        version: Version,
        /// Where that was, if anybody was told.
        offset: Option<i64>,
    },
    /// A key of the compacted topic stands as it was before its last write.
    #[error(
        "key-stale: partition {partition}: {holder}: key {key} has version {found} from offset {found_at}, and version {version} was written after it ({})",
        offset_text(*.offset)
    )]
    KeyStale {
        /// Where.
        partition: Partition,
        /// Who has it so.
        holder: Holder,
        /// What.
        key: Key,
        /// What it has.
        found: Version,
        /// From where.
        found_at: i64,
        /// The last write of it that is known to have happened.
        version: Version,
        /// Where that was, if anybody was told.
        offset: Option<i64>,
    },
    /// A key of the compacted topic was deleted, the tombstone is gone, and what it deleted is there.
    #[error(
        "key-resurrected: partition {partition}: {holder}: key {key} has version {found} from offset {found_at}, and version {version} deleted it ({})",
        offset_text(*.offset)
    )]
    KeyResurrected {
        /// Where.
        partition: Partition,
        /// Who has it.
        holder: Holder,
        /// What.
        key: Key,
        /// What it has.
        found: Version,
        /// From where.
        found_at: i64,
        /// The tombstone.
        version: Version,
        /// Where that was, if anybody was told.
        offset: Option<i64>,
    },
    /// Behind a write of a key lies an earlier one, or the same again.
    #[error(
        "key-went-back: partition {partition}: key {key} has version {from} at offset {from_at} and version {to} behind it, at {to_at}"
    )]
    KeyWentBack {
        /// Where.
        partition: Partition,
        /// What.
        key: Key,
        /// The version in front.
        from: Version,
        /// Its offset.
        from_at: i64,
        /// The version behind it.
        to: Version,
        /// Its offset.
        to_at: i64,
    },
    /// A record of the compacted topic was read that nobody sent so, or that was refused.
    #[error(
        "key-phantom: partition {partition}: version {version} of key {key} at offset {offset} was never sent so, or refused"
    )]
    KeyPhantom {
        /// Where.
        partition: Partition,
        /// Of which key.
        key: Key,
        /// Which of its writes.
        version: Version,
        /// Where it was read.
        offset: i64,
    },
    /// One offset of the compacted topic with two writes.
    #[error("key-offsets: partition {partition}: offset {offset} held versions of keys {held:?}")]
    KeyOffset {
        /// Where.
        partition: Partition,
        /// The offset.
        offset: i64,
        /// Keys and versions.
        held: Vec<(Key, Version)>,
    },
    /// A reader of the compacted topic was not given last values that no cleaning can have taken.
    #[error(
        "key-skip: partition {partition}: process {process} was given offset {to} after {from}, {missed} last values in between were passed over"
    )]
    KeySkip {
        /// Where.
        partition: Partition,
        /// Who.
        process: Process,
        /// Given first.
        from: i64,
        /// Given next.
        to: i64,
        /// How many keys have their last value in between.
        missed: usize,
    },
    /// A reader of the compacted topic was given an offset that does not lie behind the one before it.
    #[error("key-thrown-back: partition {partition}: process {process} was given offset {to} after {from}")]
    KeyThrownBack {
        /// Where.
        partition: Partition,
        /// Who; where replicas' files were read, whoever did it.
        process: Process,
        /// Given first.
        from: i64,
        /// Given next.
        to: i64,
    },
    /// Holders of a partition of the compacted topic do not agree on a key.
    #[error("key-diverged: partition {partition}: key {key} is {}", versions_text(.versions))]
    KeyDiverged {
        /// Where.
        partition: Partition,
        /// Which.
        key: Key,
        /// Who has which version; `None` where the key is absent or deleted.
        versions: Vec<(Holder, Option<Version>)>,
    },
    /// A holder has every write that was overwritten: its log was never cleaned, and nothing is proven.
    #[error(
        "not-compacted: partition {partition}: {holder} still has all of {superseded} writes that others overwrote"
    )]
    NotCompacted {
        /// Where.
        partition: Partition,
        /// Who.
        holder: Holder,
        /// Acknowledged writes behind which there is another of the same key.
        superseded: usize,
    },
    /// The history does not say what clients, or what replicas, had of the compacted topic at the end.
    #[error("key-no-final-read: partition {partition}: nobody read to its end what {missing} have")]
    KeyNoFinalRead {
        /// Which.
        partition: Partition,
        /// `clients` or `replicas`.
        missing: &'static str,
    },
}

fn versions_text(versions: &[(Holder, Option<Version>)]) -> String {
    let texts: Vec<_> = versions
        .iter()
        .map(|(holder, version)| match version {
            Some(version) => format!("version {version} for {holder}"),
            None => format!("absent for {holder}"),
        })
        .collect();
    texts.join(", ")
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
            Self::KeyLost { .. } => "key-lost",
            Self::KeyStale { .. } => "key-stale",
            Self::KeyResurrected { .. } => "key-resurrected",
            Self::KeyWentBack { .. } => "key-went-back",
            Self::KeyPhantom { .. } => "key-phantom",
            Self::KeyOffset { .. } => "key-offsets",
            Self::KeySkip { .. } => "key-skip",
            Self::KeyThrownBack { .. } => "key-thrown-back",
            Self::KeyDiverged { .. } => "key-diverged",
            Self::NotCompacted { .. } => "not-compacted",
            Self::KeyNoFinalRead { .. } => "key-no-final-read",
        }
    }

    /// Whether an acknowledged record, or one that was shown to a reader, is gone.
    pub const fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::LostWrite { .. }
                | Self::Unseen { .. }
                | Self::Vanished { .. }
                | Self::KeyLost { .. }
                | Self::KeyStale { .. }
        )
    }
}
