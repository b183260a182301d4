//! Topics are made and removed by the same client, so that both sides are asked in the same way.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaResult, RDKafkaErrorCode},
};
use serde_json::{Value, json};

use crate::{client, clock};

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
    wait_in_sync(bootstrap, name, partitions, replicas, IN_SYNC)?;
    Ok(json!({"created": name}))
}

/// Waits until every partition has a leader and all replicas are in sync.
pub(crate) fn wait_in_sync(
    bootstrap: &str,
    name: &str,
    partitions: i32,
    replicas: i32,
    patience: Duration,
) -> anyhow::Result<Value> {
    let consumer: BaseConsumer = client::config(bootstrap).create()?;
    let deadline = Instant::now() + patience;
    // One broker may know of a topic before the others do: they must say so twice.
    let mut agreed = 0;
    while agreed < 2 {
        if in_sync(&consumer, name, partitions, replicas) {
            agreed += 1;
        } else {
            agreed = 0;
            if Instant::now() > deadline {
                bail!("{name} is not in sync after {} s", patience.as_secs());
            }
        }
        std::thread::sleep(LOOK);
    }
    Ok(json!({"in_sync": name}))
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
        let (key, value) = key_value(config)?;
        topic = topic.set(key, value);
    }
    admin(config, async |admin, options| {
        admin.create_topics([&topic], options).await
    })
}

/// Gives a topic these configurations and no others; tells when it was asked for, in seconds since 1970.
pub(crate) fn alter(bootstrap: &str, name: &str, configs: &[String]) -> anyhow::Result<Value> {
    let mut altered = AlterConfig::new(ResourceSpecifier::Topic(name));
    for config in configs {
        let (key, value) = key_value(config)?;
        altered = altered.set(key, value);
    }
    let mut asked_at = 0.0;
    admin(&client::config(bootstrap), async |admin, options| {
        asked_at = clock::now();
        admin.alter_configs([&altered], options).await
    })?;
    Ok(json!({"altered": name, "asked_at": asked_at}))
}

fn key_value(config: &str) -> anyhow::Result<(&str, &str)> {
    config
        .split_once('=')
        .with_context(|| format!("{config:?} is not key=value"))
}

/// Deletes a topic.
pub(crate) fn delete(bootstrap: &str, name: &str) -> anyhow::Result<Value> {
    admin(&client::config(bootstrap), async |admin, options| {
        admin.delete_topics(&[name], options).await
    })?;
    Ok(json!({"deleted": name}))
}

/// One request of the admin client, all of whose parts must succeed.
fn admin<T, N: Debug>(
    config: &ClientConfig,
    request: impl AsyncFnOnce(
        &AdminClient<DefaultClientContext>,
        &AdminOptions,
    ) -> KafkaResult<Vec<Result<T, (N, RDKafkaErrorCode)>>>,
) -> anyhow::Result<()> {
    let client: AdminClient<_> = config.create().context("cannot make an admin client")?;
    let options = AdminOptions::new()
        .request_timeout(Some(client::ANSWER))
        .operation_timeout(Some(client::ANSWER));
    let results = tokio::runtime::Builder::new_current_thread()
        .build()?
        .block_on(request(&client, &options))?;
    for result in results {
        if let Err((name, code)) = result {
            bail!("{name:?}: {code}");
        }
    }
    Ok(())
}
