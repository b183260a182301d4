//! Readers: consumers that follow the partitions while faults happen, and the one that reads everything
//! when all is over.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use chaos_checker::{Event, Holder, Key, KeyRecord, Partition, Process, Value, Version};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::{BorrowedMessage, Headers as _},
};

use crate::{payload, producer::Target, random::Random, recorder::Recorder};

/// A reader that sees nothing new tells what it has after this.
const POLL: Duration = Duration::from_millis(200);
/// Records that go into one event of the history at most.
const MOST: usize = 500;
/// How many records a reader that is made anew reads a second time.
const AGAIN: u64 = 200;
/// What a record is called that carries no value of ours: no send ever has this one.
const NOT_OURS: Value = Value::MAX;

/// What a topic's records are to the history.
pub(crate) trait Content {
    /// A record as it is told.
    type Record: Debug;

    /// What a reader was given.
    fn record(message: &BorrowedMessage<'_>) -> Self::Record;
    /// A reader begins somewhere.
    fn assigned(partition: Partition) -> Event;
    /// A reader was given these.
    fn polled(partition: Partition, records: Vec<Self::Record>) -> Event;
    /// These are there at the end.
    fn at_the_end(partition: Partition, records: Vec<Self::Record>) -> Event;
}

/// The topic where each record counts.
#[derive(Debug)]
pub(crate) struct OfValues;

impl Content for OfValues {
    type Record = (i64, Value);

    fn record(message: &BorrowedMessage<'_>) -> Self::Record {
        let value = message.payload().and_then(payload::decode).unwrap_or(NOT_OURS);
        (message.offset(), value)
    }

    fn assigned(partition: Partition) -> Event {
        Event::Assigned { partition }
    }

    fn polled(partition: Partition, records: Vec<Self::Record>) -> Event {
        Event::Polled { partition, records }
    }

    fn at_the_end(partition: Partition, records: Vec<Self::Record>) -> Event {
        Event::FinalRead { partition, records }
    }
}

/// The compacted topic.
#[derive(Debug)]
pub(crate) struct OfKeys;

impl Content for OfKeys {
    type Record = KeyRecord;

    fn record(message: &BorrowedMessage<'_>) -> Self::Record {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let headers = headers.map(|header| (header.key.as_bytes(), header.value));
        key_record(message.offset(), message.key(), message.payload(), headers)
    }

    fn assigned(partition: Partition) -> Event {
        Event::KeyAssigned { partition }
    }

    fn polled(partition: Partition, records: Vec<Self::Record>) -> Event {
        Event::KeysPolled { partition, records }
    }

    fn at_the_end(partition: Partition, records: Vec<Self::Record>) -> Event {
        Event::KeysAtTheEnd {
            partition,
            holder: Holder::Clients,
            records,
        }
    }
}

/// A record of the compacted topic, wherever it was read.
pub(crate) fn key_record<'a>(
    offset: i64,
    key: Option<&[u8]>,
    payload: Option<&[u8]>,
    headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) -> KeyRecord {
    let decoded = payload::decode_key(key, payload, headers);
    // What is not ours was sent by nobody.
    let (key, version) = decoded.unwrap_or((Key::MAX, Version::MAX));
    KeyRecord {
        offset,
        key,
        version,
        tombstone: payload.is_none(),
    }
}

fn client(target: &Target, process: Process) -> anyhow::Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", &target.bootstrap)
        .set("client.id", format!("chaos-{process}"))
        // Needed for an assignment; no group is ever joined.
        .set("group.id", "chaos")
        .set("enable.auto.commit", "false")
        // An offset that is out of range must not go unnoticed.
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("reconnect.backoff.max.ms", "1000")
        .create()
        .context("cannot make a consumer")
}

fn assign(consumer: &BaseConsumer, target: &Target, from: &BTreeMap<Partition, i64>) -> anyhow::Result<()> {
    let mut assignment = TopicPartitionList::new();
    for partition in 0..target.partitions {
        let offset = from
            .get(&partition)
            .map_or(Offset::Beginning, |&offset| Offset::Offset(offset));
        assignment.add_partition_offset(&target.topic, partition, offset)?;
    }
    consumer
        .assign(&assignment)
        .context("cannot assign the partitions")
}

