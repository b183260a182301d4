//! What a log says of itself, against the checkpoint files of its log directory.
//!
//! Those are written every few seconds, and may be older than a truncation or a deletion when the machine stops.
//! Believed then, they would call synced what was written after a truncation and never synced, and take what a
//! deletion has left for a log that lost its end. So a file in the log's own directory tells how far the log is
//! synced and where it starts, durably, before either goes down and before segments go or are compacted; and with each of
//! them which checkpoints are older than the file:
//!
//! ```text
//! 0
//! recovery-point 60 100
//! log-start 20 20
//! ```
//! The recovery point is 60, unless a checkpoint says more than 100: only one that is newer can. The file stays, and is
//! overtaken by checkpoints; a log whose checkpoints it would hide tells it anew when it is opened.
//!
//! It also tells the recovery point of a log that no checkpoint names yet, before its second segment begins: from then
//! on a power loss may take the end of one segment and leave the next.
//!
//! Where a checkpoint is new enough already, nothing is told: retention of logs that were flushed long ago costs no fsync.

use std::{fmt::Write, path::Path};

use parking_lot::Mutex;
use protocol::Offset;

use super::open::OpenOptions;
use crate::{disk, durable_file::read_if_present, error::StorageError, format::OWN_CHECKPOINT_FILE};

/// The only version of the file.
const VERSION: &str = "0";

/// An offset, and up to which one the checkpoints' are older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    offset: Offset,
    supersedes: Offset,
}

impl Told {
    fn against(self, checkpoint: Option<Offset>) -> Offset {
        checkpoint
            .filter(|&checkpoint| checkpoint > self.supersedes)
            .unwrap_or(self.offset)
    }

    /// What is told from now on, of an offset that was `until_now`: no checkpoint says more than that, or than it
    /// ever said.
    fn next(earlier: Option<Self>, offset: Offset, until_now: Offset) -> Self {
        let supersedes = until_now.max(offset);
        Self {
            offset,
            supersedes: earlier.map_or(supersedes, |earlier| earlier.supersedes.max(supersedes)),
        }
    }
}

/// How far a log is synced, and where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) recovery_point: Offset,
    pub(super) log_start: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    recovery_point: Told,
    log_start: Told,
}

impl Content {
    fn to_text(self) -> String {
        let mut text = format!("{VERSION}\n");
        for (name, told) in [
            ("recovery-point", self.recovery_point),
            ("log-start", self.log_start),
        ] {
            writeln!(text, "{name} {} {}", told.offset, told.supersedes).expect("to memory");
        }
        text
    }

    /// `None`: it is not whole and exact.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let version = lines.next()?;
        let mut told = |name: &str| {
            let mut words = lines.next()?.split(' ');
            let same = words.next()? == name;
            let mut offset = || {
                words
                    .next()?
                    .parse()
                    .ok()
                    .filter(|&offset| offset >= 0)
                    .map(Offset)
            };
            let told = Told {
                offset: offset()?,
                supersedes: offset()?,
            };
            (same && words.next().is_none()).then_some(told)
        };
        let content = Self {
            recovery_point: told("recovery-point")?,
            log_start: told("log-start")?,
        };
        (version == VERSION && lines.next().is_none()).then_some(content)
    }
}

/// The file, and what it says.
#[derive(Debug)]
pub(super) struct OwnCheckpoint {
    content: Mutex<Option<Content>>,
    /// The recovery point that the last checkpoint says, and nothing has made untrue since.
    checkpointed: Mutex<Option<Offset>>,
}

impl OwnCheckpoint {
    /// Of the log in `dir`; and `options` as they are by what it says.
    pub(super) fn open(dir: &Path, mut options: OpenOptions) -> Result<(Self, OpenOptions), StorageError> {
        let path = dir.join(OWN_CHECKPOINT_FILE);
        let text = read_if_present(&path).map_err(StorageError::io("read", &path))?;
        let mut checkpointed = options.recovery_point;
        let content = text.map(|text| Content::parse(&String::from_utf8_lossy(&text)));
        match content {
            None => {}
            Some(Some(Content {
                recovery_point,
                log_start,
            })) => {
                options.recovery_point = Some(recovery_point.against(options.recovery_point));
                options.log_start_offset = log_start.against(Some(options.log_start_offset));
            }
            Some(None) => {
                tracing::warn!(path = %path.display(), "the log's checkpoint of itself cannot be read: all of the log is scanned");
                options.recovery_point = None;
                checkpointed = None;
            }
        }
        let opened = Self {
            content: Mutex::new(content.flatten()),
            checkpointed: Mutex::new(checkpointed),
        };
        Ok((opened, options))
    }

    /// Of a log that was opened, and ends where `bounds` say that it is synced to: tells them where recovery would go by
    /// something else, though the next checkpoint said the same.
    pub(super) fn tell_opened(
        &self,
        dir: &Path,
        bounds: Bounds,
        believed: Option<Offset>,
    ) -> Result<(), StorageError> {
        let end = bounds.recovery_point;
        let is_hidden = self.recovery_point_by(Some(end)) != Some(end);
        if believed.is_some_and(|believed| believed > end) || is_hidden {
            self.tell(dir, bounds, bounds)?;
        }
        Ok(())
    }

