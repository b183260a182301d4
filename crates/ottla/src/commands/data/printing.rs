//! What `ottla consume` has printed, and what a group may therefore commit.
//!
//! Offsets are committed only of records whose lines have left this process: at intervals, before
//! partitions are given up, and at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufWriter, ErrorKind, IsTerminal, Stdout, Write},
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};

use super::lines::LineFormat;

/// Whether and when offsets are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commits {
    /// Never.
    None,
    /// Before partitions are given up, and at the end.
    AtTheEnd,
    /// So often, before partitions are given up, and at the end.
    Every(Duration),
}

/// A consumer's lines. The library calls it when partitions come and go.
#[derive(Debug)]
pub(super) struct Printing {
    format: LineFormat,
    commits: Commits,
    /// Whether the group has given this member its share.
    joined: AtomicBool,
    printed: Mutex<Printed>,
}

#[derive(Debug)]
struct Printed {
    out: BufWriter<Stdout>,
    to_terminal: bool,
    line: Vec<u8>,
    reached: Reached,
}

/// How far the partitions were read.
#[derive(Debug, Default)]
struct Reached {
    /// The offset after the last record that was printed and is not committed, by topic and partition.
    next: BTreeMap<String, BTreeMap<i32, i64>>,
    /// Partitions that have nothing more for now. Who asks reads a single topic.
    at_end: BTreeSet<i32>,
}

impl Printing {
    pub(super) fn new(format: LineFormat, commits: Commits) -> Self {
        let stdout = io::stdout();
        Self {
            format,
            commits,
            joined: AtomicBool::new(false),
            printed: Mutex::new(Printed {
                to_terminal: stdout.is_terminal(),
                out: BufWriter::new(stdout),
                line: Vec::new(),
                reached: Reached::default(),
            }),
        }
    }

    /// How often to commit.
    pub(super) fn interval(&self) -> Option<Duration> {
        match self.commits {
            Commits::None | Commits::AtTheEnd => None,
            Commits::Every(interval) => Some(interval),
        }
    }

    /// Whether the group has given this member its share, which may be nothing.
    pub(super) fn has_joined(&self) -> bool {
        self.joined.load(Ordering::Relaxed)
    }

    pub(super) fn print(&self, message: &BorrowedMessage<'_>) -> anyhow::Result<()> {
        let headers: Vec<(&str, &[u8])> = message
            .headers()
            .map(|headers| {
                headers
                    .iter()
                    .map(|header| (header.key, header.value.unwrap_or_default()))
                    .collect()
            })
            .unwrap_or_default();
        let mut printed = self.printed();
        let mut line = mem::take(&mut printed.line);
        line.clear();
        self.format.write(
            &mut line,
            &headers,
            message.key(),
            message.payload().unwrap_or_default(),
        );
        line.push(b'\n');
        let written = printed.out.write_all(&line);
        printed.line = line;
        written.context("cannot write to standard output")?;
        if printed.to_terminal {
            printed.flush()?;
        }
        printed.reached.at_end.remove(&message.partition());
        if !matches!(self.commits, Commits::None) {
            let next = message.offset() + 1;
            printed
                .reached
                .printed(message.topic(), message.partition(), next);
        }
        Ok(())
    }

    /// The end of a partition of the one topic is reached.
    pub(super) fn reached_end(&self, partition: i32) {
        self.printed().reached.at_end.insert(partition);
    }

    /// Whether everything that is assigned has been read to its end.
    pub(super) fn is_done(&self, consumer: &BaseConsumer<Self>) -> anyhow::Result<bool> {
        let assignment = consumer.assignment().context("the assignment is not known")?;
        let partitions = assignment.elements();
        let printed = self.printed();
        Ok(partitions
            .iter()
            .all(|partition| printed.reached.at_end.contains(&partition.partition())))
    }

    pub(super) fn flush(&self) -> anyhow::Result<()> {
        self.printed().flush()
    }

    /// Commits what was printed since the last time; after a failure it is part of the next.
    pub(super) fn commit(&self, consumer: &BaseConsumer<Self>) -> anyhow::Result<()> {
        let mut printed = self.printed();
        printed.flush()?;
        let offsets = printed.reached.offsets()?;
        if offsets.count() > 0 {
            consumer.commit(&offsets, CommitMode::Sync)?;
            printed.reached.next.clear();
        }
        Ok(())
    }

