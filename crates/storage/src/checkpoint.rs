//! Kafka's checkpoint files: a version line, a count line, then one entry a line.
//!
//! ```text
//! 0
//! 2
//! orders 0 1500
//! orders 1 1498
//! ```
//!
//! One file per log directory holds an offset for each of its partitions, by topic *name*: whoever
//! deletes a topic rewrites the file before another topic may take the name. The format has no
//! checksum, so reading is strict: a file that is not whole and exact is an error, never a guess.
//!
//! A file of Ottla's own in the same format, [`TOPIC_IDS`], says whose the names were: a partition that has
//! vanished cannot say it itself.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use protocol::{Offset, PartitionIndex, TopicId, TopicName};

use crate::durable_file::{read_if_present, write_atomically};

/// Offsets up to which every segment was flushed at the last checkpoint: recovery begins there.
pub const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// First offsets that clients may read, where records were deleted or segments expired.
pub const LOG_START_OFFSETS: &str = "log-start-offset-checkpoint";
/// Where the dirty part of a compacted log begins.
pub const CLEANER_OFFSETS: &str = "cleaner-offset-checkpoint";
/// The topic ids of the partitions that the other files name.
pub const TOPIC_IDS: &str = "topic-id-checkpoint";

/// The only version of the format, as in Kafka.
const VERSION: &str = "0";

/// A partition within a log directory, as its directory and the checkpoint files name it.
pub type PartitionName = (TopicName, PartitionIndex);

/// The entries of a checkpoint file.
pub type OffsetsByPartition = BTreeMap<PartitionName, Offset>;

/// The entries of [`TOPIC_IDS`].
pub type TopicIdsByPartition = BTreeMap<PartitionName, TopicId>;

/// Why a checkpoint file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file could not be read at all.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A version that this build does not know.
    #[error("{} has version {version:?}, only 0 is known", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its first line.
        version: String,
    },
    /// The file is cut off, too long, or a line of it is not what belongs there.
    #[error("{} is malformed at line {line}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

/// The text of a checkpoint file with one line per entry.
pub fn encode_lines<T: Display>(entries: impl ExactSizeIterator<Item = T>) -> String {
    let mut text = format!("{VERSION}\n{}\n", entries.len());
    for entry in entries {
        writeln!(text, "{entry}").expect("writing to a string cannot fail");
    }
    text
}

/// Reads a checkpoint file's text, entry by entry; `parse` gives `None` for a line that is wrong.
pub fn decode_lines<T>(
    path: &Path,
    text: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, CheckpointError> {
    let malformed = |line| CheckpointError::Malformed {
        path: path.to_owned(),
        line,
    };
    let mut lines = text.lines();
    let version = lines.next().ok_or_else(|| malformed(1))?.trim();
    if version != VERSION {
        return Err(CheckpointError::Version {
            path: path.to_owned(),
            version: version.chars().take(32).collect(),
        });
    }
    let count: usize = parse_field(lines.next()).ok_or_else(|| malformed(2))?;
    let mut entries = Vec::new();
    for (index, line) in lines.enumerate() {
        entries.push(parse(line).ok_or_else(|| malformed(index + 3))?);
    }
    if entries.len() == count {
        Ok(entries)
    } else {
        Err(malformed(entries.len().min(count) + 3))
    }
}

fn parse_field<T: FromStr>(field: Option<&str>) -> Option<T> {
    field?.trim().parse().ok()
}

/// Reads a file of offsets by partition; `None` when there is no such file.
pub fn read_offsets(path: &Path) -> Result<Option<OffsetsByPartition>, CheckpointError> {
    read_by_partition(path, |text| {
        let offset: i64 = text.parse().ok()?;
        (offset >= 0).then_some(Offset(offset))
    })
}

/// Reads a file of topic ids by partition; `None` when there is no such file.
pub fn read_topic_ids(path: &Path) -> Result<Option<TopicIdsByPartition>, CheckpointError> {
    read_by_partition(path, |text| {
        text.parse().ok().filter(|id: &TopicId| !id.is_zero())
    })
}

fn read_by_partition<T>(
    path: &Path,
    value: impl Fn(&str) -> Option<T>,
) -> Result<Option<BTreeMap<PartitionName, T>>, CheckpointError> {
    let bytes = read_if_present(path).map_err(|source| CheckpointError::Io {
        path: path.to_owned(),
        source,
    })?;
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    let text = str::from_utf8(&bytes).map_err(|_| CheckpointError::Malformed {
        path: path.to_owned(),
        line: 1,
    })?;
    let parse = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let topic = TopicName::new(fields.next()?).ok()?;
        let partition: i32 = parse_field(fields.next())?;
        let value = value(fields.next()?)?;
        let sane = partition >= 0 && fields.next().is_none();
        sane.then_some(((topic, PartitionIndex(partition)), value))
    };
    let entries = decode_lines(path, text, parse)?;
    let count = entries.len();
    let by_partition: BTreeMap<PartitionName, T> = entries.into_iter().collect();
    if by_partition.len() == count {
        Ok(Some(by_partition))
    } else {
        // A partition named twice: one of the two lines is wrong, and nothing says which.
        Err(CheckpointError::Malformed {
            path: path.to_owned(),
            line: 2,
        })
    }
}