    /// What recovery would go by.
    fn recovery_point_by(&self, checkpoint: Option<Offset>) -> Option<Offset> {
        match &*self.content.lock() {
            Some(content) => Some(content.recovery_point.against(checkpoint)),
            None => checkpoint,
        }
    }

    /// Whether recovery would know that all below `offset` is synced.
    pub(super) fn covers(&self, offset: Offset) -> bool {
        let checkpointed = *self.checkpointed.lock();
        self.recovery_point_by(checkpointed)
            .is_some_and(|told| told >= offset)
    }

    /// Notes what a checkpoint says, if it is still `current` while nobody lowers it.
    pub(super) fn note_checkpoint(&self, recovery_point: Offset, current: impl FnOnce() -> bool) {
        let mut checkpointed = self.checkpointed.lock();
        if current() {
            *checkpointed = Some(recovery_point);
        }
    }

    /// The log was cut to `end`.
    pub(super) fn lower(&self, end: Offset) {
        let mut checkpointed = self.checkpointed.lock();
        *checkpointed = checkpointed.map(|offset| offset.min(end));
    }

    /// Whether the file says more than holds from now on.
    pub(super) fn exceeds(&self, now: Bounds) -> bool {
        self.content.lock().is_some_and(|content| {
            content.recovery_point.offset > now.recovery_point || content.log_start.offset > now.log_start
        })
    }

    /// Whether neither a checkpoint nor this file tells a recovery point.
    pub(super) fn is_unknown(&self) -> bool {
        self.checkpointed.lock().is_none() && self.content.lock().is_none()
    }

    /// Whether a checkpoint that says `log_start` would be taken for an old one.
    pub(super) fn hides_start(&self, log_start: Offset) -> bool {
        let content = self.content.lock();
        content.is_some_and(|content| content.log_start.against(Some(log_start)) != log_start)
    }

    /// Tells, durably, what holds of the log in `dir` from now on; until now `until_now` did.
    pub(super) fn tell(&self, dir: &Path, now: Bounds, until_now: Bounds) -> Result<(), StorageError> {
        let mut content = self.content.lock();
        let earlier = *content;
        let next = Content {
            recovery_point: Told::next(
                earlier.map(|earlier| earlier.recovery_point),
                now.recovery_point,
                until_now.recovery_point,
            ),
            log_start: Told::next(
                earlier.map(|earlier| earlier.log_start),
                now.log_start,
                until_now.log_start,
            ),
        };
        if earlier != Some(next) {
            disk::replace_durably(&dir.join(OWN_CHECKPOINT_FILE), next.to_text().as_bytes())?;
            *content = Some(next);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(offset: i64, supersedes: i64) -> Told {
        Told {
            offset: Offset(offset),
            supersedes: Offset(supersedes),
        }
    }

    fn options(recovery_point: Option<i64>, log_start: i64) -> OpenOptions {
        OpenOptions {
            recovery_point: recovery_point.map(Offset),
            log_start_offset: Offset(log_start),
            ..OpenOptions::default()
        }
    }

    fn bounds(recovery_point: i64, log_start: i64) -> Bounds {
        Bounds {
            recovery_point: Offset(recovery_point),
            log_start: Offset(log_start),
        }
    }

    #[test]
    fn a_checkpoint_counts_only_where_it_is_newer() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (own, given) = OwnCheckpoint::open(dir.path(), options(None, 7)).expect("opens");
        assert_eq!((given, own.is_unknown()), (options(None, 7), true));
        // A truncation from 100 to 60, and from 80 to 70 before any checkpoint was written.
        own.tell(dir.path(), bounds(60, 20), bounds(100, 30))
            .expect("tells");
        own.tell(dir.path(), bounds(70, 20), bounds(80, 20))
            .expect("tells");
        assert!(own.hides_start(Offset(25)) && own.hides_start(Offset(30)));
        assert!(!own.hides_start(Offset(20)) && !own.hides_start(Offset(31)));
        let settled = |given| OwnCheckpoint::open(dir.path(), given).expect("opens").1;
        for (given, settled_as) in [
            ((None, 0), (70, 20)),
            ((Some(40), 20), (70, 20)),
            ((Some(100), 30), (70, 20)),
            ((Some(101), 31), (101, 31)),
        ] {
            assert_eq!(
                settled(options(given.0, given.1)),
                options(Some(settled_as.0), settled_as.1),
                "{given:?}"
            );
        }
    }

    #[test]
    fn what_is_not_whole_tells_nothing() {
        let whole = Content {
            recovery_point: told(60, 100),
            log_start: told(0, 0),
        };
        let text = whole.to_text();
        assert_eq!(Content::parse(&text), Some(whole));
        for cut in 0..text.len() {
            assert_eq!(Content::parse(&text[..cut]), None, "{cut}");
        }
        for bad in [
            text.replace("60", "-1"),
            text.replace("60", "sixty"),
            text.replace("log-start", "log-end"),
            text.replacen('0', "1", 1),
            format!("{text}more\n"),
        ] {
            assert_eq!(Content::parse(&bad), None, "{bad}");
        }
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join(OWN_CHECKPOINT_FILE), &text[..10]).expect("write");
        let (own, settled) = OwnCheckpoint::open(dir.path(), options(Some(5), 0)).expect("opens");
        assert_eq!((settled, own.is_unknown()), (options(None, 0), true));
    }
}
