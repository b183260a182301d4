//! `ottla cluster`: nodes, roles, the active controller, who is behind.

use std::process::ExitCode;

use protocol::grpc::v1::DescribeClusterRequest;

use super::{Target, answer, output::Rows};

/// Show the nodes of the cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Cluster {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show controllers and brokers, the active controller, and how far each controller is behind.
    Describe,
}

impl Cluster {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let Action::Describe = self.action;
        let format = self.target.output;
        self.target.run(async |mut client| {
            let cluster = answer(client.describe_cluster(DescribeClusterRequest {}).await)?;
            let mut rows = Rows::new(["node", "role", "address", "state", "lag", "cluster"]);
            for controller in cluster.controllers {
                rows.push([
                    controller.node_id.into(),
                    "controller".into(),
                    controller.address.into(),
                    if controller.active { "active" } else { "standby" }.into(),
                    controller.lag.into(),
                    cluster.cluster_id.clone().into(),
                ]);
            }
            for broker in cluster.brokers {
                let state = match (broker.fenced, broker.in_controlled_shutdown) {
                    (true, _) => "fenced",
                    (false, true) => "shutting down",
                    (false, false) => "live",
                };
                rows.push([
                    broker.broker_id.into(),
                    "broker".into(),
                    super::brokers::addresses(&broker).into(),
                    state.into(),
                    serde_json::Value::Null,
                    cluster.cluster_id.clone().into(),
                ]);
            }
            rows.print(format);
            Ok(ExitCode::SUCCESS)
        })
    }
}
