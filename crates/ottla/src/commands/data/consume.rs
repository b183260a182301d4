//! `ottla consume`: one line a record, from assigned partitions.

use std::{
    io::{BufWriter, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers,
};

use super::{Client, lines::LineFormat};

/// Print the records of a topic as lines on standard output.
#[derive(Debug, clap::Args)]
pub(crate) struct Consume {
    /// The topic.
    topic: String,
    /// Only this partition.
    #[arg(long, short)]
    partition: Option<i32>,
    /// Start with the first record there is; otherwise with the next one written.
    #[arg(long, conflicts_with = "offset")]
    from_beginning: bool,
    /// Start at this offset; −n starts n records before the end.
    #[arg(long, short, requires = "partition", allow_negative_numbers = true)]
    offset: Option<i64>,
    /// End after so many records.
    #[arg(long, short)]
    count: Option<u64>,
    /// End when every partition's end is reached.
    #[arg(long, short)]
    exit: bool,
    #[command(flatten)]
    format: LineFormat,
    #[command(flatten)]
    client: Client,
}

impl Consume {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut config = self.client.config()?;
        // Partitions are assigned here, so no group coordinates; the name is a formality of the library.
        config
            .set("group.id", "ottla-consume")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().context("cannot make a consumer")?;
        let partitions = self.partitions(&consumer)?;
        let mut assignment = TopicPartitionList::new();
        for &partition in &partitions {
            assignment.add_partition_offset(&self.topic, partition, self.start())?;
        }
        consumer
            .assign(&assignment)
            .context("cannot assign the partitions")?;
        self.print(&consumer, partitions.len())
    }

    fn start(&self) -> Offset {
        match self.offset {
            Some(offset @ 0..) => Offset::Offset(offset),
            Some(offset) => Offset::OffsetTail(offset.saturating_neg()),
            None if self.from_beginning => Offset::Beginning,
            None => Offset::End,
        }
    }

    fn partitions(&self, consumer: &BaseConsumer) -> anyhow::Result<Vec<i32>> {
        let metadata = consumer
            .fetch_metadata(Some(&self.topic), Duration::from_secs(30))
            .with_context(|| {
                format!(
                    "the cluster's metadata could not be fetched; is it running at {}?",
                    self.client.bootstrap_server
                )
            })?;
        let topic = metadata
            .topics()
            .first()
            .context("the cluster answered without the topic")?;
        if let Some(error) = topic.error() {
            bail!(
                "topic {}: {}",
                self.topic,
                rdkafka::error::RDKafkaErrorCode::from(error)
            );
        }
        let all: Vec<i32> = topic
            .partitions()
            .iter()
            .map(rdkafka::metadata::MetadataPartition::id)
            .collect();
        match self.partition {
            None => Ok(all),
            Some(partition) => {
                ensure!(
                    all.contains(&partition),
                    "topic {} has no partition {partition}",
                    self.topic
                );
                Ok(vec![partition])
            }
        }
    }

    fn print(&self, consumer: &BaseConsumer, partitions: usize) -> anyhow::Result<ExitCode> {
        let stdout = std::io::stdout();
        let to_terminal = stdout.is_terminal();
        let mut out = BufWriter::new(stdout.lock());
        let mut line = Vec::new();
        let mut printed = 0_u64;
        let mut at_end = std::collections::BTreeSet::new();
        while self.count.is_none_or(|count| printed < count) {
            let message = match consumer.poll(Duration::from_millis(200)) {
                None => {
                    out.flush()?;
                    continue;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    at_end.insert(partition);
                    if self.exit && at_end.len() == partitions {
                        break;
                    }
                    continue;
                }
                Some(Err(error)) => return Err(error).context("reading failed"),
                Some(Ok(message)) => message,
            };
            let headers: Vec<(&str, &[u8])> = message
                .headers()
                .map(|headers| {
                    headers
                        .iter()
                        .map(|header| (header.key, header.value.unwrap_or_default()))
                        .collect()
                })
                .unwrap_or_default();
            line.clear();
            self.format.write(
                &mut line,
                &headers,
                message.key(),
                message.payload().unwrap_or_default(),
            );
            line.push(b'\n');
            if let Err(error) = out
                .write_all(&line)
                .and_then(|()| if to_terminal { out.flush() } else { Ok(()) })
            {
                // A reader that has seen enough, such as `head`.
                if error.kind() == std::io::ErrorKind::BrokenPipe {
                    return Ok(ExitCode::SUCCESS);
                }
                return Err(error).context("cannot write to standard output");
            }
            printed += 1;
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}
