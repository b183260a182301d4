//! `ottla format-quorum`: the birth of a cluster whose controllers' directories are all in reach.
//!
//! Made for one-shot containers that run before every start. It formats the directories of a new cluster
//! and never those of one that has run: there, a directory that is blank has vanished, and stays
//! unformatted, so that its controller refuses to start instead of voting without its memory.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use anyhow::{Context, bail, ensure};
use protocol::{BrokerId, ClusterId, DirectoryId};
use storage::meta_properties::{self, MetaProperties};

/// Format the directories of all controllers of a new cluster, once.
///
/// Does nothing where a controller has run already: a directory that is blank then has vanished, and
/// its controller must refuse to start. Exit code 0: every controller that is formatted may start.
#[derive(Debug, clap::Args)]
pub(crate) struct FormatQuorum {
    /// Every controller's node id and its directory, such as `101=/controllers/101`.
    #[arg(required = true, value_name = "NODE=DIRECTORY")]
    seats: Vec<Seat>,
    /// The new cluster's id; a random one by default.
    #[arg(long, short = 't', allow_hyphen_values = true)]
    cluster_id: Option<String>,
}

/// One controller and its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seat {
    node_id: BrokerId,
    dir: PathBuf,
}

impl FromStr for Seat {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (id, dir) = text
            .split_once('=')
            .filter(|(_, dir)| !dir.is_empty())
            .context("expected NODE=DIRECTORY")?;
        let id: i32 = id.parse().with_context(|| format!("{id:?} is not a node id"))?;
        ensure!(id >= 0, "{id} is not a node id");
        Ok(Self {
            node_id: BrokerId(id),
            dir: dir.into(),
        })
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (controller {})", self.dir.display(), self.node_id)
    }
}

/// What a directory says about its controller.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing at all.
    Blank,
    /// An identity; and, where the controller has run, its log.
    Formatted { identity: MetaProperties, has_run: bool },
}

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// No controller has run: format those that are blank, for this cluster if one of them knows it.
    Format(Option<ClusterId>),
    /// The cluster lives; nothing may be formatted.
    Leave,
}

