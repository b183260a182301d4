//! `ottla dev`: a whole cluster in one process, for a laptop.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use protocol::{ClusterId, DirectoryId};
use storage::meta_properties;

use super::format::directories;
use crate::{
    config::{Layers, NodeConfig},
    logging, roles,
};

/// Run a whole cluster in one process, without any configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct Dev {
    /// Where data is kept; formatted at the first start.
    #[arg(long, default_value = "ottla-dev", value_name = "DIR")]
    data: PathBuf,
    /// The client port; the internal ports lie 10,000 and 10,100 above it.
    #[arg(long, default_value_t = 9092)]
    port: u16,
    /// Set a configuration key.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl Dev {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let above = |distance: u16| {
            self.port.checked_add(distance).with_context(|| {
                format!(
                    "port {} leaves no room for the internal port {distance} above it",
                    self.port
                )
            })
        };
        let (port, internal, controller) = (self.port, above(10_000)?, above(10_100)?);
        let listeners = format!(
            "PLAINTEXT://127.0.0.1:{port},INTERNAL://127.0.0.1:{internal},CONTROLLER://127.0.0.1:{controller}"
        );
        let properties = Layers::default()
            .with_values([
                ("process.roles", "broker,controller".to_owned()),
                ("node.id", "1".to_owned()),
                ("controller.quorum.voters", format!("1@127.0.0.1:{controller}")),
                ("listeners", listeners),
                ("inter.broker.listener.name", "INTERNAL".to_owned()),
                ("controller.listener.names", "CONTROLLER".to_owned()),
                ("log.dirs", self.data.join("logs").display().to_string()),
                (
                    "metadata.log.dir",
                    self.data.join("metadata").display().to_string(),
                ),
                ("default.replication.factor", "1".to_owned()),
                ("offsets.topic.replication.factor", "1".to_owned()),
                // As in the file that Kafka ships for a first try: nobody waits for more members.
                ("group.initial.rebalance.delay.ms", "0".to_owned()),
            ])
            .with_environment(std::env::vars())
            .with_settings(&self.settings)?
            .resolve()?;
        let node = NodeConfig::from_properties(properties)?;
        format(&node)?;
        logging::init();
        eprintln!(
            "ottla dev: data in {}, bootstrap.servers=localhost:{port}",
            self.data.display()
        );
        roles::run(node)
    }
}

/// Formats what is not formatted yet, all of it for one cluster.
fn format(node: &NodeConfig) -> anyhow::Result<()> {
    let dirs = directories(node);
    let mut cluster_id = None;
    for dir in &dirs {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        if let Some(found) = meta_properties::load(dir)? {
            cluster_id = cluster_id.or(found.cluster_id);
        }
    }
    let cluster_id = match cluster_id {
        Some(id) => id,
        None => ClusterId::new(DirectoryId::random().to_string())?,
    };
    for dir in &dirs {
        match meta_properties::load(dir)? {
            Some(found) => found.verify(dir, Some(&cluster_id), node.node_id)?,
            None => {
                meta_properties::format(dir, Some(&cluster_id), node.node_id, DirectoryId::random())?;
            }
        }
    }
    Ok(())
}
