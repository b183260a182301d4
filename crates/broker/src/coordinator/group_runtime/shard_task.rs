//! One led partition of `__consumer_offsets`: loads its groups, then serves them in rounds.
//!
//! ```text
//!   handlers ──▶ queue ──▶ round: everything that is there ──▶ one batch ──▶ the log
//!                             │ answers that tell nothing new                 │ high watermark
//!                             ▼                                               ▼
//!                          at once                              answers that waited for it
//! ```
//! The shard changes its state before the records are committed; the next round is decided while the
//! batch of the last one is on its way to the followers. A batch that cannot be appended makes that
//! state void: the shard is dropped and loaded again, and writes rest for a while.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocol::{ErrorCode, LeaderEpoch, Offset, TopicPartition};
use replication::{Acks, AppendRefused, Partition, ProgressListener};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::counts;
use super::journal;
use super::loader::{self, LoadError, Loaded};
use super::pauses::{Backoff, WritePause};
use super::settings::Settings;
use super::topics::Topics;
use crate::coordinator::group::{
    Answer, Barrier, Caller, CoordinatorRecord, GroupReply, GroupRequest, GroupShard, Outcome, ReplyToken,
};
use crate::metric_names;

/// Requests that may wait for a shard; more are told to come again.
pub(super) const QUEUE: usize = 8192;
/// Requests that are decided in one round.
const ROUND: usize = 512;
/// Bytes of records from which on a round is closed.
const ROUND_BYTES: usize = 512 << 10;
/// How long a round is decided before it is closed: the target of a group of thousands takes milliseconds, and
/// each of its members that joins asks for one, while others wait and a worker is held.
const ROUND_TIME: Duration = Duration::from_millis(20);
/// How often it is looked whether a shard can write again whose timers are due.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How a request is answered: with a reply of the shard, or refused.
pub(super) type Reply = oneshot::Sender<Result<GroupReply, ErrorCode>>;

/// What a shard is asked to do.
pub(super) enum Job {
    /// A client's request.
    Request {
        /// Who asks.
        caller: Caller,
        /// What.
        request: Box<GroupRequest>,
        /// Where the answer goes.
        reply: Reply,
    },
    /// Topics are gone, and with them what was committed for them.
    TopicsDeleted(Vec<String>),
    /// A look at the shard between two rounds.
    Look(Look),
}

/// Runs between two rounds; must be quick.
pub(super) type Look = Box<dyn FnOnce(&GroupShard) + Send>;

/// What a task is told at its start.
pub(super) struct ShardTask {
    pub(super) partition: Arc<Partition>,
    pub(super) epoch: LeaderEpoch,
    pub(super) queue: mpsc::Receiver<Job>,
    /// True while requests are taken; the service refuses them otherwise.
    pub(super) serving: Arc<AtomicBool>,
    /// Topics that are gone, until what was committed for them is too.
    pub(super) deleted_topics: Vec<String>,
    /// Whether writes rest after one that failed.
    pub(super) writes: WritePause,
    /// The cluster's topics as groups see them.
    pub(super) topics: Topics,
    /// What is set for groups.
    pub(super) settings: Settings,
    /// `offsets.commit.timeout.ms`.
    pub(super) commit_timeout: Duration,
    /// Cancelled when the metadata names another leader, or the broker ends.
    pub(super) stop: CancellationToken,
}

/// Why a shard is not served any more.
enum End {
    /// Another broker leads, or this one does in another epoch.
    Lost,
    /// A batch was not appended.
    Failed(AppendRefused),
}

/// Wakes the task when its partition moves.
struct Waker(Arc<Notify>);

impl ProgressListener for Waker {
    fn progressed(&self, _: TopicPartition) {
        self.0.notify_one();
    }
}

