//! What the brokers say about the topics: who leads, who is in sync.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use chaos_checker::Partition;
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};

use crate::producer::Target;

const LOOK: Duration = Duration::from_millis(200);
/// One question; brokers that do not answer are passed over by the client.
const ANSWER: Duration = Duration::from_secs(5);

/// A client that asks for metadata only.
pub(crate) struct TopicView {
    consumer: BaseConsumer,
    topics: Vec<String>,
}

/// One partition as a broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionState {
    pub(crate) partition: Partition,
    /// `None` where there is none.
    pub(crate) leader: Option<u32>,
    pub(crate) in_sync: BTreeSet<i32>,
}

impl TopicView {
    /// Of these topics, of one cluster. There must be one.
    pub(crate) fn new(targets: &[&Target]) -> anyhow::Result<Self> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", &targets[0].bootstrap)
            .set("reconnect.backoff.max.ms", "500")
            .create()
            .context("cannot make a client")?;
        Ok(Self {
            consumer,
            topics: targets.iter().map(|target| target.topic.clone()).collect(),
        })
    }

    /// All partitions of all topics.
    pub(crate) fn partitions(&self) -> anyhow::Result<Vec<PartitionState>> {
        let mut states = Vec::new();
        for topic in &self.topics {
            states.append(&mut self.partitions_of(topic)?);
        }
        Ok(states)
    }

    fn partitions_of(&self, topic: &str) -> anyhow::Result<Vec<PartitionState>> {
        let metadata = self.consumer.fetch_metadata(Some(topic), ANSWER)?;
        let described = metadata
            .topics()
            .first()
            .with_context(|| format!("the cluster answered without {topic}"))?;
        Ok(described
            .partitions()
            .iter()
            .map(|partition| PartitionState {
                partition: partition.id(),
                leader: u32::try_from(partition.leader()).ok(),
                in_sync: partition.isr().iter().copied().collect(),
            })
            .collect())
    }

    /// The broker that leads a partition of the first topic; `None` while none does, or nobody says so.
    pub(crate) fn leader(&self, partition: Partition) -> Option<u32> {
        let states = self.partitions_of(&self.topics[0]).ok()?;
        states
            .iter()
            .find(|state| state.partition == partition)
            .and_then(|state| state.leader)
    }

    /// Waits until every partition has a leader and all of its replicas are in sync.
    pub(crate) fn wait_in_sync(&self, replicas: u32, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        // A broker that has just come back may still tell the past: it has to be so twice.
        let mut twice = false;
        loop {
            let states = self.partitions();
            let healed = states.as_ref().is_ok_and(|states| {
                let whole = |state: &PartitionState| {
                    state.leader.is_some() && state.in_sync.len() == replicas as usize
                };
                !states.is_empty() && states.iter().all(whole)
            });
            if healed && twice {
                return Ok(());
            }
            twice = healed;
            if Instant::now() > deadline {
                bail!(
                    "not every replica is in sync after {} s: {states:?}",
                    patience.as_secs()
                );
            }
            std::thread::sleep(LOOK);
        }
    }
}
