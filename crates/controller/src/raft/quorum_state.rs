//! The small file beside the metadata log that holds what Raft must not forget: the vote, the last
//! purged entry and a hint of the last committed one.
//!
//! Two lines of text: JSON with a format version, and the CRC-32C of the first line. Replaced as a
//! whole (write, fsync, rename, fsync the directory).

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::types::{LogId, Vote};

/// The file's name, as in KRaft.
const FILE_NAME: &str = "quorum-state";
const FORMAT_VERSION: u32 = 1;
const CRC_PREFIX: &str = "crc32c=";

/// Why the quorum state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuorumStateError {
    /// The file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there but not whole. A controller that forgot its vote could vote twice, so it
    /// must not start.
    #[error("{path} is damaged: {what}; a controller without its vote must not start", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Written by a newer version.
    #[error("{path} has format version {found}; this binary reads up to {FORMAT_VERSION}", path = path.display())]
    FormatVersion {
        /// Which file.
        path: PathBuf,
        /// The file's version.
        found: u32,
    },
}

/// Everything in the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct QuorumState {
    /// The last vote given, with its term.
    pub(crate) vote: Option<Vote>,
    /// The last entry that was removed from the front of the log.
    pub(crate) purged: Option<LogId>,
    /// An entry known to be committed: where a restart may apply up to. It may lag.
    pub(crate) committed: Option<LogId>,
}

#[derive(Serialize, Deserialize)]
struct Versioned {
    format_version: u32,
    #[serde(flatten)]
    state: QuorumState,
}

#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

impl QuorumState {
    /// Reads the state kept in `directory`; a state that was never written is empty.
    pub(crate) fn load(directory: &Path) -> Result<Self, QuorumStateError> {
        let path = directory.join(FILE_NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(QuorumStateError::Damaged {
                    path,
                    what: "it is not text".to_owned(),
                });
            }
            Err(source) => return Err(QuorumStateError::Io { path, source }),
        };
        let damaged = |what: String| QuorumStateError::Damaged {
            path: path.clone(),
            what,
        };
        let (json, crc) = text
            .trim_end()
            .rsplit_once('\n')
            .ok_or_else(|| damaged("the checksum line is missing".to_owned()))?;
        if crc != crc_line(json) {
            return Err(damaged("the checksum does not match".to_owned()));
        }
        let VersionOnly { format_version } =
            serde_json::from_str(json).map_err(|error| damaged(error.to_string()))?;
        if format_version > FORMAT_VERSION {
            return Err(QuorumStateError::FormatVersion {
                path,
                found: format_version,
            });
        }
        let versioned: Versioned = serde_json::from_str(json).map_err(|error| damaged(error.to_string()))?;
        Ok(versioned.state)
    }

    /// Replaces the state kept in `directory`; durable when it returns.
    pub(crate) fn store(&self, directory: &Path) -> Result<(), QuorumStateError> {
        let path = directory.join(FILE_NAME);
        let versioned = Versioned {
            format_version: FORMAT_VERSION,
            state: self.clone(),
        };
        serde_json::to_string(&versioned)
            .map_err(io::Error::other)
            .and_then(|json| {
                let text = format!("{json}\n{}\n", crc_line(&json));
                storage::write_atomically(&path, text.as_bytes())
            })
            .map_err(|source| QuorumStateError::Io { path, source })
    }
}

fn crc_line(json: &str) -> String {
    format!("{CRC_PREFIX}{:08x}", crc32c::crc32c(json.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::types::log_id;
    use super::*;

    fn some_state() -> QuorumState {
        QuorumState {
            vote: Some(Vote::new_committed(3, 101)),
            purged: Some(log_id(2, 7)),
            committed: None,
        }
    }

    #[test]
    fn a_state_round_trips_and_none_is_empty() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert_eq!(
            QuorumState::load(dir.path()).expect("empty"),
            QuorumState::default()
        );
        some_state().store(dir.path()).expect("stored");
        assert_eq!(QuorumState::load(dir.path()).expect("loaded"), some_state());
    }

    #[test]
    fn any_flipped_byte_is_noticed() {
        let dir = tempfile::tempdir().expect("temp dir");
        some_state().store(dir.path()).expect("stored");
        let path = dir.path().join(FILE_NAME);
        let good = std::fs::read(&path).expect("read");
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 0x01;
            std::fs::write(&path, &bad).expect("write");
            assert!(QuorumState::load(dir.path()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("temp dir");
        let json = r#"{"format_version":9}"#;
        let text = format!("{json}\n{}\n", crc_line(json));
        std::fs::write(dir.path().join(FILE_NAME), text).expect("write");
        assert!(matches!(
            QuorumState::load(dir.path()),
            Err(QuorumStateError::FormatVersion { found: 9, .. })
        ));
    }
}
