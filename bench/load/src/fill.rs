//! A number of records whose keys come again and again: what compaction has to do.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rdkafka::{
    ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use serde_json::{Value, json};

use crate::{
    client,
    produce::{FULL, filler},
};

/// At the end, for what is still on its way.
const DRAIN: Duration = Duration::from_secs(60);
/// Records on their way at a time.
const IN_FLIGHT: u64 = 16_384;

#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    pub(crate) records: u64,
    pub(crate) keys: u64,
    pub(crate) record_bytes: usize,
}

#[derive(Debug, Default)]
struct Deliveries {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() {
            &self.acknowledged
        } else {
            &self.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes them all with acks=all.
pub(crate) fn run(load: &Load) -> anyhow::Result<Value> {
    let producer: ThreadedProducer<Deliveries> = client::config(&load.bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .create_with_context(Deliveries::default())
        .context("cannot make a producer")?;
    let deliveries = producer.client().context();
    let started = Instant::now();
    let mut payload = filler(load.record_bytes);
    for number in 0..load.records {
        let key = key(number, load.keys).to_be_bytes();
        let stamp = number.to_be_bytes();
        let stamped = stamp.len().min(payload.len());
        payload[..stamped].copy_from_slice(&stamp[..stamped]);
        let done =
            || deliveries.acknowledged.load(Ordering::Relaxed) + deliveries.failed.load(Ordering::Relaxed);
        while number - done() >= IN_FLIGHT {
            thread::sleep(FULL);
        }
        let mut record = BaseRecord::to(&load.topic).key(&key[..]).payload(&payload);
        while let Err((error, back)) = producer.send(record) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(error).context("cannot send");
            }
            record = back;
            thread::sleep(FULL);
        }
    }
    producer.flush(DRAIN).context("not everything was acknowledged")?;
    let failed = deliveries.failed.load(Ordering::Relaxed);
    if failed > 0 {
        bail!("{failed} records failed");
    }
    Ok(json!({"records": load.records, "keys": load.keys, "seconds": started.elapsed().as_secs_f64()}))
}

/// Which key a record has: as if drawn at random, but the same ones for everybody.
fn key(number: u64, keys: u64) -> u64 {
    // splitmix64
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % keys.max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_comes_about_as_often() {
        let keys: BTreeSet<u64> = (0..10_000).map(|number| key(number, 100)).collect();
        assert_eq!(keys, (0..100).collect());
        let first = (0..10_000).filter(|&number| key(number, 100) == 0).count();
        assert!((50..150).contains(&first), "{first}");
    }
}