impl ShardTask {
    /// Runs until the leadership is lost.
    pub(super) async fn run(mut self) {
        let moved = Arc::new(Notify::new());
        let listener: Arc<dyn ProgressListener> = Arc::new(Waker(Arc::clone(&moved)));
        let _subscription = self.partition.subscribe_high_watermark(listener);
        let clock = Clock::start();
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.load_and_serve(&moved, clock) => {}
        }
        self.serving.store(false, Ordering::Release);
        tracing::info!(partition = %self.index(), epoch = %self.epoch, "not coordinating any more");
        // Whoever still waits finds the queue dropped, and is told that this is not the coordinator.
    }

    fn index(&self) -> protocol::PartitionIndex {
        self.partition.tp().partition
    }

    async fn load_and_serve(&mut self, moved: &Arc<Notify>, clock: Clock) {
        let mut load_again = Backoff::default();
        loop {
            let began = Instant::now();
            let config = self.settings.borrow_and_update().clone();
            let topics = Arc::clone(&self.topics.borrow_and_update());
            match loader::load(&self.partition, self.epoch, moved, config, topics, clock).await {
                Ok(loaded) => {
                    let took = began.elapsed();
                    metrics::histogram!(metric_names::GROUP_LOAD_SECONDS).record(took.as_secs_f64());
                    tracing::info!(
                        partition = %self.index(), epoch = %self.epoch, records = loaded.records,
                        skipped = loaded.skipped, took_ms = took.as_millis() as u64, "coordinating groups"
                    );
                    load_again.reset();
                    self.writes.loaded(Instant::now());
                    self.serving.store(true, Ordering::Release);
                    let end = Round::new(self, loaded, clock).serve(moved).await;
                    self.serving.store(false, Ordering::Release);
                    match end {
                        End::Lost => return,
                        End::Failed(error) => {
                            let rest = self.writes.begin(error, Instant::now());
                            tracing::warn!(
                                partition = %self.index(), %error, rest_ms = rest.as_millis() as u64,
                                "groups are loaded again, and writes rest: a batch was not appended"
                            );
                            self.refuse_queued(journal::code_of(error));
                            continue;
                        }
                    }
                }
                Err(LoadError::Lost) => return,
                Err(error) => {
                    tracing::error!(partition = %self.index(), %error, "groups cannot be loaded yet");
                }
            }
            tokio::time::sleep(load_again.wait()).await;
        }
    }

    fn refuse_queued(&mut self, why: ErrorCode) {
        while let Ok(job) = self.queue.try_recv() {
            self.turn_away(job, why);
        }
    }

    /// Refuses a request; that topics are gone is kept for the next shard.
    fn turn_away(&mut self, job: Job, why: ErrorCode) {
        match job {
            Job::Request { reply, .. } => refuse(reply, why),
            Job::TopicsDeleted(topics) => self.deleted_topics.extend(topics),
            Job::Look(_) => {}
        }
    }
}

/// A client that has gone is not told.
fn refuse(reply: Reply, why: ErrorCode) {
    let _ = reply.send(Err(why));
}

/// An answer that waits for the high watermark.
struct Waiting {
    until: Offset,
    give_up: Instant,
    token: ReplyToken,
    reply: GroupReply,
}

/// A loaded shard that serves.
struct Round<'a> {
    task: &'a mut ShardTask,
    clock: Clock,
    shard: GroupShard,
    /// The offset after what the shard has appended.
    end: Offset,
    next_token: u64,
    /// Requests that the shard has not answered yet, or whose answers wait.
    asked: HashMap<ReplyToken, Reply>,
    /// Ordered by offset and time.
    waiting: VecDeque<Waiting>,
}

