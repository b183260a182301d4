//! What others get while the jobs that were taken at once are decided in several rounds.

use std::sync::atomic::AtomicUsize;

use kafka_protocol::messages::OffsetCommitRequest;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::protocol::StrBytes;

use super::super::loader::tests::sole_leader;
use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

/// A task with jobs that wait for it, so that it takes them all at once.
fn with_jobs(partition: &Arc<Partition>, jobs: Vec<Job>) -> (ShardTask, mpsc::Sender<Job>) {
    let (queue, receiver) = mpsc::channel(QUEUE);
    for job in jobs {
        assert!(queue.try_send(job).is_ok());
    }
    let (_, topics) = tokio::sync::watch::channel(Arc::default());
    let (_, settings) = tokio::sync::watch::channel(crate::coordinator::group::GroupConfig::default());
    let task = ShardTask {
        partition: Arc::clone(partition),
        epoch: LeaderEpoch(0),
        queue: receiver,
        serving: Arc::default(),
        deleted_topics: Vec::new(),
        writes: WritePause::default(),
        topics,
        settings,
        commit_timeout: DEADLINE,
        stop: CancellationToken::new(),
    };
    (task, queue)
}

fn look(look: impl FnOnce() + Send + 'static) -> Job {
    Job::Look(Box::new(move |_| look()))
}

/// Holds the worker until the round in which this is called is over time.
fn use_up_the_round() {
    let began = Instant::now();
    while began.elapsed() <= ROUND_TIME {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn commit() -> (Job, oneshot::Receiver<Result<GroupReply, ErrorCode>>) {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(7);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(StrBytes::from_static_str("orders").into())
        .with_partitions(vec![partition]);
    let body = OffsetCommitRequest::default()
        .with_group_id(StrBytes::from_static_str("g").into())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let (reply, answer) = oneshot::channel();
    let caller = Caller {
        client_id: StrBytes::new(),
        client_host: StrBytes::new(),
        api_version: 8,
    };
    let request = Box::new(GroupRequest::CommitOffsets(body));
    let job = Job::Request {
        caller,
        request,
        reply,
    };
    (job, answer)
}

/// Runs a task until its last job tells the outcome.
async fn outcome_of<T>(task: ShardTask, outcome: oneshot::Receiver<T>) -> T {
    let stop = task.stop.clone();
    let running = tokio::spawn(task.run());
    let outcome = tokio::time::timeout(DEADLINE, outcome).await;
    stop.cancel();
    running.await.expect("ends");
    outcome.expect("in time").expect("told")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_is_answered_between_two_rounds_of_the_same_jobs() {
    let (broker, partition) = sole_leader(0).await;
    let (commit, mut answer) = commit();
    let (tell, told) = oneshot::channel();
    let log = Arc::clone(&partition);
    let jobs = vec![
        commit,
        look(use_up_the_round),
        // The next round has this alone, and lasts until the commit of the last one is committed.
        look(move || {
            tokio::task::block_in_place(|| {
                let began = Instant::now();
                while log.offsets().high_watermark < Offset(1) && began.elapsed() < DEADLINE {
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            use_up_the_round();
        }),
        look(move || {
            let _ = tell.send(answer.try_recv());
        }),
    ];
    let (task, _queue) = with_jobs(&partition, jobs);
    let answer = outcome_of(task, told).await;
    assert!(
        matches!(answer, Ok(Ok(GroupReply::CommitOffsets(_)))),
        "{answer:?}"
    );
    broker.stop().await;
}

#[tokio::test]
async fn rounds_that_write_nothing_let_others_run() {
    const ROUNDS: usize = 5;
    let (broker, partition) = sole_leader(0).await;
    let (tell, told) = oneshot::channel();
    let ran = Arc::new(AtomicUsize::new(0));
    let mut jobs: Vec<Job> = (0..ROUNDS)
        .map(|_| {
            let ran = Arc::clone(&ran);
            look(move || {
                tokio::spawn(async move { ran.fetch_add(1, Ordering::Relaxed) });
                use_up_the_round();
            })
        })
        .collect();
    jobs.push(look(move || {
        let _ = tell.send(ran.load(Ordering::Relaxed));
    }));
    let (task, _queue) = with_jobs(&partition, jobs);
    assert_eq!(outcome_of(task, told).await, ROUNDS);
    broker.stop().await;
}
