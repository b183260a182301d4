//! Readers: consumers that follow the partitions while faults happen, and the one that reads everything
//! when all is over.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use chaos_checker::{Event, Partition, Process, Value};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
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
pub(crate) fn run(
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
        live(target, recorder, stop, &mut next, Instant::now() + life)?;
    }
    Ok(())
}

fn live(
    target: &Target,
    recorder: &Recorder,
    stop: &AtomicBool,
    next: &mut BTreeMap<Partition, i64>,
    death: Instant,
) -> anyhow::Result<()> {
    let process = recorder.new_process();
    let consumer = client(target, process)?;
    for partition in 0..target.partitions {
        recorder.record(process, Event::Assigned { partition });
    }
    assign(&consumer, target, next)?;
    let mut given = Given::default();
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
        given.tell(|partition, records| recorder.record(process, Event::Polled { partition, records }));
    }
    given.tell(|partition, records| recorder.record(process, Event::Polled { partition, records }));
    Ok(())
}

/// Records by partition, in the order in which they were given.
#[derive(Debug, Default)]
struct Given {
    records: BTreeMap<Partition, Vec<(i64, Value)>>,
    count: usize,
}

impl Given {
    fn take(&mut self, message: &impl Message) {
        let value = message.payload().and_then(payload::decode).unwrap_or(NOT_OURS);
        self.records
            .entry(message.partition())
            .or_default()
            .push((message.offset(), value));
        self.count += 1;
    }

    fn tell(&mut self, mut to: impl FnMut(Partition, Vec<(i64, Value)>)) {
        self.count = 0;
        for (partition, records) in std::mem::take(&mut self.records) {
            to(partition, records);
        }
    }
}

/// Reads every partition from its beginning to its high watermark, and gives the high watermarks.
pub(crate) fn read_everything(
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
    let mut given = Given::default();
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
    given.tell(|partition, records| recorder.record(process, Event::FinalRead { partition, records }));
    Ok(ends)
}
