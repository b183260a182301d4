//! What a power loss leaves of a directory: what was synced, and of the rest whatever chance allows.
//!
//! A [`Journal`] looks at the directory between any two operations of a thread and keeps apart what is there
//! from what is on the disk for good: of each file its bytes as of its last sync, of the directory its
//! names as of the directory's. The one may be lost without the other: a name may lead to a file that is
//! still empty, and a file that was synced may have no name.
//!
//! What was not synced survives by halves. Of bytes behind a file's synced end all, none, the first few,
//! or zeroes in their place, as on a file system that knows a file's length before its bytes. Of the changes
//! to names, for each file the first few of its own, whatever becomes of other files' ([`Order::Files`]), or
//! the first few of all ([`Order::Directory`], what a file system that journals its metadata leaves).

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirEntryExt,
    path::{Path, PathBuf},
    rc::Rc,
};

/// A file, by the order in which files were met: the same in every run.
type FileId = usize;

/// Which changes to a directory's names may survive without others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Those of different files are lost independently of each other.
    Files,
    /// None survives without all that came before it.
    Directory,
}

/// A change to the directory's names that was not synced.
#[derive(Clone, Debug)]
enum Change {
    Named { file: FileId, name: String },
    Renamed { file: FileId, from: String, to: String },
    Removed { file: FileId, name: String },
}

impl Change {
    fn file(&self) -> FileId {
        match *self {
            Self::Named { file, .. } | Self::Renamed { file, .. } | Self::Removed { file, .. } => file,
        }
    }
}

/// A file's bytes. Shared: a file changes seldom, and is looked at often.
#[derive(Clone, Debug)]
struct Bytes {
    now: Rc<[u8]>,
    synced: Rc<[u8]>,
}

/// A directory, as it is and as it is on the disk for good.
#[derive(Clone, Debug, Default)]
struct Directory {
    names: BTreeMap<String, FileId>,
    synced_names: BTreeMap<String, FileId>,
    changes: Vec<Change>,
    files: BTreeMap<FileId, Bytes>,
}

/// A moment between two operations, at which the power may fail.
#[derive(Debug)]
pub(crate) struct Moment {
    directory: Directory,
    /// The operation that did not come to be done.
    pub(crate) before: String,
}

/// Random numbers that a seed brings back.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    /// A number below `limit` (splitmix64).
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn up_to(&mut self, most: usize) -> usize {
        self.below(most + 1)
    }
}

impl Moment {
    /// Makes `to` the directory that a power loss at this moment leaves.
    pub(crate) fn leave(&self, order: Order, seed: u64, to: &Path) {
        let mut chance = Chance(seed);
        fs::create_dir_all(to).expect("create");
        for (name, file) in self.directory.names_left(order, &mut chance) {
            let left = self.directory.files[&file].left(&mut chance);
            fs::write(to.join(name), left).expect("write");
        }
    }

    /// Makes `to` the directory as it is, as the end of a process leaves it.
    pub(crate) fn copy(&self, to: &Path) {
        fs::create_dir_all(to).expect("create");
        for (name, file) in &self.directory.names {
            fs::write(to.join(name), &self.directory.files[file].now).expect("write");
        }
    }
}

impl Directory {
    fn names_left(&self, order: Order, chance: &mut Chance) -> BTreeMap<String, FileId> {
        let mut left: BTreeMap<FileId, usize> = BTreeMap::new();
        let mut in_order = chance.up_to(self.changes.len());
        if order == Order::Files {
            for change in &self.changes {
                *left.entry(change.file()).or_default() += 1;
            }
            for most in left.values_mut() {
                *most = chance.up_to(*most);
            }
        }
        let mut names = self.synced_names.clone();
        for change in &self.changes {
            let left = match order {
                Order::Files => left.get_mut(&change.file()).expect("counted"),
                Order::Directory => &mut in_order,
            };
            if *left == 0 {
                continue;
            }
            *left -= 1;
            match change {
                Change::Named { file, name } => {
                    names.insert(name.clone(), *file);
                }
                Change::Renamed { file, from, to } => {
                    if names.get(from) == Some(file) {
                        names.remove(from);
                    }
                    names.insert(to.clone(), *file);
                }
                Change::Removed { file, name } => {
                    if names.get(name) == Some(file) {
                        names.remove(name);
                    }
                }
            }
        }
        names
    }

    fn sync_names(&mut self) {
        self.synced_names.clone_from(&self.names);
        self.changes.clear();
        // What has no name any more has none for good.
        let names = &self.names;
        self.files
            .retain(|file, _| names.values().any(|named| named == file));
    }
}

impl Bytes {
    fn left(&self, chance: &mut Chance) -> Vec<u8> {
        let (now, synced) = (&self.now[..], &self.synced[..]);
        let Some(behind) = now.strip_prefix(synced) else {
            // It was cut, or cut and written anew.
            return if chance.below(2) == 0 {
                now.to_vec()
            } else {
                synced.to_vec()
            };
        };
        let mut left = synced.to_vec();
        match chance.below(4) {
            0 => {}
            1 => left.extend_from_slice(behind),
            2 => left.extend_from_slice(&behind[..chance.up_to(behind.len())]),
            _ => left.resize(now.len(), 0),
        }
        left
    }
}