    fn printed(&self) -> MutexGuard<'_, Printed> {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Printed {
    fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush().context("cannot write to standard output")
    }
}

impl Reached {
    fn printed(&mut self, topic: &str, partition: i32, next: i64) {
        match self.next.get_mut(topic) {
            Some(partitions) => {
                partitions.insert(partition, next);
            }
            None => {
                self.next
                    .insert(topic.to_owned(), BTreeMap::from([(partition, next)]));
            }
        }
    }

    /// Another member reads these partitions from now on.
    fn gave_up(&mut self, revoked: &TopicPartitionList) {
        for partition in revoked.elements() {
            self.at_end.remove(&partition.partition());
            if let Some(partitions) = self.next.get_mut(partition.topic()) {
                partitions.remove(&partition.partition());
            }
        }
    }

    fn offsets(&self) -> anyhow::Result<TopicPartitionList> {
        let mut offsets = TopicPartitionList::new();
        for (topic, partitions) in &self.next {
            for (&partition, &next) in partitions {
                offsets.add_partition_offset(topic, partition, Offset::Offset(next))?;
            }
        }
        Ok(offsets)
    }
}

/// Whether a commit came while the group's members change, or its coordinator does: a moment later it is taken.
pub(super) fn comes_too_early(error: &anyhow::Error) -> bool {
    let of_group = |cause: &KafkaError| {
        matches!(
            cause.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::RebalanceInProgress
                    | RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::StaleMemberEpoch
                    | RDKafkaErrorCode::NotCoordinator
                    | RDKafkaErrorCode::CoordinatorNotAvailable
                    | RDKafkaErrorCode::CoordinatorLoadInProgress
                    | RDKafkaErrorCode::WaitingForCoordinator
            )
        )
    };
    error
        .chain()
        .any(|cause| cause.downcast_ref::<KafkaError>().is_some_and(of_group))
}

/// Whether standard output has a reader no more, such as `head` that has seen enough.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let of_pipe = |cause: &io::Error| cause.kind() == ErrorKind::BrokenPipe;
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(of_pipe))
}

impl ClientContext for Printing {}

impl ConsumerContext for Printing {
    /// Partitions that another member gets begin there where this one stopped.
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(revoked) = rebalance {
            self.joined.store(false, Ordering::Relaxed);
            if let Err(error) = self.commit(consumer)
                && !is_broken_pipe(&error)
            {
                eprintln!("ottla: offsets were not committed before a rebalance: {error:#}");
            }
            // Whatever became of it: what is not ours any more is not ours to commit. The others stay, where
            // the group gives up no more than it must.
            self.printed().reached.gave_up(revoked);
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(_) = rebalance {
            self.joined.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Partitions, and the offsets to commit for them.
    fn offsets(reached: &Reached) -> Vec<(i32, i64)> {
        let offsets = reached.offsets().expect("offsets");
        let elements = offsets.elements();
        let pairs = elements.iter().filter_map(|element| match element.offset() {
            Offset::Offset(next) => Some((element.partition(), next)),
            _ => None,
        });
        pairs.collect()
    }

    fn list(partitions: &[(&str, i32)]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        list
    }

    #[test]
    fn what_a_rebalance_refuses_is_tried_again() {
        let refused = |code| anyhow::Error::new(KafkaError::ConsumerCommit(code)).context("told");
        assert!(comes_too_early(&refused(RDKafkaErrorCode::IllegalGeneration)));
        assert!(!comes_too_early(&refused(RDKafkaErrorCode::UnknownMemberId)));
        assert!(!comes_too_early(&io::Error::from(ErrorKind::BrokenPipe).into()));
    }

    #[test]
    fn only_what_is_given_up_is_forgotten() {
        let mut reached = Reached::default();
        for partition in 0..3 {
            reached.printed("orders", partition, 10);
            reached.at_end.insert(partition);
        }
        reached.gave_up(&list(&[("orders", 1)]));
        assert_eq!(offsets(&reached), [(0, 10), (2, 10)]);
        // Without a record no end is told again: those that stay are still at theirs.
        assert_eq!(reached.at_end, BTreeSet::from([0, 2]));
        reached.gave_up(&list(&[("orders", 0), ("orders", 2)]));
        assert_eq!((offsets(&reached), reached.at_end.len()), (vec![], 0));
    }
}
