//! Small files that are either the old or the new bytes, whatever happens in between.
//!
//! Temp file, fsync, rename, fsync of the directory: after [`write_atomically`] has returned, the
//! bytes survive a power loss; before, the file is as it was.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Replaces the file at `path` by `bytes`, durably. Writers of one path must take turns: they share
/// the temp file `<path>.tmp`, which a crash may leave behind and the next write replaces.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = temp_path(path);
    let written = write_and_sync(&temp, bytes).and_then(|()| fs::rename(&temp, path));
    if let Err(error) = written {
        // On a full disk the remains only make things worse; that they cannot be removed changes nothing.
        let _ = fs::remove_file(&temp);
        return Err(error);
    }
    sync_dir(parent(path))
}

/// Makes the creations, renames and removals in `dir` durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes the file durably; that it is not there is no error.
pub fn remove_durably(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(parent(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads the file, `None` when there is none.
pub fn read_if_present(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_and_sync(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn temp_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".tmp");
    PathBuf::from(name)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_temp_file() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("state");
        assert_eq!(read_if_present(&path).expect("absent"), None);
        write_atomically(&path, b"first, and longer").expect("write");
        write_atomically(&path, b"second").expect("write");
        assert_eq!(read_if_present(&path).expect("read"), Some(b"second".to_vec()));
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
        remove_durably(&path).expect("remove");
        remove_durably(&path).expect("not there is fine");
    }

    #[test]
    fn what_a_crash_left_behind_does_not_matter() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("state");
        write_atomically(&path, b"old").expect("write");
        fs::write(temp_path(&path), b"half of the ne").expect("crash before the rename");
        assert_eq!(fs::read(&path).expect("read"), b"old");
        write_atomically(&path, b"new").expect("write");
        assert_eq!(fs::read(&path).expect("read"), b"new");
    }

    #[test]
    fn a_write_that_fails_says_so_and_keeps_the_old_file() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("no such directory").join("state");
        assert!(write_atomically(&path, b"x").is_err());
        fs::create_dir(dir.path().join("is a directory")).expect("mkdir");
        assert!(write_atomically(&dir.path().join("is a directory"), b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }
}
