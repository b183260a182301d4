//! `ottla consume`: one line a record, from partitions that are assigned here, or as a member of a group.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio_util::sync::CancellationToken;

use super::{
    Client,
    complaints::Complaints,
    lines::LineFormat,
    printing::{Commits, Printing, comes_too_early, is_broken_pipe},
};
use crate::roles::signals;

/// How long one look for a record takes: a signal is noticed by then.
const LOOK: Duration = Duration::from_millis(200);
/// How often a group's offsets are committed, as Kafka's `auto.commit.interval.ms` has it by default.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// How long the last commit may take, where a rebalance is under way.
const LAST_COMMIT: Duration = Duration::from_secs(30);

/// Print the records of topics as lines on standard output.
#[derive(Debug, clap::Args)]
pub(crate) struct Consume {
    /// The topics; with --group also regular expressions, which begin with ^.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Read as a member of this group: share the partitions with its other members, go on where the group
    /// stopped, and commit what was printed.
    #[arg(long, short, value_name = "ID")]
    group: Option<String>,
    /// Only this partition.
    #[arg(long, short, conflicts_with = "group")]
    partition: Option<i32>,
    /// Start with the first record there is, otherwise with the next one written; with --group where nothing
    /// is committed yet.
    #[arg(long, conflicts_with = "offset")]
    from_beginning: bool,
    /// Start at this offset; −n starts n records before the end.
    #[arg(long, short, requires = "partition", allow_negative_numbers = true)]
    offset: Option<i64>,
    /// End after so many records.
    #[arg(long, short)]
    count: Option<u64>,
    /// End when every partition's end is reached; with --group, of those that this member has.
    #[arg(long, short)]
    exit: bool,
    #[command(flatten)]
    format: LineFormat,
    #[command(flatten)]
    client: Client,
}

impl Consume {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(
            self.topics.len() == 1 || self.partition.is_none(),
            "--partition needs a single topic"
        );
        ensure!(
            !self.exit || (self.topics.len() == 1 && !self.topics[0].starts_with('^')),
            "--exit needs a single topic: the ends of several cannot be told apart"
        );
        // For the signals alone: the consumer has threads of its own.
        let signals = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let stop = {
            let _inside = signals.enter();
            signals::watch()?
        };
        let consumed = match &self.group {
            Some(group) => self.as_member(group, &stop),
            None => self.assigned(&stop),
        };
        signals.shutdown_background();
        match consumed {
            // A reader that has seen enough, such as `head`.
            Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            consumed => consumed.map(|()| ExitCode::SUCCESS),
        }
    }

    /// Reads partitions that are assigned here.
    fn assigned(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut config = self.client.config()?;
        // No group coordinates; the name is a formality of the library.
        config
            .set("group.id", "ottla-consume")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer<Printing> = config
            .create_with_context(Printing::new(self.format.clone(), Commits::None))
            .context("cannot make a consumer")?;
        let mut assignment = TopicPartitionList::new();
        for topic in &self.topics {
            for partition in self.partitions(&consumer, topic)? {
                assignment.add_partition_offset(topic, partition, self.start())?;
            }
        }
        consumer
            .assign(&assignment)
            .context("cannot assign the partitions")?;
        self.print(&consumer, stop)
    }

    /// Reads what the group gives this member, and leaves the group at the end.
    fn as_member(&self, group: &str, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut config = self.client.config()?;
        // As Kafka's consumers have it unless they are told otherwise, but of what was printed: so it is done
        // here.
        let commits = commits(&config)?;
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        if config.get("auto.offset.reset").is_none() {
            let reset = if self.from_beginning { "earliest" } else { "latest" };
            config.set("auto.offset.reset", reset);
        }
        let consumer: BaseConsumer<Printing> = config
            .create_with_context(Printing::new(self.format.clone(), commits))
            .context("cannot make a consumer")?;
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).context("cannot subscribe")?;
        // Dropped, the consumer leaves the group, whatever came of it.
        self.print(&consumer, stop)
    }

    fn start(&self) -> Offset {
        match self.offset {
            Some(offset @ 0..) => Offset::Offset(offset),
            Some(offset) => Offset::OffsetTail(offset.saturating_neg()),
            None if self.from_beginning => Offset::Beginning,
            None => Offset::End,
        }
    }

    fn partitions(&self, consumer: &BaseConsumer<Printing>, topic: &str) -> anyhow::Result<Vec<i32>> {
        let metadata = consumer
            .fetch_metadata(Some(topic), Duration::from_secs(30))
            .with_context(|| {
                format!(
                    "the cluster's metadata could not be fetched; is it running at {}?",
                    self.client.bootstrap_server
                )
            })?;
        let found = metadata
            .topics()
            .first()
            .context("the cluster answered without the topic")?;
        if let Some(error) = found.error() {
            bail!("topic {topic}: {}", RDKafkaErrorCode::from(error));
        }
        let all: Vec<i32> = found
            .partitions()
            .iter()
            .map(rdkafka::metadata::MetadataPartition::id)
            .collect();
        match self.partition {
            None => Ok(all),
            Some(partition) => {
                ensure!(
                    all.contains(&partition),
                    "topic {topic} has no partition {partition}"
                );
                Ok(vec![partition])
            }
        }
    }

    /// Prints what comes until there is enough, or `stop`; then commits what was printed.
    fn print(&self, consumer: &BaseConsumer<Printing>, stop: &CancellationToken) -> anyhow::Result<()> {
        let printing = consumer.context();
        let mut complaints = Complaints::default();
        let mut committed = Instant::now();
        let mut printed = 0_u64;
        while self.count.is_none_or(|count| printed < count) && !stop.is_cancelled() {
            if printing
                .interval()
                .is_some_and(|interval| committed.elapsed() >= interval)
            {
                // What could not be committed now is committed with what comes after it.
                match printing.commit(consumer) {
                    Err(error) if is_broken_pipe(&error) => return Err(error),
                    Err(error) if !comes_too_early(&error) => {
                        eprintln!("ottla: offsets were not committed: {error:#}");
                    }
                    Ok(()) | Err(_) => {}
                }
                committed = Instant::now();
            }
            match consumer.poll(LOOK) {
                None => {
                    printing.flush()?;
                    if self.exit && printing.has_joined() && printing.is_done(consumer)? {
                        break;
                    }
                }
                Some(Ok(message)) => {
                    printing.print(&message)?;
                    printed += 1;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    printing.reached_end(partition);
                    if self.exit && printing.is_done(consumer)? {
                        break;
                    }
                }
                Some(Err(error)) if self.group.is_some() && passes(&error) => {
                    let sentence = error.to_string();
                    if complaints.is_due(&sentence, Instant::now()) {
                        eprintln!("ottla: {sentence}");
                    }
                }
                Some(Err(error)) => {
                    // What was read until now counts.
                    commit_at_last(consumer)?;
                    return Err(error).context("reading failed");
                }
            }
        }
        commit_at_last(consumer)
    }
}

