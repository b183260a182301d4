//! `ottla brokers`: list, controlled shutdown, unregister.

use std::process::ExitCode;

use protocol::grpc::v1::{
    AdminUnregisterBrokerRequest, BrokerNode, ListBrokersRequest, ShutdownBrokerRequest,
};

use super::{Target, answer, check, output::Rows};

/// List brokers, have one end in order, forget one that is gone.
#[derive(Debug, clap::Args)]
pub(crate) struct Brokers {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List registered brokers.
    List,
    /// Have a broker move its leaderships away and end.
    Shutdown {
        /// The broker's node id.
        id: i32,
    },
    /// Forget a broker that is gone for good; it must be fenced.
    Unregister {
        /// The broker's node id.
        id: i32,
    },
}

impl Brokers {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let format = self.target.output;
        match self.action {
            Action::List => self.target.run(async |mut client| {
                let reply = answer(client.list_brokers(ListBrokersRequest {}).await)?;
                let mut rows = Rows::new([
                    "broker", "address", "rack", "fenced", "epoch", "leaders", "replicas", "version",
                ]);
                for broker in reply.brokers {
                    rows.push([
                        broker.broker_id.into(),
                        addresses(&broker).into(),
                        if broker.rack.is_empty() {
                            serde_json::Value::Null
                        } else {
                            broker.rack.into()
                        },
                        broker.fenced.into(),
                        broker.broker_epoch.into(),
                        broker.leaders.into(),
                        broker.replicas.into(),
                        broker.version.into(),
                    ]);
                }
                rows.print(format);
                Ok(ExitCode::SUCCESS)
            }),
            Action::Shutdown { id } => self.target.run(async |mut client| {
                answer(
                    client
                        .shutdown_broker(ShutdownBrokerRequest { broker_id: id })
                        .await,
                )?;
                println!("broker {id} is shutting down");
                Ok(ExitCode::SUCCESS)
            }),
            Action::Unregister { id } => self.target.run(async |mut client| {
                let request = AdminUnregisterBrokerRequest { broker_id: id };
                check(
                    answer(client.admin_unregister_broker(request).await)?
                        .error
                        .as_ref(),
                )?;
                println!("broker {id} is unregistered");
                Ok(ExitCode::SUCCESS)
            }),
        }
    }
}

/// The addresses of all listeners, in the order of their names.
pub(super) fn addresses(broker: &BrokerNode) -> String {
    let mut listeners: Vec<_> = broker.listeners.iter().collect();
    listeners.sort();
    listeners
        .into_iter()
        .map(|(_, address)| address.as_str())
        .collect::<Vec<_>>()
        .join(",")
}