/// Watches one directory while [`super::faults::with`] runs its hook. It must have no subdirectories.
#[derive(Clone, Debug)]
pub(crate) struct Journal(Rc<RefCell<Watch>>);

#[derive(Debug)]
struct Watch {
    path: PathBuf,
    directory: Directory,
    /// The files that have names, by inode. An inode that has none left may be another file's next time.
    inodes: BTreeMap<u64, FileId>,
    files_met: usize,
    /// What was begun, and is done by the next time.
    begun: Option<(&'static str, PathBuf)>,
    /// Kept while somebody asks for them.
    moments: Option<Vec<Moment>>,
}

impl Journal {
    /// Of a directory, which may not be there yet. What is in it by now is synced.
    pub(crate) fn of(path: &Path) -> Self {
        let mut watch = Watch {
            path: path.to_owned(),
            directory: Directory::default(),
            inodes: BTreeMap::new(),
            files_met: 0,
            begun: None,
            moments: None,
        };
        watch.look(None);
        watch.directory.sync_names();
        for bytes in watch.directory.files.values_mut() {
            bytes.synced = Rc::clone(&bytes.now);
        }
        Self(Rc::new(RefCell::new(watch)))
    }

    /// To be called before each operation.
    fn note(&self, operation: &'static str, path: &Path) {
        if operation == "open" {
            // Changes nothing.
            return;
        }
        let mut watch = self.0.borrow_mut();
        watch.settle();
        let name = path.file_name().unwrap_or_default().display();
        watch.keep(format!("{operation} {name}"));
        watch.begun = Some((operation, path.to_owned()));
    }

    /// What [`super::faults::with`] is to be run with.
    pub(crate) fn hook(&self) -> impl FnMut(&'static str, &Path) -> io::Result<()> + 'static {
        let journal = self.clone();
        move |operation, path| {
            journal.note(operation, path);
            Ok(())
        }
    }

    /// Runs `body`; every moment of it, its end included, at which the power may fail.
    pub(crate) fn moments(&self, body: impl FnOnce()) -> Vec<Moment> {
        {
            let mut watch = self.0.borrow_mut();
            watch.settle();
            watch.moments = Some(Vec::new());
        }
        body();
        let mut watch = self.0.borrow_mut();
        watch.settle();
        watch.keep(String::from("the end"));
        watch.moments.take().expect("kept since the beginning")
    }

    /// Turns to another directory, all of which is synced: what a power loss has left.
    pub(crate) fn turn_to(&self, path: &Path) {
        let other = Self::of(path);
        self.0.swap(&other.0);
    }
}

impl Watch {
    fn keep(&mut self, before: String) {
        if let Some(moments) = &mut self.moments {
            moments.push(Moment {
                directory: self.directory.clone(),
                before,
            });
        }
    }

    /// Takes in what was begun the last time.
    fn settle(&mut self) {
        let Some((operation, path)) = self.begun.take() else {
            return;
        };
        let name = path.strip_prefix(&self.path).ok().and_then(Path::to_str);
        match (operation, name) {
            // Of the directory itself.
            ("sync", Some("")) => {
                self.look(None);
                self.directory.sync_names();
            }
            ("sync", Some(name)) => {
                self.look(Some(name));
                self.sync(name);
            }
            ("replace", Some(name)) => {
                self.look(Some(name));
                self.sync(name);
                self.directory.sync_names();
            }
            (_, name) => self.look(name),
        }
    }

    fn sync(&mut self, name: &str) {
        let file = self.directory.names.get(name);
        if let Some(bytes) = file.and_then(|file| self.directory.files.get_mut(file)) {
            bytes.synced = Rc::clone(&bytes.now);
        }
    }

