//! `meta.properties`: to which node of which cluster a log directory belongs (KIP-631, KIP-858).
//!
//! Kafka's file and keys: `version=1`, `cluster.id`, `node.id`, `directory.id`. A broker that formats
//! an empty directory by itself learns the cluster id from the quorum and adds it then; until that
//! the key is absent.

use std::{
    io,
    path::{Path, PathBuf},
};

use protocol::{BrokerId, ClusterId, DirectoryId};

use crate::{
    durable_file::{read_if_present, write_atomically},
    properties,
};

/// The file's name within a log directory.
pub const FILE_NAME: &str = "meta.properties";
/// The only version that this build reads and writes; Kafka's version of KRaft directories.
const VERSION: &str = "1";

/// The identity of a log directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// The cluster, once it is known.
    pub cluster_id: Option<ClusterId>,
    /// The node that formatted the directory.
    pub node_id: BrokerId,
    /// The directory's own identity: one that was wiped and formatted again has another.
    pub directory_id: DirectoryId,
}

/// Why a log directory's identity could not be read, or is not the expected one.
#[derive(Debug, thiserror::Error)]
pub enum MetaPropertiesError {
    /// The file could not be read or written.
    #[error("cannot access {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A version that this build does not know.
    #[error("{} has version {version:?}, this build knows version 1", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: String,
    },
    /// A line is no `key=value`, or a required key is missing or has no valid value.
    #[error("{} is malformed: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The key, or what is wrong with the whole.
        what: &'static str,
    },
    /// The directory belongs to another node.
    #[error(
        "log directory {} belongs to node {found}, but this is node {expected}: \
         check node.id and log.dirs", dir.display()
    )]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: BrokerId,
        /// Who we are.
        expected: BrokerId,
    },
    /// The directory belongs to another cluster.
    #[error(
        "log directory {} belongs to cluster {found}, but this node is of cluster {expected}: \
         check log.dirs and the quorum's address", dir.display()
    )]
    OtherCluster {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Which cluster we are of.
        expected: ClusterId,
    },
}

/// Writes the identity of `dir`, durably.
pub fn format(
    dir: &Path,
    cluster_id: Option<&ClusterId>,
    node_id: BrokerId,
    directory_id: DirectoryId,
) -> Result<MetaProperties, MetaPropertiesError> {
    let properties = MetaProperties {
        cluster_id: cluster_id.cloned(),
        node_id,
        directory_id,
    };
    properties.store(dir)?;
    Ok(properties)
}

