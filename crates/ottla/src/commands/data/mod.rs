//! `ottla produce` and `ottla consume`: lines in, lines out, through librdkafka like any other client.

mod complaints;
mod consume;
mod lines;
mod printing;
mod produce;

use rdkafka::ClientConfig;

pub(crate) use consume::Consume;
pub(crate) use produce::Produce;

/// The cluster, and client settings that override ours.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Client {
    /// Client ports of one or more brokers, as host:port,host:port.
    #[arg(long, env = "OTTLA_BOOTSTRAP_SERVER", default_value = "localhost:9092")]
    bootstrap_server: String,
    /// Set a property of librdkafka, such as `compression.type=zstd`.
    #[arg(
        short = 'X',
        long = "property",
        visible_aliases = ["consumer-property", "producer-property"],
        value_name = "KEY=VALUE"
    )]
    properties: Vec<String>,
}

impl Client {
    fn config(&self) -> anyhow::Result<ClientConfig> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_server)
            .set("client.id", "ottla");
        for (key, value) in super::admin::pairs(&self.properties)? {
            config.set(key, value);
        }
        Ok(config)
    }
}
