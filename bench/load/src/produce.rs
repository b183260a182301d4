//! Records with acks=all: as fast as acknowledgements allow, or on a schedule.
//!
//! On a schedule (open loop) a latency counts from the moment at which the record was *to be* sent: a client
//! that is held up must not hide from the figures that later records waited too.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use parking_lot::Mutex;
use rdkafka::{
    ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use serde_json::{Value, json};

use crate::{
    client,
    latency::Latencies,
    usage::Sample,
    window::{Edges, Window},
};

/// After the end, for what is still on its way.
const DRAIN: Duration = Duration::from_secs(30);
/// While the client has as much on its way as it may. Thousands of records are: it does not run dry.
pub(crate) const FULL: Duration = Duration::from_micros(500);

#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    pub(crate) window: Window,
    pub(crate) edges: Edges,
    pub(crate) record_bytes: usize,
    pub(crate) pace: Pace,
    pub(crate) linger_ms: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As many records on their way as this, always.
    Saturating { in_flight: usize },
    /// Each record at its time.
    Scheduled { per_second: u32 },
}

/// What was acknowledged and what was not.
#[derive(Debug)]
struct Deliveries {
    started: Instant,
    /// Acknowledgements count while the window is open.
    open: AtomicBool,
    on_their_way: AtomicUsize,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    latencies: Latencies,
    failed: usize,
    first_failure: Option<String>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    /// Nanoseconds from the start to when the record was sent, or was to be sent.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, due: usize) {
        let now = self.started.elapsed();
        self.on_their_way.fetch_sub(1, Ordering::Relaxed);
        match result {
            Ok(_) if self.open.load(Ordering::Relaxed) => {
                let latency = now.saturating_sub(Duration::from_nanos(due as u64));
                self.tally.lock().latencies.add(latency);
            }
            Ok(_) => {}
            Err((error, _)) => {
                let mut tally = self.tally.lock();
                tally.failed += 1;
                tally.first_failure.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// Produces until the window closes, waits for what is on its way, and tells what happened in the window.
pub(crate) fn run(load: &Load) -> anyhow::Result<Value> {
    let producer: ThreadedProducer<Deliveries> = client::config(&load.bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", load.linger_ms.to_string())
        .set("message.timeout.ms", "30000")
        .create_with_context(Deliveries {
            started: Instant::now(),
            open: AtomicBool::new(false),
            on_their_way: AtomicUsize::new(0),
            tally: Mutex::default(),
        })
        .context("cannot make a producer")?;
    let deliveries = producer.client().context();

    let ended = AtomicBool::new(false);
    let (before, after) = thread::scope(|scope| -> anyhow::Result<(Sample, Sample)> {
        let sender = scope.spawn(|| send(&producer, load, deliveries, &ended));
        let window = load.window.observe(load.edges, &deliveries.open);
        ended.store(true, Ordering::Relaxed);
        sender.join().expect("the sender does not panic")?;
        window
    })?;
    let flushed = producer.flush(DRAIN);

    let tally = std::mem::take(&mut *deliveries.tally.lock());
    let seconds = after.seconds_since(&before);
    let records = tally.latencies.count();
    Ok(json!({
        "seconds": seconds,
        "records": records,
        "payload_bytes": records * load.record_bytes,
        "records_per_second": records as f64 / seconds,
        "acknowledgement_ms": tally.latencies.summary(),
        "failed": tally.failed,
        "first_failure": tally.first_failure,
        "drained": flushed.is_ok(),
        "cpu_seconds": after.since(&before),
    }))
}

fn send(
    producer: &ThreadedProducer<Deliveries>,
    load: &Load,
    deliveries: &Deliveries,
    ended: &AtomicBool,
) -> anyhow::Result<()> {
    let mut payload = filler(load.record_bytes);
    let mut number: u64 = 0;
    while !ended.load(Ordering::Relaxed) {
        let due = match load.pace {
            Pace::Saturating { in_flight } => {
                if deliveries.on_their_way.load(Ordering::Relaxed) >= in_flight {
                    thread::sleep(FULL);
                    continue;
                }
                deliveries.started.elapsed()
            }
            Pace::Scheduled { per_second } => {
                let due = Duration::from_nanos(number * 1_000_000_000 / u64::from(per_second));
                thread::sleep(due.saturating_sub(deliveries.started.elapsed()));
                due
            }
        };
        let stamp = number.to_be_bytes();
        let stamped = stamp.len().min(payload.len());
        payload[..stamped].copy_from_slice(&stamp[..stamped]);
        number += 1;
        hand_over(producer, load, deliveries, &payload, due)?;
    }
    Ok(())
}

fn hand_over(
    producer: &ThreadedProducer<Deliveries>,
    load: &Load,
    deliveries: &Deliveries,
    payload: &[u8],
    due: Duration,
) -> anyhow::Result<()> {
    let mut record =
        BaseRecord::<(), [u8], usize>::with_opaque_to(&load.topic, due.as_nanos() as usize).payload(payload);
    deliveries.on_their_way.fetch_add(1, Ordering::Relaxed);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                thread::sleep(FULL);
            }
            Err((error, _)) => return Err(error).context("cannot send"),
        }
    }
}

/// Bytes that no disk and no wire can make smaller.
pub(crate) fn filler(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    (0..length)
        .map(|_| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}
