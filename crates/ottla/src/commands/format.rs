//! `ottla format`: gives a node's log directories their identity.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use protocol::{ClusterId, DirectoryId};
use storage::meta_properties;

use crate::config::{Layers, NodeConfig};

/// Write the identity of a cluster and a node into its log directories, once, before the first start.
#[derive(Debug, clap::Args)]
pub(crate) struct Format {
    /// The id that every node of the cluster is formatted with; `ottla random-cluster-id` makes one.
    #[arg(long, short = 't', allow_hyphen_values = true)]
    cluster_id: String,
    /// The node's properties file.
    #[arg(long, short)]
    config: PathBuf,
    /// Override a key of the file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Leave directories alone that are formatted for this node and cluster already.
    #[arg(long)]
    ignore_formatted: bool,
}

impl Format {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let cluster_id = ClusterId::new(self.cluster_id)?;
        let properties = Layers::default()
            .with_file(&self.config)?
            .with_environment(std::env::vars())
            .with_settings(&self.settings)?
            .resolve()?;
        let node = NodeConfig::from_properties(properties)?;
        for dir in directories(&node) {
            std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            match meta_properties::load(&dir)? {
                None => {
                    let made = meta_properties::format(
                        &dir,
                        Some(&cluster_id),
                        node.node_id,
                        DirectoryId::random(),
                    )?;
                    println!(
                        "formatted {} for node {} of cluster {cluster_id}, directory {}",
                        dir.display(),
                        node.node_id,
                        made.directory_id
                    );
                }
                Some(found) => {
                    found.verify(&dir, Some(&cluster_id), node.node_id)?;
                    if !self.ignore_formatted {
                        bail!(
                            "{} is formatted already for node {} of this cluster; --ignore-formatted leaves it as it is",
                            dir.display(),
                            node.node_id
                        );
                    }
                    println!("{} is formatted already", dir.display());
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Every directory that has an identity: those of the partitions and that of the metadata log.
pub(super) fn directories(node: &NodeConfig) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = node
        .broker
        .iter()
        .flat_map(|broker| broker.log_dirs.clone())
        .collect();
    dirs.extend(
        node.controller
            .iter()
            .map(|controller| controller.log_dir.clone()),
    );
    dirs.sort();
    dirs.dedup();
    dirs
}
