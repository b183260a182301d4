//! Names of the directories within a log directory.
//!
//! `orders-3` is partition 3 of topic `orders`; `orders-3.<id>-future` becomes it, once it has caught up with
//! the one in another log directory; `orders-3.<id>-delete` waits for its removal; `orders-3.<id>-stray` is
//! kept although the metadata does not know it; `orders-3.<id>-new` is being made. Only the first two are ever
//! taken apart: the others end in a word, a partition in a number.

use std::path::{Path, PathBuf};

use protocol::{PartitionIndex, TopicName};
use uuid::Uuid;

use crate::checkpoint::PartitionName;

/// The longest file name that Linux file systems take, in bytes.
const NAME_MAX: usize = 255;
/// The controllers' log: it is theirs to open, also in a directory that they share with a broker.
const METADATA_PARTITION: &str = "__cluster_metadata-0";

/// Why a directory does not have its partition's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suffix {
    /// Deleted, to be removed.
    Delete,
    /// Unknown to the metadata, kept for a while.
    Stray,
    /// Not yet made.
    New,
    /// A copy that takes the place of the partition in another log directory.
    Future,
}

impl Suffix {
    const ALL: [Self; 4] = [Self::Delete, Self::Stray, Self::New, Self::Future];

    const fn text(self) -> &'static str {
        match self {
            Self::Delete => "-delete",
            Self::Stray => "-stray",
            Self::New => "-new",
            Self::Future => "-future",
        }
    }
}

/// What an entry of a log directory is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Partition(PartitionName),
    Suffixed(Suffix),
    /// Not the log manager's: checkpoint and identity files, the metadata log, foreign things.
    Other,
}

impl Entry {
    pub(super) fn of(name: &str) -> Self {
        if name == METADATA_PARTITION {
            return Self::Other;
        }
        if let Some(partition) = parse_partition(name) {
            return Self::Partition(partition);
        }
        let suffixed = |suffix: &Suffix| name.ends_with(suffix.text()) && name.contains('.');
        Suffix::ALL
            .into_iter()
            .find(suffixed)
            .map_or(Self::Other, Self::Suffixed)
    }
}

fn parse_partition(name: &str) -> Option<PartitionName> {
    let (topic, digits) = name.rsplit_once('-')?;
    let index: i32 = digits.parse().ok()?;
    // "007" and "+7" parse too, but no partition is called that.
    let partition = PartitionIndex(index);
    (index >= 0 && digits == index.to_string())
        .then(|| Some((TopicName::new(topic).ok()?, partition)))
        .flatten()
}

/// The partition that a future directory of this name belongs to.
pub(super) fn parse_future(name: &str) -> Option<PartitionName> {
    let (partition, _) = name.strip_suffix(Suffix::Future.text())?.rsplit_once('.')?;
    parse_partition(partition)
}

/// Whether `name` is what [`suffixed_dir`] made of the partition's name, which may have been cut to fit.
pub(super) fn is_suffixed_of(name: &str, (topic, partition): &PartitionName) -> bool {
    let full = format!("{topic}-{partition}");
    let of = |suffix: &Suffix| {
        let stem = name.strip_suffix(suffix.text())?.rsplit_once('.')?.0;
        Some(stem == full || (name.len() == NAME_MAX && full.starts_with(stem)))
    };
    Suffix::ALL.iter().any(|suffix| of(suffix) == Some(true))
}

/// Whether the partition's future directory can say whose it is: a name that had to be cut cannot.
pub(super) fn may_have_future((topic, partition): &PartitionName) -> bool {
    let id_len = Uuid::nil().simple().to_string().len();
    let tail_len = ".".len() + id_len + Suffix::Future.text().len();
    format!("{topic}-{partition}").len() + tail_len <= NAME_MAX
}

/// The directory of a partition within its log directory.
pub(super) fn partition_dir(log_dir: &Path, (topic, partition): &PartitionName) -> PathBuf {
    log_dir.join(format!("{topic}-{partition}"))
}

/// A fresh name for the partition's directory under `suffix`; a long topic name is cut to fit.
pub(super) fn suffixed_dir(log_dir: &Path, (topic, partition): &PartitionName, suffix: Suffix) -> PathBuf {
    let tail = format!(".{}{}", Uuid::new_v4().simple(), suffix.text());
    let mut name = format!("{topic}-{partition}");
    name.truncate(NAME_MAX - tail.len());
    log_dir.join(name + &tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(topic: &str, index: i32) -> PartitionName {
        (TopicName::new(topic).expect("valid"), PartitionIndex(index))
    }

    #[test]
    fn names_are_told_apart() {
        for (topic, index) in [
            ("orders", 0),
            ("a.b-1_c", 12),
            ("x-delete", 0),
            ("a.b-stray", i32::MAX),
        ] {
            let path = partition_dir(Path::new(""), &partition(topic, index));
            let name = path.to_str().expect("ASCII");
            assert_eq!(Entry::of(name), Entry::Partition(partition(topic, index)));
        }
        for name in [
            "__cluster_metadata-0",
            "meta.properties",
            "orders",
            "orders-",
            "orders-007",
            "orders-+7",
            "a b-0",
            "..-0",
            "-0",
            "orders-99999999999",
            "hints",
            "",
        ] {
            assert_eq!(Entry::of(name), Entry::Other, "{name}");
        }
    }

    #[test]
    fn suffixed_names_fit_and_are_fresh() {
        let longest = partition(&"x".repeat(249), 12345);
        for suffix in Suffix::ALL {
            let path = suffixed_dir(Path::new(""), &longest, suffix);
            let name = path.to_str().expect("ASCII");
            assert!(name.len() <= NAME_MAX);
            assert_eq!(Entry::of(name), Entry::Suffixed(suffix));
            assert_ne!(path, suffixed_dir(Path::new(""), &longest, suffix));
            assert!(is_suffixed_of(name, &longest));
            let short = suffixed_dir(Path::new(""), &partition("a", 1), suffix);
            let short = short.to_str().expect("ASCII");
            assert!(is_suffixed_of(short, &partition("a", 1)));
            assert!(!is_suffixed_of(short, &partition("a", 11)) && !is_suffixed_of(short, &longest));
        }
    }

    #[test]
    fn a_future_names_its_partition_or_is_not_made() {
        let dotted = partition("a.b-1", 7);
        let path = suffixed_dir(Path::new(""), &dotted, Suffix::Future);
        assert_eq!(parse_future(path.to_str().expect("ASCII")), Some(dotted));
        for name in ["a-0", "a-0-future", "a-x.0123-future", "a-0.0123-delete"] {
            assert_eq!(parse_future(name), None, "{name}");
        }
        // 255 bytes less ".", 32 of the id and "-future".
        for (len, may) in [(213, true), (214, false), (249, false)] {
            let name = partition(&"x".repeat(len), 0);
            assert_eq!(may_have_future(&name), may, "{len}");
            let path = suffixed_dir(Path::new(""), &name, Suffix::Future);
            let parsed = parse_future(path.to_str().expect("ASCII"));
            assert_eq!(parsed.as_ref() == Some(&name), may);
        }
    }
}
