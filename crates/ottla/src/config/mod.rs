//! A node's configuration: a properties file, overridden by the environment, overridden by `--set`.

mod layers;
mod listeners;
mod node;

pub(crate) use layers::{Layers, Properties};
pub(crate) use node::{ControllerSettings, NodeConfig};
