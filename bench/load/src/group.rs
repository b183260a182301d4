//! How a client becomes a member of a group.

use rdkafka::{
    ClientConfig,
    topic_partition_list::{TopicPartitionList, TopicPartitionListElem},
};

use crate::client;

/// Who shares a group's partitions out.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// One of the members (JoinGroup, SyncGroup).
    Classic,
    /// The broker (KIP-848).
    Consumer,
}

/// What a member says of itself.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Membership {
    #[arg(long, value_enum, default_value = "classic")]
    protocol: Protocol,
    /// Without it: the client's default. Of the classic protocol only, as in the other one brokers say so.
    #[arg(long)]
    session_timeout_ms: Option<u32>,
    /// As for --session-timeout-ms.
    #[arg(long)]
    heartbeat_interval_ms: Option<u32>,
}

impl Membership {
    /// A member that commits when it is told to, and starts at the end where nothing is committed.
    pub(crate) fn config(&self, bootstrap: &str, group: &str) -> ClientConfig {
        let mut config = client::config(bootstrap);
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "latest");
        if matches!(self.protocol, Protocol::Consumer) {
            config.set("group.protocol", "consumer");
        }
        if let Some(timeout) = self.session_timeout_ms {
            config.set("session.timeout.ms", timeout.to_string());
        }
        if let Some(interval) = self.heartbeat_interval_ms {
            config.set("heartbeat.interval.ms", interval.to_string());
        }
        config
    }
}

/// The partitions of a list.
pub(crate) fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    list.elements()
        .iter()
        .map(TopicPartitionListElem::partition)
        .collect()
}
