//! How the last process left a log directory: the clean-shutdown marker, and the kernel it ran on.
//!
//! Two small checksummed files of our own. `clean-shutdown` is written last of all by a process that
//! closed every log, and removed first of all by the next; it bears the broker epoch of
//! that run (KIP-966), for whoever looks into the directory. `last-boot` bears the kernel's boot id from when the
//! controller knows what an earlier stop may have lost: after an unclean stop the same id means that the page cache
//! survived, and that nothing is left to be told.

use std::{fs, io, path::Path};

use protocol::BrokerEpoch;

use crate::{
    durable_file::{read_if_present, remove_durably, write_atomically},
    properties,
};

const MARKER: &str = "clean-shutdown";
const LAST_BOOT: &str = "last-boot";
const VERSION: &str = "1";

/// What a cleanly stopped process left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanShutdown {
    /// The epoch under which the broker was registered, if it was.
    pub broker_epoch: Option<BrokerEpoch>,
}

/// The kernel's boot id, which changes with every boot. Empty where the kernel does not tell: then
/// every start counts as another boot, which is the safe side.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// Whether `a` and `b` name the same run of the same kernel.
pub fn same_boot(a: &str, b: &str) -> bool {
    !a.is_empty() && a == b
}

/// Marks `dir` as cleanly closed.
pub fn write_marker(dir: &Path, marker: &CleanShutdown) -> io::Result<()> {
    let epoch = marker.broker_epoch.map_or(-1, BrokerEpoch::get);
    store(&dir.join(MARKER), &[("broker.epoch", epoch.to_string())])
}

/// Reads the marker of `dir` and removes it durably, before anything is written to the directory.
/// A marker that is damaged or of an unknown version marks nothing.
pub fn take_marker(dir: &Path) -> io::Result<Option<CleanShutdown>> {
    let path = dir.join(MARKER);
    let epoch = read_if_present(&path)?.and_then(|bytes| load(&bytes, "broker.epoch")?.parse().ok());
    remove_durably(&path)?;
    Ok(epoch.map(|epoch: i64| CleanShutdown {
        broker_epoch: (epoch >= 0).then_some(BrokerEpoch(epoch)),
    }))
}

/// Forgets on which kernel run `dir` was used last.
pub fn forget_last_boot(dir: &Path) -> io::Result<()> {
    remove_durably(&dir.join(LAST_BOOT))
}

/// Notes that a process on the kernel run `boot_id` uses `dir` from now on.
pub fn write_last_boot(dir: &Path, boot_id: &str) -> io::Result<()> {
    store(&dir.join(LAST_BOOT), &[("boot.id", boot_id.to_owned())])
}

/// The kernel run on which `dir` was last used, `None` when nothing readable says so.
pub fn read_last_boot(dir: &Path) -> io::Result<Option<String>> {
    Ok(read_if_present(&dir.join(LAST_BOOT))?.and_then(|bytes| load(&bytes, "boot.id")))
}

fn store(path: &Path, pairs: &[(&str, String)]) -> io::Result<()> {
    let mut body = properties::render(&[("version", VERSION.to_owned())]);
    body += &properties::render(pairs);
    let crc = crc32c::crc32c(body.as_bytes());
    body += &properties::render(&[("crc32c", format!("{crc:08x}"))]);
    write_atomically(path, body.as_bytes())
}

fn load(bytes: &[u8], key: &str) -> Option<String> {
    let text = str::from_utf8(bytes).ok()?;
    let (body, sum) = text.split_at(text.rfind("crc32c=")?);
    let stored = sum.strip_prefix("crc32c=")?.strip_suffix('\n')?;
    if stored != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
        return None;
    }
    let pairs = properties::parse(body.as_bytes())?;
    if pairs.get("version") != Some(&VERSION) {
        return None;
    }
    pairs.get(key).map(|&value| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(epoch: i64) -> CleanShutdown {
        CleanShutdown {
            broker_epoch: Some(BrokerEpoch(epoch)),
        }
    }

    #[test]
    fn a_marker_is_taken_once() {
        let dir = tempfile::tempdir().expect("temp dir");
        let dir = dir.path();
        assert_eq!(take_marker(dir).expect("take"), None);
        write_marker(dir, &marker(42)).expect("write");
        assert_eq!(take_marker(dir).expect("take"), Some(marker(42)));
        assert_eq!(take_marker(dir).expect("take"), None);
        write_marker(dir, &CleanShutdown { broker_epoch: None }).expect("write");
        assert_eq!(
            take_marker(dir).expect("take"),
            Some(CleanShutdown { broker_epoch: None })
        );
    }

    #[test]
    fn a_damaged_marker_marks_nothing_and_is_gone() {
        let dir = tempfile::tempdir().expect("temp dir");
        let dir = dir.path();
        let path = dir.join(MARKER);
        write_marker(dir, &marker(42)).expect("write");
        let whole = fs::read(&path).expect("read");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).expect("write");
            assert_eq!(take_marker(dir).expect("take"), None, "byte {at}");
            fs::write(&path, &whole[..at]).expect("write");
            assert_eq!(take_marker(dir).expect("take"), None, "cut at {at}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn the_last_boot_is_remembered_and_an_unknown_one_is_never_the_same() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert_eq!(read_last_boot(dir.path()).expect("read"), None);
        write_last_boot(dir.path(), "b1").expect("write");
        write_last_boot(dir.path(), "b2").expect("write");
        assert_eq!(read_last_boot(dir.path()).expect("read").as_deref(), Some("b2"));
        assert!(same_boot("b2", "b2") && !same_boot("b1", "b2") && !same_boot("", ""));
    }
}