/// Reads the identity of `dir`; `None` when it is not formatted.
pub fn load(dir: &Path) -> Result<Option<MetaProperties>, MetaPropertiesError> {
    let path = dir.join(FILE_NAME);
    match read_if_present(&path) {
        Ok(Some(bytes)) => parse(&path, &bytes).map(Some),
        Ok(None) => Ok(None),
        Err(source) => Err(MetaPropertiesError::Io { path, source }),
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<MetaProperties, MetaPropertiesError> {
    let malformed = |what| MetaPropertiesError::Malformed {
        path: path.to_owned(),
        what,
    };
    let pairs = properties::parse(bytes).ok_or_else(|| malformed("a line is not key=value"))?;
    let value = |key| pairs.get(key).copied();
    match value("version") {
        Some(VERSION) => {}
        Some(version) => {
            return Err(MetaPropertiesError::Version {
                path: path.to_owned(),
                version: version.chars().take(32).collect(),
            });
        }
        None => return Err(malformed("version")),
    }
    let cluster_id = value("cluster.id").map(ClusterId::new).transpose();
    let node_id = value("node.id")
        .and_then(|id| id.parse().ok())
        .filter(|&id| id >= 0);
    let directory_id = value("directory.id").and_then(|id| id.parse().ok());
    Ok(MetaProperties {
        cluster_id: cluster_id.map_err(|_| malformed("cluster.id"))?,
        node_id: BrokerId(node_id.ok_or_else(|| malformed("node.id"))?),
        directory_id: directory_id.ok_or_else(|| malformed("directory.id"))?,
    })
}

impl MetaProperties {
    /// Writes the identity into `dir`, durably.
    pub fn store(&self, dir: &Path) -> Result<(), MetaPropertiesError> {
        let mut pairs = vec![("version", VERSION.to_owned())];
        if let Some(cluster_id) = &self.cluster_id {
            pairs.push(("cluster.id", cluster_id.to_string()));
        }
        pairs.push(("node.id", self.node_id.to_string()));
        pairs.push(("directory.id", self.directory_id.to_string()));
        let path = dir.join(FILE_NAME);
        write_atomically(&path, properties::render(&pairs).as_bytes())
            .map_err(|source| MetaPropertiesError::Io { path, source })
    }

    /// Refuses the directory of another node, or of another cluster where both are known.
    pub fn verify(
        &self,
        dir: &Path,
        cluster_id: Option<&ClusterId>,
        node_id: BrokerId,
    ) -> Result<(), MetaPropertiesError> {
        if self.node_id != node_id {
            return Err(MetaPropertiesError::OtherNode {
                dir: dir.to_owned(),
                found: self.node_id,
                expected: node_id,
            });
        }
        match (&self.cluster_id, cluster_id) {
            (Some(found), Some(expected)) if found != expected => Err(MetaPropertiesError::OtherCluster {
                dir: dir.to_owned(),
                found: found.clone(),
                expected: expected.clone(),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn cluster(id: &str) -> ClusterId {
        ClusterId::new(id).expect("valid id")
    }

    #[test]
    fn a_formatted_directory_says_whose_it_is() {
        let dir = tempfile::tempdir().expect("temp dir");
        let dir = dir.path();
        assert_eq!(load(dir).expect("unformatted"), None);
        let id = DirectoryId::random();
        let mut properties = format(dir, None, BrokerId(3), id).expect("format");
        assert_eq!(load(dir).expect("read"), Some(properties.clone()));
        properties.cluster_id = Some(cluster("east"));
        properties.store(dir).expect("store");
        assert_eq!(
            fs::read_to_string(dir.join(FILE_NAME)).expect("read"),
            format!("version=1\ncluster.id=east\nnode.id=3\ndirectory.id={id}\n")
        );
        assert_eq!(load(dir).expect("read"), Some(properties));
    }

    #[test]
    fn a_foreign_directory_is_refused_with_both_names() {
        let dir = tempfile::tempdir().expect("temp dir");
        let dir = dir.path();
        let id = DirectoryId::random();
        let properties = format(dir, Some(&cluster("east")), BrokerId(3), id).expect("format");
        properties
            .verify(dir, None, BrokerId(3))
            .expect("cluster not known yet");
        properties
            .verify(dir, Some(&cluster("east")), BrokerId(3))
            .expect("ours");
        let text = |result: Result<(), MetaPropertiesError>| result.expect_err("foreign").to_string();
        let other_node = text(properties.verify(dir, None, BrokerId(4)));
        assert!(
            other_node.contains("node 3") && other_node.contains("node 4"),
            "{other_node}"
        );
        let other_cluster = text(properties.verify(dir, Some(&cluster("west")), BrokerId(3)));
        assert!(
            other_cluster.contains("east") && other_cluster.contains("west"),
            "{other_cluster}"
        );
    }

    #[test]
    fn kafka_s_own_file_is_read() {
        let dir = tempfile::tempdir().expect("temp dir");
        let text = "#\n#Sat Nov 21 09:00:00 UTC 2026\ncluster.id=MkU3OEVBNTcwNTJENDM2Qg\n\
                    directory.id=AAAAAAAAAAAAAAAAAAAAAQ\nnode.id=1\nversion=1\n";
        fs::write(dir.path().join(FILE_NAME), text).expect("write");
        let properties = load(dir.path()).expect("read").expect("formatted");
        assert_eq!(properties.node_id, BrokerId(1));
        assert_eq!(properties.cluster_id, Some(cluster("MkU3OEVBNTcwNTJENDM2Qg")));
    }

    #[test]
    fn a_file_that_is_not_whole_is_an_error() {
        let dir = tempfile::tempdir().expect("temp dir");
        let id = "directory.id=AAAAAAAAAAAAAAAAAAAAAQ";
        let bad = [
            String::new(),
            format!("version=2\nnode.id=1\n{id}"),
            format!("version=1\n{id}"),
            format!("version=1\nnode.id=-1\n{id}"),
            format!("version=1\nnode.id=1\nnode.id=2\n{id}"),
            format!("version=1\ncluster.id=a b\nnode.id=1\n{id}"),
            "version=1\nnode.id=1\ndirectory.id=AAAA".to_owned(),
            format!("version=1\nnode.id=1\nnonsense\n{id}"),
        ];
        for text in bad {
            fs::write(dir.path().join(FILE_NAME), &text).expect("write");
            assert!(load(dir.path()).is_err(), "{text:?}");
        }
    }
}
