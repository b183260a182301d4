//! `partition.metadata`: the id of the topic that a partition's directory belongs to (KIP-516).
//!
//! The directory's name tells the topic's name, which another topic may have had before; this file
//! tells which one it is. Kafka's format: `version: 0` and `topic_id: <22 characters>`.

use std::{
    io,
    path::{Path, PathBuf},
};

use protocol::TopicId;

use crate::durable_file::{read_if_present, write_atomically};

/// The file's name within a partition's directory.
pub const FILE_NAME: &str = "partition.metadata";

/// Why a partition's topic id could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PartitionMetadataError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Not the two lines that belong there.
    #[error("{} is malformed", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// Writes the topic id into a partition's directory, durably.
pub fn store(dir: &Path, topic_id: TopicId) -> io::Result<()> {
    let text = format!("version: 0\ntopic_id: {topic_id}\n");
    write_atomically(&dir.join(FILE_NAME), text.as_bytes())
}

/// Reads the topic id of a partition's directory; `None` when there is no such file.
pub fn load(dir: &Path) -> Result<Option<TopicId>, PartitionMetadataError> {
    let path = dir.join(FILE_NAME);
    match read_if_present(&path) {
        Ok(None) => Ok(None),
        Ok(Some(bytes)) => match parse(&bytes) {
            Some(topic_id) => Ok(Some(topic_id)),
            None => Err(PartitionMetadataError::Malformed { path }),
        },
        Err(source) => Err(PartitionMetadataError::Io { path, source }),
    }
}

fn parse(bytes: &[u8]) -> Option<TopicId> {
    let mut lines = str::from_utf8(bytes).ok()?.lines();
    let version = lines.next()?.strip_prefix("version:")?.trim();
    let topic_id: TopicId = lines.next()?.strip_prefix("topic_id:")?.trim().parse().ok()?;
    let whole = version == "0" && lines.all(|line| line.trim().is_empty());
    (whole && !topic_id.is_zero()).then_some(topic_id)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_text_is_kafka_s() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert_eq!(load(dir.path()).expect("absent is no error"), None);
        let topic_id: TopicId = "AAAAAAAAAAAAAAAAAAAAAQ".parse().expect("valid");
        store(dir.path(), topic_id).expect("store");
        assert_eq!(
            fs::read_to_string(dir.path().join(FILE_NAME)).expect("read"),
            "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\n"
        );
        assert_eq!(load(dir.path()).expect("read"), Some(topic_id));
    }

    #[test]
    fn anything_else_is_malformed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let bad: [&[u8]; 5] = [
            b"",
            b"version: 1\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\n",
            b"version: 0\n",
            b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA\n",
            b"version: 0\ntopic_id: \xff\n",
        ];
        for bytes in bad {
            fs::write(dir.path().join(FILE_NAME), bytes).expect("write");
            assert!(load(dir.path()).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
