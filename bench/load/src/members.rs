//! Members of a group that tell what happens to them, as it happens: one JSON object a line, each with the
//! moment (`at`, in seconds since 1970) and the member's number in this process.
//!
//! Whoever started them takes members and brokers away meanwhile, and knows when. The end of standard input
//! tells them to leave; a kill does not let them.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use parking_lot::Mutex;
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance},
    error::KafkaError,
};
use serde_json::{Value, json};

use crate::{
    clock,
    group::{Membership, partitions},
};

/// How long a member waits for its next event before it looks whether it is to leave.
const IDLE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) membership: Membership,
    pub(crate) count: usize,
    /// How often each commits, one commit at a time; never, without it.
    pub(crate) commit_every: Option<Duration>,
}

/// Joins with all members at once, and stays until standard input ends.
pub(crate) fn run(members: &Members) -> anyhow::Result<Value> {
    let leaving = AtomicBool::new(false);
    tell(json!({"event": "starting", "at": clock::now()}));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..members.count)
            .map(|number| {
                let leaving = &leaving;
                scope.spawn(move || {
                    attend(members, number, leaving).inspect_err(|error| {
                        tell(json!({"event": "failed", "at": clock::now(), "member": number, "why": format!("{error:#}")}));
                    })
                })
            })
            .collect();
        let told = io::copy(&mut io::stdin().lock(), &mut io::sink());
        leaving.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("a member does not panic")?;
        }
        told.context("cannot read standard input")
    })?;
    Ok(json!({"event": "left", "at": clock::now()}))
}

/// One member's life.
fn attend(members: &Members, number: usize, leaving: &AtomicBool) -> anyhow::Result<()> {
    let consumer: BaseConsumer<Member> = members
        .membership
        .config(&members.bootstrap, &members.group)
        .create_with_context(Member::new(number))
        .context("cannot make a member")?;
    consumer.subscribe(&[&members.topic])?;
    tell(json!({"event": "subscribed", "at": clock::now(), "member": number}));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let committer = members.commit_every.map(|every| {
            scope.spawn({
                let (consumer, over) = (&consumer, &over);
                move || commit(consumer, &members.topic, every, over)
            })
        });
        let polled = poll(&consumer, leaving);
        over.store(true, Ordering::Relaxed);
        let committed = committer.map(|thread| thread.join().expect("a committer does not panic"));
        polled.and(committed.unwrap_or(Ok(())))
    })?;
    tell(json!({"event": "leaving", "at": clock::now(), "member": number}));
    drop(consumer);
    Ok(())
}

/// Serves the member's callbacks until it is to leave.
fn poll(consumer: &BaseConsumer<Member>, leaving: &AtomicBool) -> anyhow::Result<()> {
    while !leaving.load(Ordering::Relaxed) {
        if let Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) = consumer.poll(IDLE) {
            return Err(error).context("the member is of no use any more");
        }
    }
    Ok(())
}

/// Commits for the first of the member's partitions, once in `every` at most and one commit at a time.
fn commit(
    consumer: &BaseConsumer<Member>,
    topic: &str,
    every: Duration,
    over: &AtomicBool,
) -> anyhow::Result<()> {
    let member = consumer.context();
    let mut offset = 0;
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let owned = member.owned.lock().first().copied();
        if let Some(partition) = owned {
            let mut offsets = TopicPartitionList::new();
            offsets.add_partition_offset(topic, partition, Offset::Offset(offset))?;
            offset += 1;
            let sent = clock::now();
            let refused = consumer.commit(&offsets, CommitMode::Sync).err();
            tell(json!({
                "event": "committed", "at": clock::now(), "member": member.number, "sent": sent,
                "refused": refused.map(|error| error.to_string()),
            }));
        }
        thread::sleep(every.saturating_sub(began.elapsed()));
    }
    Ok(())
}

/// What a member owns; its callbacks tell of it.
#[derive(Debug)]
struct Member {
    number: usize,
    owned: Mutex<BTreeSet<i32>>,
}

impl Member {
    fn new(number: usize) -> Self {
        Self {
            number,
            owned: Mutex::default(),
        }
    }
}

impl ClientContext for Member {}

impl ConsumerContext for Member {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let (event, moved) = match rebalance {
            Rebalance::Assign(list) => ("assigned", partitions(list)),
            Rebalance::Revoke(list) => ("revoked", partitions(list)),
            Rebalance::Error(error) => {
                let why = error.to_string();
                tell(json!({"event": "failed", "at": clock::now(), "member": self.number, "why": why}));
                return;
            }
        };
        let mut owned = self.owned.lock();
        for partition in &moved {
            if event == "assigned" {
                owned.insert(*partition);
            } else {
                owned.remove(partition);
            }
        }
        drop(owned);
        tell(json!({"event": event, "at": clock::now(), "member": self.number, "partitions": moved}));
    }
}

/// One line on standard output. Nobody may listen any more: then there is nobody to tell so either.
fn tell(event: Value) {
    let _ = writeln!(io::stdout().lock(), "{event}");
}
