//! `ottla server`: runs one node.

use std::{path::PathBuf, process::ExitCode};

use crate::{
    config::{Layers, NodeConfig},
    logging, roles,
};

/// Run a node: a controller, a broker or both, as its configuration says.
#[derive(Debug, clap::Args)]
pub(crate) struct Server {
    /// The node's properties file, with Kafka's keys.
    #[arg(long, short)]
    config: PathBuf,
    /// Override a key of the file. `OTTLA_NODE_ID=7` in the environment overrides `node.id` too.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl Server {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let properties = Layers::default()
            .with_file(&self.config)?
            .with_environment(std::env::vars())
            .with_settings(&self.settings)?
            .resolve()?;
        let node = NodeConfig::from_properties(properties)?;
        logging::init();
        roles::run(node)
    }
}
