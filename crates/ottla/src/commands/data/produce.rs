//! `ottla produce`: one record a line, acknowledged by all in-sync replicas.

use std::{
    io::{BufRead, IsTerminal},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rdkafka::{
    ClientContext, Message,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};

use super::{Client, lines::LineFormat};

/// Write lines from standard input to a topic.
#[derive(Debug, clap::Args)]
pub(crate) struct Produce {
    /// The topic.
    topic: String,
    /// Write to this partition instead of the one that the key gives.
    #[arg(long, short)]
    partition: Option<i32>,
    #[command(flatten)]
    format: LineFormat,
    #[command(flatten)]
    client: Client,
}

/// Counts what was acknowledged and what was not.
#[derive(Default)]
struct Deliveries {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, message)) => {
                // The first failures say why; a count says how many.
                if self.failed.fetch_add(1, Ordering::Relaxed) < 5 {
                    eprintln!(
                        "ottla: a record for partition {} failed: {error}",
                        message.partition()
                    );
                }
            }
        }
    }
}

impl Produce {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut config = self.client.config()?;
        // What the command line says goes first; these are defaults.
        for (key, value) in [
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("linger.ms", "5"),
        ] {
            if config.get(key).is_none() {
                config.set(key, value);
            }
        }
        let producer: ThreadedProducer<Deliveries> = config
            .create_with_context(Deliveries::default())
            .context("cannot make a producer")?;
        let progress = progress();
        let mut sent = 0_u64;
        for line in std::io::stdin().lock().lines() {
            let line = line.context("cannot read standard input")?;
            self.send(&producer, &line)
                .with_context(|| format!("line {}", sent + 1))?;
            sent += 1;
            progress.set_position(producer.context().acknowledged.load(Ordering::Relaxed));
        }
        producer
            .flush(Duration::from_secs(300))
            .context("not everything was acknowledged")?;
        progress.finish_and_clear();
        let failed = producer.context().failed.load(Ordering::Relaxed);
        if failed > 0 {
            bail!("{failed} of {sent} records were not acknowledged");
        }
        if std::io::stderr().is_terminal() {
            eprintln!("{sent} records acknowledged");
        }
        Ok(ExitCode::SUCCESS)
    }

    fn send(&self, producer: &ThreadedProducer<Deliveries>, line: &str) -> anyhow::Result<()> {
        let cut = self.format.parse(line)?;
        let mut record: BaseRecord<'_, str, str> = BaseRecord::to(&self.topic).payload(cut.value);
        if let Some(key) = cut.key {
            record = record.key(key);
        }
        if let Some(partition) = self.partition {
            record = record.partition(partition);
        }
        if !cut.headers.is_empty() {
            let headers = cut
                .headers
                .into_iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| {
                    headers.insert(Header {
                        key,
                        value: Some(value),
                    })
                });
            record = record.headers(headers);
        }
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    producer.poll(Duration::from_millis(50));
                    // Acknowledgements empty the queue; waiting for one is not a sleep.
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
}

/// Drawn on a terminal only.
fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{pos} records acknowledged, {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::no_length().with_style(style)
}
