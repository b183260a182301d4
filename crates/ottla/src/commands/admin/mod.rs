//! Administration over gRPC: what every `ottla topics|groups|configs|cluster|brokers|leaders` call shares.

mod brokers;
mod cluster;
mod configs;
mod groups;
mod leaders;
mod output;
mod topics;

use std::{future::Future, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use protocol::grpc::v1::{KafkaError, admin_client::AdminClient};
use tonic::transport::{Channel, Endpoint};

pub(crate) use brokers::Brokers;
pub(crate) use cluster::Cluster;
pub(crate) use configs::Configs;
pub(crate) use groups::Groups;
pub(crate) use leaders::Leaders;
pub(crate) use output::Format;
pub(crate) use topics::Topics;

/// Whom to ask, and how to print the answer.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Target {
    /// Client ports of one or more brokers, as host:port,host:port; any of them will do.
    #[arg(
        long,
        env = "OTTLA_BOOTSTRAP_SERVER",
        default_value = "localhost:9092",
        global = true
    )]
    pub(crate) bootstrap_server: String,
    /// Tables for people, JSON for programs.
    #[arg(long, value_enum, default_value_t = Format::Table, global = true)]
    pub(crate) output: Format,
}

impl Target {
    /// Connects to the first broker that answers.
    async fn connect(&self) -> anyhow::Result<AdminClient<Channel>> {
        let mut last = None;
        for address in self
            .bootstrap_server
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty())
        {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))
                .with_context(|| format!("{address:?} is not host:port"))?
                .connect_timeout(Duration::from_secs(3))
                .timeout(Duration::from_secs(90));
            match endpoint.connect().await {
                Ok(channel) => return Ok(AdminClient::new(channel).max_decoding_message_size(64 << 20)),
                Err(error) => last = Some((address, error)),
            }
        }
        match last {
            Some((address, error)) => Err(error).with_context(|| {
                format!(
                    "no broker can be reached at {} (tried {address} last): is the cluster running?",
                    self.bootstrap_server
                )
            }),
            None => bail!("--bootstrap-server names no broker"),
        }
    }

    /// Runs one call to its end.
    fn run<F, Fut>(&self, call: F) -> anyhow::Result<ExitCode>
    where
        F: FnOnce(AdminClient<Channel>) -> Fut,
        Fut: Future<Output = anyhow::Result<ExitCode>>,
    {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?
            .block_on(async { call(self.connect().await?).await })
    }
}

/// The answer of a call, or its status as a sentence.
fn answer<T>(result: Result<tonic::Response<T>, tonic::Status>) -> anyhow::Result<T> {
    match result {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => bail!("{}", status.message()),
    }
}

/// `None` where nothing went wrong, else Kafka's name of the error and its sentence.
fn failure(error: Option<&KafkaError>) -> Option<String> {
    let error = error.filter(|error| error.code != 0)?;
    let name = i16::try_from(error.code)
        .ok()
        .and_then(protocol::ErrorCode::from_code)
        .map_or_else(|| format!("error {}", error.code), |code| code.name().to_owned());
    Some(if error.message.is_empty() {
        name
    } else {
        format!("{name}: {}", error.message)
    })
}

/// Fails with the error's sentence where there is one.
fn check(error: Option<&KafkaError>) -> anyhow::Result<()> {
    failure(error).map_or(Ok(()), |sentence| bail!("{sentence}"))
}

/// Reads `key=value` arguments.
pub(super) fn pairs(settings: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    settings
        .iter()
        .map(|setting| match setting.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_owned(), value.to_owned())),
            None => bail!("{setting:?} is not of the form key=value"),
        })
        .collect()
}