/// Commits what was printed, before the member leaves. Where the group is being shared anew it takes a moment: the
/// library goes on with that by itself.
fn commit_at_last(consumer: &BaseConsumer<Printing>) -> anyhow::Result<()> {
    let deadline = Instant::now() + LAST_COMMIT;
    loop {
        match consumer.context().commit(consumer) {
            Err(error) if comes_too_early(&error) && Instant::now() < deadline => thread::sleep(LOOK),
            committed => return committed.context("what was printed could not be committed"),
        }
    }
}

/// Whether a member of a group goes on after this: brokers come back, and topics may come to be.
fn passes(error: &KafkaError) -> bool {
    match error {
        KafkaError::MessageConsumptionFatal(_) => false,
        KafkaError::MessageConsumption(code) => !matches!(code, RDKafkaErrorCode::AutoOffsetReset),
        _ => false,
    }
}

/// When to commit: the library's own settings, with the values that it takes for them.
fn commits(config: &ClientConfig) -> anyhow::Result<Commits> {
    let wanted = match config.get("enable.auto.commit") {
        None => true,
        Some(value) => match value.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" => true,
            "false" | "f" | "0" => false,
            _ => bail!("enable.auto.commit={value} is neither true nor false"),
        },
    };
    let interval = match config.get("auto.commit.interval.ms") {
        None => COMMIT_INTERVAL,
        Some(ms) => {
            let ms = ms
                .parse()
                .with_context(|| format!("auto.commit.interval.ms={ms} is no number of milliseconds"))?;
            Duration::from_millis(ms)
        }
    };
    Ok(match interval {
        _ if !wanted => Commits::None,
        Duration::ZERO => Commits::AtTheEnd,
        interval => Commits::Every(interval),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commits_with(settings: &[(&str, &str)]) -> Option<Commits> {
        let mut config = ClientConfig::new();
        for (name, value) in settings {
            config.set(*name, *value);
        }
        commits(&config).ok()
    }

    #[test]
    fn settings_of_commits_mean_what_they_mean_to_the_library() {
        let every = |ms| Some(Commits::Every(Duration::from_millis(ms)));
        assert_eq!(commits_with(&[]), every(5000));
        for (value, expected) in [
            ("true", every(5000)),
            ("True", every(5000)),
            ("t", every(5000)),
            ("1", every(5000)),
            ("false", Some(Commits::None)),
            ("FALSE", Some(Commits::None)),
            ("f", Some(Commits::None)),
            ("0", Some(Commits::None)),
            ("yes", None),
            ("", None),
        ] {
            assert_eq!(
                commits_with(&[("enable.auto.commit", value)]),
                expected,
                "{value}"
            );
        }
        for (value, expected) in [("100", every(100)), ("0", Some(Commits::AtTheEnd)), ("-1", None)] {
            assert_eq!(
                commits_with(&[("auto.commit.interval.ms", value)]),
                expected,
                "{value}"
            );
        }
    }
}
