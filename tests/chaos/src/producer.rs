//! Producers: librdkafka as anybody would use it, and a record of how each send ended.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use chaos_checker::{Key, Outcome, Process};
use rdkafka::{
    ClientConfig, ClientContext, Message,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};

use crate::{
    payload,
    random::Random,
    recorder::Recorder,
    work::{Sent, Work, Write, partition_of},
};

/// What is sent to a cluster that is whole has its answer within this.
const ANSWERED: Duration = Duration::from_secs(180);

/// How a producer behaves.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    /// librdkafka's properties, over the common ones.
    pub(crate) properties: HashMap<&'static str, String>,
    /// Between two sends.
    pub(crate) pace: Duration,
    /// After this it is thrown away with all that is on its way, and made anew.
    pub(crate) life: Duration,
    /// Records bear a time that no broker takes: they must be refused, and never be read.
    pub(crate) from_the_future: bool,
}

impl Habits {
    /// Idempotent, acks=all.
    pub(crate) fn idempotent(message_timeout: Duration) -> Self {
        Self {
            properties: HashMap::from([
                ("acks", "all".to_owned()),
                ("enable.idempotence", "true".to_owned()),
                ("message.timeout.ms", message_timeout.as_millis().to_string()),
            ]),
            pace: Duration::from_millis(4),
            life: Duration::from_secs(20),
            from_the_future: false,
        }
    }

    /// With so much time between two sends.
    pub(crate) const fn at_pace(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    /// With compressed batches.
    pub(crate) fn compressing(mut self, codec: &str) -> Self {
        self.properties.insert("compression.type", codec.to_owned());
        self
    }

    /// Sends what must be refused, now and then.
    pub(crate) fn refused() -> Self {
        Self {
            pace: Duration::from_millis(250),
            from_the_future: true,
            ..Self::idempotent(Duration::from_secs(10))
        }
    }
}

/// Where answers go, with the process that waits for them.
#[derive(Clone, Debug)]
struct Answers {
    process: Process,
    recorder: Arc<Recorder>,
}

impl ClientContext for Answers {
    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        self.recorder
            .note(self.process, &format!("{facility}: {message}"));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.recorder.note(self.process, &format!("{error}: {reason}"));
    }
}

impl ProducerContext for Answers {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        let outcome = match result {
            // A negative offset is librdkafka's way of saying that it was not told.
            Ok(message) => Outcome::Acknowledged {
                offset: Some(message.offset()).filter(|&offset| offset >= 0),
            },
            Err((error, _)) if is_refusal(error) => Outcome::Refused {
                error: error.to_string(),
            },
            Err((error, _)) => Outcome::Unknown {
                error: error.to_string(),
            },
        };
        self.recorder.record(self.process, sent.answered(outcome));
    }
}

/// Errors of the record itself: the broker looks at it before it appends anything, and no retry changes
/// what it is.
fn is_refusal(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::InvalidTimestamp | RDKafkaErrorCode::MessageSizeTooLarge)
    )
}

/// Where and what to produce.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    pub(crate) partitions: i32,
}

/// Produces until told to stop, then waits for what is on its way. Fails only where no client can be made.
pub(crate) fn run(
    target: &Target,
    habits: &Habits,
    mut work: impl Work,
    seed: u64,
    recorder: &Arc<Recorder>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut random = Random::new(seed);
    while !stop.load(Ordering::Relaxed) {
        live(target, habits, &mut work, &mut random, recorder, stop)?;
    }
    Ok(())
}

/// One process's life.
fn live(
    target: &Target,
    habits: &Habits,
    work: &mut impl Work,
    random: &mut Random,
    recorder: &Arc<Recorder>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let process = recorder.new_process();
    let producer = client(target, habits, process, recorder)?;
    let death = Instant::now() + habits.life;
    while !stop.load(Ordering::Relaxed) {
        if Instant::now() > death {
            // Dropped with all that is on its way, as a program that crashes would.
            recorder.note(process, "this producer ends without waiting for its answers");
            return Ok(());
        }
        if let Some((code, reason)) = producer.client().fatal_error() {
            recorder.say(&format!("producer {process} cannot go on: {code}: {reason}"));
            return Ok(());
        }
        let write = work.next(process, random);
        recorder.record(process, write.sent.invoked());
        send(&producer, target, habits, write, stop);
        std::thread::sleep(habits.pace);
    }
    if let Err(error) = producer.flush(Duration::from_secs(60)) {
        recorder.note(process, &format!("not everything was answered: {error}"));
    }
    Ok(())
}

fn client(
    target: &Target,
    habits: &Habits,
    process: Process,
    recorder: &Arc<Recorder>,
) -> anyhow::Result<ThreadedProducer<Answers>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &target.bootstrap)
        .set("client.id", format!("chaos-{process}"))
        .set("linger.ms", "5")
        .set("reconnect.backoff.max.ms", "1000");
    for (key, value) in &habits.properties {
        config.set(*key, value);
    }
    config
        .create_with_context(Answers {
            process,
            recorder: Arc::clone(recorder),
        })
        .context("cannot make a producer")
}

/// Hands a record to librdkafka, waiting for room in its queue.
fn send(
    producer: &ThreadedProducer<Answers>,
    target: &Target,
    habits: &Habits,
    write: Write,
    stop: &AtomicBool,
) {
    let mut record: BaseRecord<'_, [u8], [u8], _> =
        BaseRecord::with_opaque_to(&target.topic, Box::new(write.sent)).partition(write.sent.partition());
    record.key = write.key.as_deref();
    record.payload = write.payload.as_deref();
    record.headers = write.headers;
    if habits.from_the_future {
        record = record.timestamp(in_two_days());
    }
    // What could not be handed over was never sent: its send stays without an answer.
    while let Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) = producer.send(record)
    {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        record = back;
        producer.poll(Duration::from_millis(20));
    }
}

/// Milliseconds since 1970; brokers take an hour from now by default.
fn in_two_days() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now + Duration::from_secs(2 * 24 * 3600)).as_millis() as i64
}

/// Sends `count` records of `padding` bytes to partition 0 and waits until each has its answer.
pub(crate) fn burst(
    target: &Target,
    habits: &Habits,
    recorder: &Arc<Recorder>,
    count: u32,
    padding: usize,
) -> anyhow::Result<()> {
    all_at_once(target, habits, recorder, |process| {
        (0..count)
            .map(|sequence| Write::of_value(0, payload::value(process, sequence), padding))
            .collect()
    })
}

/// Writes a key of its own, from `first` on, to the end of each partition, so that no partition ends with a
/// record that compaction may take: who reads up to the last offset is given one there.
pub(crate) fn mark_ends(target: &Target, recorder: &Arc<Recorder>, first: Key) -> anyhow::Result<()> {
    let habits = Habits::idempotent(ANSWERED);
    all_at_once(target, &habits, recorder, |_| {
        (first..first + target.partitions.unsigned_abs())
            .map(|key| Write::of_key(partition_of(key, target.partitions), key, 1, Some(0)))
            .collect()
    })
}

fn all_at_once(
    target: &Target,
    habits: &Habits,
    recorder: &Arc<Recorder>,
    writes: impl FnOnce(Process) -> Vec<Write>,
) -> anyhow::Result<()> {
    let process = recorder.new_process();
    let producer = client(target, habits, process, recorder)?;
    let never = AtomicBool::new(false);
    for write in writes(process) {
        recorder.record(process, write.sent.invoked());
        send(&producer, target, habits, write, &never);
    }
    producer.flush(ANSWERED).context("the burst was not answered")
}
