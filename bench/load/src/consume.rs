//! The newest records, read over and over: they lie in the page cache, and both sides read as many.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
};
use serde_json::{Value, json};

use crate::{client, usage::Sample, window::Window};

/// Without a single record for this long the run has failed.
const SILENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    pub(crate) window: Window,
    pub(crate) newest: i64,
}

/// Reads until the window closes and tells what was read in it.
pub(crate) fn run(load: &Load) -> anyhow::Result<Value> {
    let consumer: BaseConsumer = client::config(&load.bootstrap)
        .set("group.id", "ottla-bench")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        // A full queue otherwise makes librdkafka pause for a second, which says nothing about brokers.
        .set("fetch.queue.backoff.ms", "1")
        .create()
        .context("cannot make a consumer")?;
    let starts = starts(&consumer, load)?;
    let mut assignment = TopicPartitionList::new();
    for (&partition, &offset) in &starts {
        assignment.add_partition_offset(&load.topic, partition, Offset::Offset(offset))?;
    }
    consumer.assign(&assignment)?;

    let opens = Instant::now() + load.window.warm_up()?;
    read_until(&consumer, load, &starts, opens)?;
    let before = Sample::take(&load.window.processes)?;
    let (records, bytes) = read_until(&consumer, load, &starts, Instant::now() + load.window.length()?)?;
    let after = Sample::take(&load.window.processes)?;

    let seconds = after.seconds_since(&before);
    Ok(json!({
        "seconds": seconds,
        "records": records,
        "payload_bytes": bytes,
        "records_per_second": records as f64 / seconds,
        "cpu_seconds": after.since(&before),
    }))
}

/// Where each partition's share of the newest records begins.
fn starts(consumer: &BaseConsumer, load: &Load) -> anyhow::Result<HashMap<i32, i64>> {
    let metadata = consumer.fetch_metadata(Some(&load.topic), client::ANSWER)?;
    let topic = metadata
        .topics()
        .first()
        .context("the cluster answered without the topic")?;
    let share = load.newest / (topic.partitions().len() as i64).max(1);
    let mut starts = HashMap::new();
    for partition in topic.partitions() {
        let (low, high) = consumer.fetch_watermarks(&load.topic, partition.id(), client::ANSWER)?;
        if high > low {
            starts.insert(partition.id(), low.max(high - share));
        }
    }
    if starts.is_empty() {
        bail!("{} is empty", load.topic);
    }
    Ok(starts)
}

/// Records and payload bytes read until a moment.
fn read_until(
    consumer: &BaseConsumer,
    load: &Load,
    starts: &HashMap<i32, i64>,
    end: Instant,
) -> anyhow::Result<(u64, u64)> {
    let (mut records, mut bytes) = (0, 0);
    let mut heard = Instant::now();
    loop {
        let now = Instant::now();
        if now >= end {
            return Ok((records, bytes));
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                records += 1;
                bytes += message.payload_len() as u64;
                heard = now;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                let start = starts.get(&partition).context("only assigned partitions end")?;
                consumer.seek(&load.topic, partition, Offset::Offset(*start), client::ANSWER)?;
            }
            Some(Err(error)) => return Err(error).context("cannot read"),
            None if now - heard > SILENCE => bail!("no record for {} s", SILENCE.as_secs()),
            None => {}
        }
    }
}
