//! Every operation that changes a log's files, in one place: errors get their names here, and tests
//! stop or fail any of them.

#[cfg(test)]
pub(crate) mod power_loss;

use std::{
    fs::{DirEntry, File, OpenOptions},
    io::{self, IoSlice, Write},
    path::{Path, PathBuf},
};

use crate::{durable_file, error::StorageError, format::TEMP_SUFFIX};

/// Slices that one `pwritev` takes (Linux' IOV_MAX).
const SLICES_MAX: usize = 1024;

/// What is in a directory, ordered by name: whoever acts on it does so in the same order on every file system,
/// and what a crash in between leaves can be had again.
pub(crate) fn list(dir: &Path) -> Result<Vec<DirEntry>, StorageError> {
    let listed = std::fs::read_dir(dir).and_then(Iterator::collect);
    let mut entries: Vec<DirEntry> = listed.map_err(StorageError::io("list", dir))?;
    entries.sort_unstable_by_key(DirEntry::file_name);
    Ok(entries)
}

/// Creates an empty file for reading and writing; a leftover of the same name is replaced.
pub(crate) fn create(path: &Path) -> Result<File, StorageError> {
    let created = step("create", path).and_then(|()| {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
    });
    created.map_err(StorageError::io("create", path))
}

/// Opens a file for reading.
pub(crate) fn open(path: &Path) -> Result<File, StorageError> {
    step("open", path)
        .and_then(|()| File::open(path))
        .map_err(StorageError::io("open", path))
}

/// Opens a file for reading and writing.
pub(crate) fn open_for_write(path: &Path) -> Result<File, StorageError> {
    step("open", path)
        .and_then(|()| OpenOptions::new().read(true).write(true).open(path))
        .map_err(StorageError::io("open", path))
}

/// Writes all of the slices at `position`, in as few system calls as may be.
pub(crate) fn write_at(
    file: &File,
    path: &Path,
    mut slices: &mut [IoSlice<'_>],
    mut position: u64,
) -> Result<(), StorageError> {
    let error = StorageError::io("write", path);
    if let Err(refused) = step("write", path) {
        // Half of it may be written by then, as on a disk that fills up.
        if let Some(first) = slices.first() {
            let _ = rustix::io::pwrite(file, &first[..first.len() / 2], position);
        }
        return Err(error(refused));
    }
    while !slices.is_empty() {
        let some = slices.len().min(SLICES_MAX);
        match rustix::io::pwritev(file, &slices[..some], position) {
            Ok(0) => return Err(error(io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                position += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(error(errno.into())),
        }
    }
    Ok(())
}

/// Cuts the file to `len` bytes, and gives back what is reserved beyond.
pub(crate) fn set_len(file: &File, path: &Path, len: u64) -> Result<(), StorageError> {
    step("truncate", path)
        .and_then(|()| file.set_len(len))
        .map_err(StorageError::io("truncate", path))
}

/// fdatasync.
pub(crate) fn sync_data(file: &File, path: &Path) -> Result<(), StorageError> {
    step("sync", path)
        .and_then(|()| file.sync_data())
        .map_err(StorageError::io("sync", path))
}

/// Makes creations, renames and removals in an open directory durable.
pub(crate) fn sync_open_dir(dir: &File, path: &Path) -> Result<(), StorageError> {
    step("sync", path)
        .and_then(|()| dir.sync_all())
        .map_err(StorageError::io("sync", path))
}

/// Makes creations, renames and removals in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StorageError> {
    sync_open_dir(&open(path)?, path)
}

/// fdatasync of a file by its name. That it is gone is no error: retention or truncation removed it.
pub(crate) fn sync_if_present(path: &Path) -> Result<(), StorageError> {
    match open(path).and_then(|file| sync_data(&file, path)) {
        Err(error) if error.is_not_found() => Ok(()),
        synced => synced,
    }
}

/// Removes a file. That it is gone is no error.
pub(crate) fn remove(path: &Path) -> Result<(), StorageError> {
    let removed = step("remove", path).and_then(|()| std::fs::remove_file(path));
    match removed.map_err(StorageError::io("remove", path)) {
        Err(error) if error.is_not_found() => Ok(()),
        removed => removed,
    }
}

/// Renames a file; returns whether it was there.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<bool, StorageError> {
    let renamed = step("rename", from).and_then(|()| std::fs::rename(from, to));
    match renamed.map_err(StorageError::io("rename", from)) {
        Err(error) if error.is_not_found() => Ok(false),
        renamed => renamed.map(|()| true),
    }
}

/// Gives a directory another name.
pub(crate) fn rename_dir(from: &Path, to: &Path) -> Result<(), StorageError> {
    step("rename", from)
        .and_then(|()| std::fs::rename(from, to))
        .map_err(StorageError::io("rename", from))
}

/// Creates a directory that is not there.
pub(crate) fn create_dir(path: &Path) -> Result<(), StorageError> {
    step("create", path)
        .and_then(|()| std::fs::create_dir(path))
        .map_err(StorageError::io("create", path))
}

/// Replaces a file, whole or not at all for a process that dies; not yet durable.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let mut temp = path.as_os_str().to_owned();
    temp.push(TEMP_SUFFIX);
    let temp = PathBuf::from(temp);
    let written = step("write", path)
        .and_then(|()| File::create(&temp))
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&temp, path));
    written.map_err(|error| {
        // On a full disk the remains only make things worse; that they cannot be removed changes nothing.
        let _ = std::fs::remove_file(&temp);
        StorageError::io("write", path)(error)
    })
}

/// Replaces a small file durably.
pub(crate) fn replace_durably(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    step("replace", path)
        .and_then(|()| durable_file::write_atomically(path, bytes))
        .map_err(StorageError::io("write", path))
}

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "tests make steps fail")]
fn step(_operation: &'static str, _path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
use faults::step;

/// Tests stand between a log and its disk.
#[cfg(test)]
pub(crate) mod faults {
    use std::{cell::RefCell, io, path::Path};

    type Hook = Box<dyn FnMut(&'static str, &Path) -> io::Result<()>>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    pub(super) fn step(operation: &'static str, path: &Path) -> io::Result<()> {
        HOOK.with_borrow_mut(|hook| hook.as_mut().map_or(Ok(()), |hook| hook(operation, path)))
    }

    /// Runs `body` with `hook` called before each operation of this thread; its error is the operation's.
    pub(crate) fn with<T>(
        hook: impl FnMut(&'static str, &Path) -> io::Result<()> + 'static,
        body: impl FnOnce() -> T,
    ) -> T {
        HOOK.with_borrow_mut(|slot| *slot = Some(Box::new(hook)));
        let result = body();
        HOOK.with_borrow_mut(|slot| *slot = None);
        result
    }
}