/// Replaces a file of offsets, or of topic ids, by partition, durably.
pub fn write_by_partition<T: Display>(path: &Path, entries: &BTreeMap<PartitionName, T>) -> io::Result<()> {
    let lines = entries
        .iter()
        .map(|((topic, partition), value)| format!("{topic} {partition} {value}"));
    write_atomically(path, encode_lines(lines).as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn name(topic: &str, partition: i32) -> PartitionName {
        (
            TopicName::new(topic).expect("valid name"),
            PartitionIndex(partition),
        )
    }

    #[test]
    fn the_text_is_kafka_s() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join(RECOVERY_POINTS);
        assert!(read_offsets(&path).expect("absent is no error").is_none());
        let offsets = BTreeMap::from([(name("b", 0), Offset(7)), (name("a.x", 12), Offset(1500))]);
        write_by_partition(&path, &offsets).expect("write");
        assert_eq!(
            fs::read_to_string(&path).expect("read"),
            "0\n2\na.x 12 1500\nb 0 7\n"
        );
        assert_eq!(read_offsets(&path).expect("read"), Some(offsets));
    }

    #[test]
    fn anything_but_the_whole_file_is_an_error() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join(RECOVERY_POINTS);
        let bad: [&[u8]; 14] = [
            b"",
            b"0",
            b"0\n",
            b"1\n0\n",
            b"0\nx\n",
            b"0\n1\n",
            b"0\n2\na 0 1\n",
            b"0\n0\na 0 1\n",
            b"0\n1\na 0\n",
            b"0\n1\na 0 1 2\n",
            b"0\n1\na -1 1\n",
            b"0\n1\na/b 0 1\n",
            b"0\n2\na 0 1\na 0 2\n",
            b"0\n1\n\xff 0 1\n",
        ];
        for bytes in bad {
            fs::write(&path, bytes).expect("write");
            assert!(
                read_offsets(&path).is_err(),
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn topic_ids_are_told_by_partition() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join(TOPIC_IDS);
        let ids = BTreeMap::from([
            (name("a", 0), TopicId::random()),
            (name("a", 1), TopicId::random()),
        ]);
        write_by_partition(&path, &ids).expect("write");
        assert_eq!(read_topic_ids(&path).expect("read"), Some(ids));
        for line in ["a 0 1", "a 0", "a 0 AAAAAAAAAAAAAAAAAAAAAA"] {
            fs::write(&path, format!("0\n1\n{line}\n")).expect("write");
            assert!(read_topic_ids(&path).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn offsets_round_trip(entries in proptest::collection::btree_map(
            ("[a-z._-]{3,20}", 0..1000_i32), 0..i64::MAX, 0..20,
        )) {
            let dir = tempfile::tempdir().expect("temp dir");
            let path = dir.path().join(LOG_START_OFFSETS);
            let offsets: OffsetsByPartition =
                entries.into_iter().map(|((topic, partition), o)| (name(&topic, partition), Offset(o))).collect();
            write_by_partition(&path, &offsets).expect("write");
            prop_assert_eq!(read_offsets(&path).expect("read"), Some(offsets));
        }
    }
}
