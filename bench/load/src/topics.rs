//! Topics are made and removed by the same client, so that both sides are asked in the same way.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
};
use serde_json::{Value, json};

use crate::client;

const IN_SYNC: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// Creates a topic and waits until every partition has a leader and all replicas are in sync.
pub(crate) fn create(
    bootstrap: &str,
    name: &str,
    partitions: i32,
    replicas: i32,
    configs: &[String],
) -> anyhow::Result<Value> {
    try_create(&client::config(bootstrap), name, partitions, replicas, configs)?;
    let consumer: BaseConsumer = client::config(bootstrap).create()?;
    let deadline = Instant::now() + IN_SYNC;
    // One broker may know of a topic before the others do: they must say so twice.
    let mut agreed = 0;
    while agreed < 2 {
        if in_sync(&consumer, name, partitions, replicas) {
            agreed += 1;
        } else {
            agreed = 0;
            if Instant::now() > deadline {
                bail!("{name} is not in sync after {} s", IN_SYNC.as_secs());
            }
        }
        std::thread::sleep(LOOK);
    }
    Ok(json!({"created": name}))
}

fn in_sync(consumer: &BaseConsumer, name: &str, partitions: i32, replicas: i32) -> bool {
    let Ok(metadata) = consumer.fetch_metadata(Some(name), client::ANSWER) else {
        return false;
    };
    metadata.topics().first().is_some_and(|topic| {
        topic.partitions().len() == partitions as usize
            && topic
                .partitions()
                .iter()
                .all(|partition| partition.leader() >= 0 && partition.isr().len() == replicas as usize)
    })
}

/// Asks for a topic once.
pub(crate) fn try_create(
    config: &ClientConfig,
    name: &str,
    partitions: i32,
    replicas: i32,
    configs: &[String],
) -> anyhow::Result<()> {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    for config in configs {
        let (key, value) = config
            .split_once('=')
            .with_context(|| format!("{config:?} is not key=value"))?;
        topic = topic.set(key, value);
    }
    admin(config, async |admin, options| {
        admin.create_topics([&topic], options).await
    })
}

/// Deletes a topic.
pub(crate) fn delete(bootstrap: &str, name: &str) -> anyhow::Result<Value> {
    admin(&client::config(bootstrap), async |admin, options| {
        admin.delete_topics(&[name], options).await
    })?;
    Ok(json!({"deleted": name}))
}

/// One request of the admin client about one topic.
fn admin(
    config: &ClientConfig,
    request: impl AsyncFnOnce(
        &AdminClient<DefaultClientContext>,
        &AdminOptions,
    ) -> rdkafka::error::KafkaResult<Vec<rdkafka::admin::TopicResult>>,
) -> anyhow::Result<()> {
    let client: AdminClient<_> = config.create().context("cannot make an admin client")?;
    let options = AdminOptions::new()
        .request_timeout(Some(client::ANSWER))
        .operation_timeout(Some(client::ANSWER));
    let results = tokio::runtime::Builder::new_current_thread()
        .build()?
        .block_on(request(&client, &options))?;
    for result in results {
        if let Err((topic, code)) = result {
            bail!("{topic}: {code}");
        }
    }
    Ok(())
}