impl FormatQuorum {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let asked = self.cluster_id.map(ClusterId::new).transpose()?;
        let mut found = Vec::with_capacity(self.seats.len());
        for seat in &self.seats {
            let state = look(&seat.dir)?;
            if let Found::Formatted { identity, .. } = &state {
                identity.verify(&seat.dir, asked.as_ref(), seat.node_id)?;
            }
            found.push(state);
        }
        let blank = self
            .seats
            .iter()
            .zip(&found)
            .filter(|(_, state)| **state == Found::Blank);
        match plan(&found)? {
            Plan::Format(known) => {
                let cluster_id = match known.or(asked) {
                    Some(id) => id,
                    None => ClusterId::new(DirectoryId::random().to_string())?,
                };
                for (seat, _) in blank {
                    fs::create_dir_all(&seat.dir)
                        .with_context(|| format!("cannot create {}", seat.dir.display()))?;
                    meta_properties::format(
                        &seat.dir,
                        Some(&cluster_id),
                        seat.node_id,
                        DirectoryId::random(),
                    )?;
                    println!("formatted {seat} for cluster {cluster_id}");
                }
            }
            Plan::Leave => {
                for (seat, _) in blank {
                    eprintln!(
                        "ottla: {seat} is blank, and this cluster has run before: what was there is gone. \
                         It stays unformatted, and its controller will refuse to start"
                    );
                }
                println!("the cluster was born before; nothing was formatted");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads what `dir` says. A directory with files and without an identity is an error.
fn look(dir: &Path) -> anyhow::Result<Found> {
    let mut has_more = false;
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                let name = entry
                    .with_context(|| format!("cannot read {}", dir.display()))?
                    .file_name();
                // A file system of its own has lost+found from the start; a temporary file is what a
                // format that was cut off leaves.
                has_more |= name != meta_properties::FILE_NAME
                    && name != "lost+found"
                    && !name.to_string_lossy().starts_with(meta_properties::FILE_NAME);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
    }
    match meta_properties::load(dir)? {
        Some(identity) => Ok(Found::Formatted {
            identity,
            has_run: has_more,
        }),
        None if has_more => bail!(
            "{} has files and no {}: it is not a new controller's",
            dir.display(),
            meta_properties::FILE_NAME
        ),
        None => Ok(Found::Blank),
    }
}

/// Decides from all directories together.
fn plan(found: &[Found]) -> anyhow::Result<Plan> {
    let mut known: Option<&ClusterId> = None;
    let mut lives = false;
    for state in found {
        let Found::Formatted { identity, has_run } = state else {
            continue;
        };
        lives |= has_run;
        match (known, &identity.cluster_id) {
            (Some(one), Some(other)) if one != other => {
                bail!("the directories belong to different clusters, {one} and {other}")
            }
            (_, own) => known = own.as_ref().or(known),
        }
    }
    Ok(if lives {
        Plan::Leave
    } else {
        Plan::Format(known.cloned())
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::Arguments;

    #[test]
    fn a_cluster_id_may_begin_with_a_dash() {
        let id = ["--cluster-id", "-UE4OEVBNTcwNTJENDM2Qg"];
        let parses = |words: &[&str]| Arguments::try_parse_from(words.iter().copied()).is_ok();
        assert!(parses(&["ottla", "format-quorum", id[0], id[1], "101=/d"]));
        assert!(parses(&[
            "ottla",
            "format",
            id[0],
            id[1],
            "--config",
            "node.properties"
        ]));
    }

    fn quorum(root: &Path) -> FormatQuorum {
        FormatQuorum {
            seats: [101, 102, 103]
                .map(|id| Seat {
                    node_id: BrokerId(id),
                    dir: root.join(id.to_string()),
                })
                .to_vec(),
            cluster_id: None,
        }
    }

    fn identity(root: &Path, id: i32) -> Option<MetaProperties> {
        meta_properties::load(&root.join(id.to_string())).expect("readable")
    }

    #[test]
    fn a_new_cluster_is_formatted_whole_and_once() {
        let root = tempfile::tempdir().expect("temp dir");
        let root = root.path();
        quorum(root).run().expect("blank directories");
        let first = [101, 102, 103].map(|id| identity(root, id).expect("formatted"));
        assert!(first[0].cluster_id.is_some());
        assert!(first.iter().all(|seat| seat.cluster_id == first[0].cluster_id));
        quorum(root).run().expect("formatted directories");
        assert_eq!(
            first,
            [101, 102, 103].map(|id| identity(root, id).expect("formatted"))
        );
    }

    #[test]
    fn a_birth_that_was_cut_off_is_completed() {
        let root = tempfile::tempdir().expect("temp dir");
        let root = root.path();
        quorum(root).run().expect("blank directories");
        fs::remove_dir_all(root.join("102")).expect("removed");
        quorum(root).run().expect("nobody has run");
        assert_eq!(
            identity(root, 102).expect("formatted").cluster_id,
            identity(root, 101).expect("formatted").cluster_id
        );
    }

    #[test]
    fn a_directory_that_vanished_stays_blank() {
        let root = tempfile::tempdir().expect("temp dir");
        let root = root.path();
        quorum(root).run().expect("blank directories");
        fs::create_dir(root.join("103/__cluster_metadata-0")).expect("made");
        fs::remove_file(root.join("102/meta.properties")).expect("removed");
        quorum(root).run().expect("the others may start");
        assert_eq!(identity(root, 102), None);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let root = tempfile::tempdir().expect("temp dir");
        let root = root.path();
        quorum(root).run().expect("blank directories");

        let mut other_cluster = quorum(root);
        other_cluster.cluster_id = Some("other".to_owned());
        other_cluster.run().expect_err("another cluster's");

        let mut other_node = quorum(root);
        other_node.seats[0].node_id = BrokerId(7);
        other_node.run().expect_err("another node's");

        fs::write(root.join("103/somebody's"), "file").expect("written");
        fs::remove_file(root.join("103/meta.properties")).expect("removed");
        quorum(root).run().expect_err("files without an identity");
    }

    #[test]
    fn seats_are_read_and_mistakes_refused() {
        let seat: Seat = "101=/a=b".parse().expect("well formed");
        assert_eq!((seat.node_id, seat.dir), (BrokerId(101), PathBuf::from("/a=b")));
        for bad in ["", "101", "101=", "x=/a", "-1=/a"] {
            assert!(bad.parse::<Seat>().is_err(), "{bad}");
        }
    }
}