/// Reads until told to stop; now and then as a new process that begins a little earlier.
pub(crate) fn run<C: Content>(
    target: &Target,
    seed: u64,
    recorder: &Arc<Recorder>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut random = Random::new(seed);
    let mut next = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        for position in next.values_mut() {
            *position = i64::max(0, *position - random.below(AGAIN) as i64);
        }
        let life = Duration::from_secs(random.between(8, 25));
        live::<C>(target, recorder, stop, &mut next, Instant::now() + life)?;
    }
    Ok(())
}

fn live<C: Content>(
    target: &Target,
    recorder: &Recorder,
    stop: &AtomicBool,
    next: &mut BTreeMap<Partition, i64>,
    death: Instant,
) -> anyhow::Result<()> {
    let process = recorder.new_process();
    let consumer = client(target, process)?;
    for partition in 0..target.partitions {
        recorder.record(process, C::assigned(partition));
    }
    assign(&consumer, target, next)?;
    let mut given = Given::<C>::default();
    while !stop.load(Ordering::Relaxed) && Instant::now() < death {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                next.insert(message.partition(), message.offset() + 1);
                given.take(&message);
                if given.count < MOST {
                    continue;
                }
            }
            Some(Err(error)) => {
                recorder.note(process, &format!("reading: {error}"));
                // After an offset out of range the partition would stand still: it goes on where it was.
                if error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::AutoOffsetReset) {
                    assign(&consumer, target, next)?;
                }
            }
            None => {}
        }
        given.tell(|partition, records| recorder.record(process, C::polled(partition, records)));
    }
    given.tell(|partition, records| recorder.record(process, C::polled(partition, records)));
    Ok(())
}

/// Records by partition, in the order in which they were given.
#[derive(Debug)]
struct Given<C: Content> {
    records: BTreeMap<Partition, Vec<C::Record>>,
    count: usize,
}

impl<C: Content> Default for Given<C> {
    fn default() -> Self {
        Self {
            records: BTreeMap::new(),
            count: 0,
        }
    }
}

impl<C: Content> Given<C> {
    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let records = self.records.entry(message.partition()).or_default();
        records.push(C::record(message));
        self.count += 1;
    }

    fn tell(&mut self, mut to: impl FnMut(Partition, Vec<C::Record>)) {
        self.count = 0;
        for (partition, records) in std::mem::take(&mut self.records) {
            to(partition, records);
        }
    }
}

/// Reads every partition from its beginning to its high watermark, and gives the high watermarks.
pub(crate) fn read_everything<C: Content>(
    target: &Target,
    recorder: &Recorder,
    patience: Duration,
) -> anyhow::Result<BTreeMap<Partition, i64>> {
    let process = recorder.new_process();
    let consumer = client(target, process)?;
    let mut ends = BTreeMap::new();
    for partition in 0..target.partitions {
        let (_, high) = consumer
            .fetch_watermarks(&target.topic, partition, patience)
            .with_context(|| format!("partition {partition} does not tell its high watermark"))?;
        ends.insert(partition, high);
    }
    assign(&consumer, target, &BTreeMap::new())?;
    let mut given = Given::<C>::default();
    let mut missing: BTreeMap<Partition, i64> = ends
        .iter()
        .filter(|&(_, &end)| end > 0)
        .map(|(&partition, &end)| (partition, end))
        .collect();
    let mut last_progress = Instant::now();
    while !missing.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                last_progress = Instant::now();
                let partition = message.partition();
                if message.offset() < ends[&partition] {
                    given.take(&message);
                }
                if message.offset() + 1 >= ends[&partition] {
                    missing.remove(&partition);
                }
            }
            Some(Err(error)) => recorder.note(process, &format!("the final read: {error}")),
            None if last_progress.elapsed() > patience => {
                bail!(
                    "partitions {:?} cannot be read to their high watermarks {missing:?}",
                    missing.keys()
                );
            }
            None => {}
        }
    }
    for partition in 0..target.partitions {
        given.records.entry(partition).or_default();
    }
    given.tell(|partition, records| recorder.record(process, C::at_the_end(partition, records)));
    Ok(ends)
}