impl<'a> Round<'a> {
    fn new(task: &'a mut ShardTask, loaded: Loaded, clock: Clock) -> Self {
        Self {
            task,
            clock,
            shard: loaded.shard,
            end: loaded.end,
            next_token: 0,
            asked: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    async fn serve(mut self, moved: &Notify) -> End {
        let mut received = Vec::with_capacity(ROUND);
        // What was taken from the queue and is not decided yet.
        let mut jobs: VecDeque<Job> = VecDeque::with_capacity(ROUND);
        loop {
            if !self.release() {
                return End::Lost;
            }
            let timer = self.next_timer();
            tokio::select! {
                biased;
                () = moved.notified() => continue,
                () = sleep_until(timer) => {}
                Ok(()) = self.task.topics.changed() => {
                    let view = Arc::clone(&self.task.topics.borrow_and_update());
                    self.shard.topics_changed(view);
                    continue;
                }
                Ok(()) = self.task.settings.changed() => {
                    let config = self.task.settings.borrow_and_update().clone();
                    self.shard.configure(config);
                    continue;
                }
                // Between two rounds of the same jobs the worker looks after others.
                () = yield_now(), if !jobs.is_empty() => {}
                count = self.task.queue.recv_many(&mut received, ROUND), if jobs.is_empty() => {
                    if count == 0 {
                        return End::Lost;
                    }
                    jobs.extend(received.drain(..));
                }
            }
            self.give_up_waiting();
            let decided = self.decide(&mut jobs);
            if let Err(refused) = self.write(&decided.outcome).await {
                for job in jobs {
                    self.task.turn_away(job, journal::code_of(refused));
                }
                return self.failed(refused);
            }
            if decided.topics_forgotten {
                self.task.deleted_topics.clear();
            }
            self.answer(decided.outcome.replies);
        }
    }

    /// Decides jobs, and what is due by time, until the round is full.
    fn decide(&mut self, jobs: &mut VecDeque<Job>) -> Decided {
        // While nothing can be written, nothing is decided that would have to be: the state would run
        // ahead of a log that cannot follow.
        let writable = self.writable();
        if writable.is_ok() {
            self.clock.go_on();
        } else {
            self.clock.stop();
        }
        let now = self.clock.now();
        let mut decided = Decided::default();
        if writable.is_ok()
            && self
                .shard
                .next_deadline()
                .is_some_and(|due| due <= now.instant_ms)
        {
            decided.add(self.shard.tick(now));
        }
        // What was committed before goes, what is committed from here on stays: in the order of the jobs.
        if writable.is_ok() && !self.task.deleted_topics.is_empty() {
            decided.add(self.shard.topics_deleted(now, &self.task.deleted_topics));
            decided.topics_forgotten = true;
        }
        let began = Instant::now();
        while decided.bytes < ROUND_BYTES
            && began.elapsed() < ROUND_TIME
            && let Some(job) = jobs.pop_front()
        {
            match (job, writable) {
                (Job::Look(look), _) => look(&self.shard),
                (Job::TopicsDeleted(topics), _) => {
                    if writable.is_ok() {
                        decided.add(self.shard.topics_deleted(now, &topics));
                        decided.topics_forgotten = true;
                    }
                    // Until it is written.
                    self.task.deleted_topics.extend(topics);
                }
                (Job::Request { request, reply, .. }, Err(refused)) if may_write(&request) => {
                    refuse(reply, journal::code_of(refused));
                }
                (
                    Job::Request {
                        caller,
                        request,
                        reply,
                    },
                    _,
                ) => {
                    let token = ReplyToken(self.next_token);
                    self.next_token += 1;
                    self.asked.insert(token, reply);
                    decided.add(self.shard.handle(now, &caller, token, *request));
                }
            }
        }
        decided
    }

    /// Whether an append can be tried now; else, what a request is refused for.
    fn writable(&self) -> Result<(), AppendRefused> {
        self.task.writes.check(Instant::now())?;
        self.task.partition.check_produce(Acks::All)
    }

    async fn write(&mut self, outcome: &Outcome) -> Result<(), AppendRefused> {
        if !outcome.records.is_empty() {
            let (task, now) = (&*self.task, self.clock.now());
            self.end = journal::append(&task.partition, task.epoch, now.wall_ms, outcome).await?;
            self.task.writes.end();
            counts::appended(outcome);
        }
        Ok(())
    }

    fn answer(&mut self, answers: Vec<Answer>) {
        let give_up = Instant::now() + self.task.commit_timeout;
        for Answer { token, reply, after } in answers {
            counts::answered(&reply);
            match after {
                Barrier::Now => self.send(token, Ok(reply)),
                Barrier::Committed => self.waiting.push_back(Waiting {
                    until: self.end,
                    give_up,
                    token,
                    reply,
                }),
            }
        }
    }

    fn send(&mut self, token: ReplyToken, reply: Result<GroupReply, ErrorCode>) {
        if let Some(asker) = self.asked.remove(&token) {
            // A client that has gone is not told.
            let _ = asker.send(reply);
        }
    }

    /// Sends what the high watermark has reached. False: this broker does not lead any more.
    fn release(&mut self) -> bool {
        let Ok(leading) = self.task.partition.leading() else {
            return false;
        };
        if leading.leader_epoch != self.task.epoch {
            return false;
        }
        let passed = |first: &Waiting| first.until <= leading.high_watermark;
        while self.waiting.front().is_some_and(passed)
            && let Some(first) = self.waiting.pop_front()
        {
            self.send(first.token, Ok(first.reply));
        }
        true
    }

    /// Refuses what was not committed in time. It may be later on; its client asks again.
    fn give_up_waiting(&mut self) {
        let now = Instant::now();
        while self.waiting.front().is_some_and(|first| first.give_up <= now)
            && let Some(late) = self.waiting.pop_front()
        {
            self.send(late.token, Err(ErrorCode::CoordinatorNotAvailable));
        }
    }

    /// When something is due by time.
    fn next_timer(&self) -> Instant {
        let mut shard = self.shard.next_deadline().map(|due| self.clock.at(due));
        if !self.task.deleted_topics.is_empty() {
            shard = Some(Instant::now());
        }
        // While nothing can be written, the shard's timers wait for better times.
        if shard.is_some_and(|due| due <= Instant::now()) && self.writable().is_err() {
            shard = Some(Instant::now() + LOOK_AGAIN);
        }
        let waiting = self.waiting.front().map(|first| first.give_up);
        let far = Instant::now() + Duration::from_secs(3600);
        shard
            .into_iter()
            .chain(waiting)
            .min()
            .map_or(far, |due| due.min(far))
    }

    fn failed(mut self, refused: AppendRefused) -> End {
        let why = journal::code_of(refused);
        for (_, asker) in self.asked.drain() {
            refuse(asker, why);
        }
        End::Failed(refused)
    }
}

/// What one round decided.
#[derive(Default)]
struct Decided {
    outcome: Outcome,
    /// Bytes of its records.
    bytes: usize,
    /// Whether it has what is left of deleted topics.
    topics_forgotten: bool,
}

impl Decided {
    fn add(&mut self, outcome: Outcome) {
        let sizes = outcome.records.iter().map(CoordinatorRecord::size);
        self.bytes += sizes.sum::<usize>();
        self.outcome.append(outcome);
    }
}

/// Whether records may follow from a request.
fn may_write(request: &GroupRequest) -> bool {
    match request {
        GroupRequest::Join { .. }
        | GroupRequest::ConsumerHeartbeat { .. }
        | GroupRequest::Sync(_)
        | GroupRequest::Leave(_)
        | GroupRequest::CommitOffsets(_)
        | GroupRequest::DeleteOffsets(_)
        | GroupRequest::Delete(_) => true,
        GroupRequest::Heartbeat(_)
        | GroupRequest::FetchOffsets { .. }
        | GroupRequest::Describe(_)
        | GroupRequest::DescribeConsumer(_)
        | GroupRequest::List(_) => false,
    }
}

#[cfg(test)]
mod tests;