    /// Takes in which names there are, and the bytes of files that are new, or named `changed`.
    fn look(&mut self, changed: Option<&str>) {
        let entries: Vec<_> = match fs::read_dir(&self.path) {
            Ok(entries) => entries.map(|entry| entry.expect("an entry")).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => panic!("{}: {error}", self.path.display()),
        };
        let mut found: Vec<(String, u64)> = entries
            .iter()
            .map(|entry| {
                (
                    entry.file_name().into_string().expect("a name of ours"),
                    entry.ino(),
                )
            })
            .collect();
        found.sort_unstable();
        let before = std::mem::take(&mut self.directory.names);
        let (mut names, mut inodes) = (BTreeMap::new(), BTreeMap::new());
        for (name, inode) in found {
            let file = self.inodes.get(&inode).copied();
            if file.is_none() || changed == Some(&name) {
                let bytes: Rc<[u8]> = fs::read(self.path.join(&name)).expect("read").into();
                let file = file.unwrap_or(self.files_met);
                let known = self.directory.files.entry(file).or_insert_with(|| Bytes {
                    now: Rc::default(),
                    synced: Rc::default(),
                });
                known.now = bytes;
            }
            let file = file.unwrap_or_else(|| {
                self.files_met += 1;
                self.files_met - 1
            });
            inodes.insert(inode, file);
            if before.get(&name) != Some(&file) {
                let from = before.iter().find(|(_, named)| **named == file);
                self.directory.changes.push(match from {
                    Some((from, _)) => Change::Renamed {
                        file,
                        from: from.clone(),
                        to: name.clone(),
                    },
                    None => Change::Named {
                        file,
                        name: name.clone(),
                    },
                });
            }
            names.insert(name, file);
        }
        for (name, file) in before {
            if !names.contains_key(&name) && !names.values().any(|named| *named == file) {
                self.directory.changes.push(Change::Removed { file, name });
            }
        }
        self.directory.names = names;
        self.inodes = inodes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{self, faults};

    /// What `body` can leave of a directory in which there is a synced file `old` of one byte: its names, and
    /// the bytes of each.
    fn left(order: Order, body: impl FnOnce(&Path)) -> Vec<BTreeMap<String, Vec<u8>>> {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join("old"), b"o").expect("write");
        let journal = Journal::of(dir.path());
        let mut moments = journal.moments(|| faults::with(journal.hook(), || body(dir.path())));
        let end = moments.pop().expect("the end at least");
        let outcomes = (0..400).map(|seed| {
            let after = tempfile::tempdir().expect("temp dir");
            end.leave(order, seed, after.path());
            let entries = fs::read_dir(after.path()).expect("list");
            let files = entries.map(|entry| {
                let path = entry.expect("entry").path();
                let name = path.file_name().expect("name").to_string_lossy().into_owned();
                (name, fs::read(path).expect("read"))
            });
            files.collect()
        });
        let mut outcomes: Vec<BTreeMap<_, _>> = outcomes.collect();
        outcomes.sort();
        outcomes.dedup();
        outcomes
    }

    fn names(outcomes: &[BTreeMap<String, Vec<u8>>]) -> Vec<String> {
        let mut names: Vec<String> = outcomes
            .iter()
            .map(|files| files.keys().map(String::as_str).collect::<Vec<_>>().join(" "))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    #[test]
    fn what_is_synced_stays_and_the_rest_may_not() {
        let write = |path: &Path| {
            let path = path.join("new");
            let file = disk::create(&path).expect("create");
            disk::write_at(&file, &path, &mut [io::IoSlice::new(b"ab")], 0).expect("write");
            (file, path)
        };
        let nothing_synced = left(Order::Files, |dir| drop(write(dir)));
        assert_eq!(names(&nothing_synced), ["new old", "old"]);
        let mut bytes: Vec<_> = nothing_synced
            .iter()
            .filter_map(|files| files.get("new"))
            .collect();
        bytes.sort();
        assert_eq!(bytes, [&b""[..], b"\0\0", b"a", b"ab"]);

        let file_synced = left(Order::Files, |dir| {
            let (file, path) = write(dir);
            disk::sync_data(&file, &path).expect("sync");
        });
        assert_eq!(names(&file_synced), ["new old", "old"]);
        assert_eq!(file_synced.len(), 2, "with all its bytes, where it has its name");

        let all_synced = left(Order::Files, |dir| {
            let (file, path) = write(dir);
            disk::sync_data(&file, &path).expect("sync");
            disk::sync_dir(dir).expect("sync");
        });
        assert_eq!(all_synced.len(), 1);
        assert_eq!(
            left(Order::Files, |dir| disk::replace_durably(&dir.join("old"), b"n")
                .expect("write"))
            .len(),
            1
        );
    }

    #[test]
    fn names_are_lost_in_order_of_the_directory_or_of_each_file() {
        let change = |dir: &Path| {
            let _ = disk::create(&dir.join("a")).expect("create");
            assert!(disk::rename(&dir.join("a"), &dir.join("b")).expect("rename"));
            disk::remove(&dir.join("old")).expect("remove");
        };
        assert_eq!(
            names(&left(Order::Directory, change)),
            ["a old", "b", "b old", "old"]
        );
        assert_eq!(
            names(&left(Order::Files, change)),
            ["", "a", "a old", "b", "b old", "old"]
        );
    }

    #[test]
    fn a_file_that_is_replaced_is_the_old_one_or_the_new_one_which_may_be_empty() {
        let outcomes = left(Order::Files, |dir| {
            disk::replace(&dir.join("old"), b"new").expect("write");
        });
        assert_eq!(names(&outcomes), ["old"]);
        let mut bytes: Vec<&[u8]> = outcomes.iter().map(|files| &files["old"][..]).collect();
        bytes.sort();
        assert_eq!(bytes, [&b""[..], b"\0\0\0", b"n", b"ne", b"new", b"o"]);
    }
}
