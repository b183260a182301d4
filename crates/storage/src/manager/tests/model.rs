//! Any history of creations, deletions, restarts and crashes, against a map of what should be there.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 2] = ["orders", "orders.v2"];

#[derive(Clone, Debug)]
enum Step {
    /// A topic takes the name, if no other has it.
    Create(usize),
    /// Another topic takes the name, whoever has it.
    Replace(usize),
    Append(usize),
    Roll(usize),
    Flush(usize),
    /// Half of the records are deleted.
    DeleteRecords(usize),
    Delete(usize),
    MarkStray(usize),
    Checkpoint,
    RemoveDue,
    CleanRestart,
    /// The process is killed.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..NAMES.len();
    prop_oneof![
        2 => name().prop_map(Step::Create),
        1 => name().prop_map(Step::Replace),
        6 => name().prop_map(Step::Append),
        1 => name().prop_map(Step::Roll),
        1 => name().prop_map(Step::Flush),
        1 => name().prop_map(Step::DeleteRecords),
        1 => name().prop_map(Step::Delete),
        1 => name().prop_map(Step::MarkStray),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::RemoveDue),
        1 => Just(Step::CleanRestart),
        2 => Just(Step::Crash),
    ]
}

/// What one topic's partition should hold.
#[derive(Clone, Debug)]
struct Expected {
    partition: TopicPartition,
    /// One value an offset, from offset 0.
    values: Vec<String>,
    log_start: i64,
    /// The log start of the last checkpoint: what a crash falls back to.
    checkpointed_start: i64,
}

struct World {
    dir: tempfile::TempDir,
    manager: Option<Arc<LogManager>>,
    expected: BTreeMap<usize, Expected>,
    created: usize,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let manager = Some(open(dir.path()).0);
        Self {
            dir,
            manager,
            expected: BTreeMap::new(),
            created: 0,
        }
    }

    fn manager(&self) -> &LogManager {
        self.manager.as_ref().expect("open between the steps")
    }

    fn log(&self, name: usize) -> Option<Arc<Log>> {
        let partition = self.expected.get(&name)?.partition;
        Some(self.manager().get(partition).expect("it was created"))
    }

    fn create(&mut self, name: usize) {
        let partition = partition(0);
        create(self.manager(), partition, NAMES[name]);
        self.created += 1;
        let expected = Expected {
            partition,
            values: Vec::new(),
            log_start: 0,
            checkpointed_start: 0,
        };
        self.expected.insert(name, expected);
    }

    fn noted_starts(&mut self) {
        for expected in self.expected.values_mut() {
            expected.checkpointed_start = expected.log_start;
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Create(name) if self.expected.contains_key(&name) => {}
            Step::Create(name) | Step::Replace(name) => self.create(name),
            Step::Append(name) => {
                let Some(log) = self.log(name) else { return };
                let topic = self.created;
                let expected = self.expected.get_mut(&name).expect("it has a log");
                let value = format!("<{name} {topic} {}>", expected.values.len());
                let offset = append(&log, &value);
                assert_eq!(offset.0, expected.values.len() as i64);
                expected.values.push(value);
            }
            Step::Roll(name) => self
                .log(name)
                .into_iter()
                .for_each(|log| log.roll(0).expect("roll")),
            Step::Flush(name) => {
                if let Some(log) = self.log(name) {
                    log.flush().expect("flush");
                }
            }
            Step::DeleteRecords(name) => {
                let Some(log) = self.log(name) else { return };
                let expected = self.expected.get_mut(&name).expect("it has a log");
                expected.log_start = i64::midpoint(expected.log_start, expected.values.len() as i64);
                log.advance_log_start(Offset(expected.log_start))
                    .expect("within the log");
            }
            Step::Delete(name) => {
                if let Some(gone) = self.expected.remove(&name) {
                    self.manager().delete(gone.partition).expect("delete");
                }
            }
            Step::MarkStray(name) => {
                if let Some(gone) = self.expected.remove(&name) {
                    self.manager().mark_stray(gone.partition).expect("put aside");
                }
            }
            Step::Checkpoint => {
                self.manager().checkpoint();
                self.noted_starts();
            }
            Step::RemoveDue => self
                .manager()
                .remove_due(Monotonic::now() + Duration::from_secs(3600)),
            Step::CleanRestart => {
                self.manager().close(Some(BrokerEpoch(1)));
                self.noted_starts();
                self.reopen(true);
            }
            Step::Crash => self.reopen(false),
        }
    }

    fn reopen(&mut self, clean: bool) {
        self.manager = None;
        let (manager, report) = open(self.dir.path());
        assert_eq!(report.clean, clean);
        assert!(
            report.failed.is_empty() && report.unidentified.is_empty(),
            "{report:?}"
        );
        assert!(report.damaged.is_empty(), "{report:?}");
        self.manager = Some(manager);
        for expected in self.expected.values_mut() {
            let log = self
                .manager
                .as_ref()
                .and_then(|manager| manager.get(expected.partition));
            let start = log.expect("every partition is found again").log_start_offset().0;
            // Deleted records may show again after a crash, kept ones may never be gone.
            assert!((expected.checkpointed_start..=expected.log_start).contains(&start));
            expected.log_start = start;
        }
        // A start writes what it found.
        self.noted_starts();
    }

    fn check(&self) {
        assert_eq!(self.manager().logs().len(), self.expected.len());
        for expected in self.expected.values() {
            let log = self.manager().get(expected.partition).expect("open");
            assert_eq!(log.log_start_offset().0, expected.log_start);
            assert_eq!(log.log_end_offset().0, expected.values.len() as i64);
            let mut at = log.log_start_offset();
            while at < log.log_end_offset() {
                let read = log
                    .read(ReadRequest {
                        from: at,
                        upper: log.log_end_offset(),
                        max_bytes: 1,
                        min_one_batch: true,
                    })
                    .expect("read");
                let value = expected.values[at.0 as usize].as_bytes();
                assert!(
                    read.bytes.windows(value.len()).any(|window| window == value),
                    "offset {at}"
                );
                at = read.next_offset;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_was_written_is_there_under_its_own_topic(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            world.apply(step);
            world.check();
        }
        world.apply(&Step::Crash);
        world.check();
    }
}
