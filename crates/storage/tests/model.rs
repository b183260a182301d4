//! A log against the simplest thing that could be one: a list of batches.

mod support;

use bytes::Bytes;
use proptest::prelude::*;
use protocol::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    batch::{BatchBuilder, BatchHeader, placed_prefix},
};
use storage::{OpenOptions, ProducerState, RecoveryReport};
use support::*;

#[derive(Clone, Debug)]
enum Step {
    /// A leader appends batches of (records, value bytes), perhaps as a new epoch.
    Lead {
        batches: Vec<(usize, usize)>,
        new_epoch: bool,
    },
    /// An idempotent producer's next batch.
    Produce {
        producer_id: i64,
        records: usize,
    },
    /// A follower appends a batch that leaves a gap.
    Follow {
        gap: i64,
        records: usize,
        new_epoch: bool,
    },
    Truncate {
        at: usize,
    },
    Restart {
        beyond: i64,
    },
    AdvanceStart {
        at: usize,
    },
    Roll,
    Flush,
    Read {
        from: usize,
        upper: usize,
        max_bytes: usize,
    },
    CloseAndOpen,
    /// The process dies; the checkpoint of the recovery point is current, old, or missing.
    Kill {
        checkpoint: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let lead = (
        proptest::collection::vec((1..5_usize, 0..200_usize), 1..4),
        any::<bool>(),
    );
    prop_oneof![
        6 => lead.prop_map(|(batches, new_epoch)| Step::Lead { batches, new_epoch }),
        3 => (0..3_i64, 1..4_usize).prop_map(|(producer_id, records)| Step::Produce { producer_id, records }),
        2 => (0..20_i64, 1..5_usize, any::<bool>())
            .prop_map(|(gap, records, new_epoch)| Step::Follow { gap, records, new_epoch }),
        2 => any::<usize>().prop_map(|at| Step::Truncate { at }),
        1 => (0..50_i64).prop_map(|beyond| Step::Restart { beyond }),
        1 => any::<usize>().prop_map(|at| Step::AdvanceStart { at }),
        1 => Just(Step::Roll),
        2 => Just(Step::Flush),
        4 => (any::<usize>(), any::<usize>(), 0..2000_usize)
            .prop_map(|(from, upper, max_bytes)| Step::Read { from, upper, max_bytes }),
        1 => Just(Step::CloseAndOpen),
        1 => (0..3_u8).prop_map(|checkpoint| Step::Kill { checkpoint }),
    ]
}

/// A batch as it must lie in the log.
#[derive(Clone, Debug)]
struct Stored {
    header: BatchHeader,
    bytes: Bytes,
}

struct Model {
    batches: Vec<Stored>,
    start: i64,
    end: i64,
    epoch: i32,
    appended: usize,
    /// Retention and restarts make what is known of producers depend on snapshots.
    knows_producers: bool,
}

impl Model {
    fn place(&mut self, bytes: &[u8], base: i64) {
        let mut bytes = bytes.to_vec();
        let prefix = placed_prefix(&bytes, Offset(base), LeaderEpoch(self.epoch));
        bytes[..16].copy_from_slice(&prefix);
        let header = BatchHeader::parse(&bytes).expect("whole");
        self.end = header.next_offset().0;
        self.batches.push(Stored {
            header,
            bytes: bytes.into(),
        });
    }

    /// A batch of its own kind: no two have the same bytes.
    fn fresh(&mut self, records: usize, len: usize) -> Vec<u8> {
        self.appended += 1;
        let value = format!("{}{}", self.appended, "x".repeat(len));
        BatchBuilder::default().build_records(&vec![(None, Some(value.as_bytes())); records])
    }

    /// An offset of the log, its start and end included.
    fn pick(&self, at: usize) -> i64 {
        self.start + (at as u64 % (self.end - self.start + 1) as u64) as i64
    }

    fn truncate(&mut self, offset: i64) {
        self.batches.retain(|batch| batch.header.last_offset().0 < offset);
        // The end is where the first batch began that went, or stays.
        self.end = self.end.min(offset);
    }

    fn producers(&self) -> ProducerState {
        let mut state = ProducerState::new();
        for batch in &self.batches {
            state.update(&batch.header);
        }
        state
    }

    fn visible(&self, from: i64, upper: i64) -> Vec<&Stored> {
        let wanted =
            |batch: &&Stored| batch.header.last_offset().0 >= from && batch.header.last_offset().0 < upper;
        self.batches.iter().filter(wanted).collect()
    }

    fn check(&self, log: &TestLog) {
        assert_eq!(
            (log.log_start_offset().0, log.log_end_offset().0),
            (self.start, self.end)
        );
        assert!(log.recovery_point() <= log.durable_offset() && log.durable_offset() <= log.log_end_offset());
        let mut at = self.start;
        let mut seen = Vec::new();
        while at < self.end {
            let outcome = read(log, at);
            if outcome.first.is_none() {
                break;
            }
            seen.extend_from_slice(&outcome.bytes);
            at = outcome.next_offset.0;
        }
        let expected: Vec<u8> = self
            .visible(self.start, self.end)
            .iter()
            .flat_map(|b| b.bytes.to_vec())
            .collect();
        assert!(seen == expected, "the log holds other bytes than were appended");
        self.check_epochs(log);
        if self.knows_producers {
            let producers = self.producers();
            for id in 0..3 {
                assert_eq!(
                    log.producer(ProducerId(id)).as_ref(),
                    producers.get(ProducerId(id))
                );
            }
        }
    }

    fn check_epochs(&self, log: &TestLog) {
        let batches = self.visible(self.start, self.end);
        for batch in &batches {
            let epoch = batch.header.leader_epoch;
            let end = batches
                .iter()
                .find(|later| later.header.leader_epoch > epoch)
                .map_or(Offset(self.end), |later| later.header.base_offset);
            assert_eq!(log.end_offset_for_epoch(epoch), Some((epoch, end)));
        }
    }
}

fn run(steps: Vec<Step>) {
    let mut log = TestLog::new(small());
    let mut model = Model {
        batches: Vec::new(),
        start: 0,
        end: 0,
        epoch: 0,
        appended: 0,
        knows_producers: true,
    };
    for step in steps {
        match step {
            Step::Lead { batches, new_epoch } => {
                model.epoch += i32::from(new_epoch);
                let batches: Vec<_> = batches
                    .iter()
                    .map(|&(records, len)| model.fresh(records, len))
                    .collect();
                let info = lead(&log, batches.concat().into(), model.epoch);
                assert_eq!(info.first_offset.0, model.end);
                for batch in &batches {
                    model.place(batch, model.end);
                }
                assert_eq!(info.next_offset.0, model.end);
            }
            Step::Produce { producer_id, records } => {
                let last = log
                    .producer(ProducerId(producer_id))
                    .and_then(|entry| entry.last_sequence());
                let builder = BatchBuilder {
                    producer_id,
                    producer_epoch: ProducerEpoch(0).0,
                    base_sequence: last.map_or(0, |last| last + 1),
                    ..BatchBuilder::default()
                };
                let batch = builder.build_records(&vec![(None, None); records]);
                lead(&log, batch.clone().into(), model.epoch);
                model.place(&batch, model.end);
            }
            Step::Follow {
                gap,
                records,
                new_epoch,
            } => {
                model.epoch += i32::from(new_epoch);
                let batch = model.fresh(records, 20);
                model.place(&batch, model.end + gap);
                let stored = model.batches.last().expect("just placed");
                log.append_as_follower(stored.bytes.clone()).expect("append");
            }
            Step::Truncate { at } => {
                let offset = model.pick(at);
                log.truncate_to(Offset(offset)).expect("truncate");
                model.truncate(offset);
                // A batch that straddled the offset went whole; gaps end where a batch ended.
                let kept = model
                    .batches
                    .last()
                    .map_or(0, |batch| batch.header.next_offset().0);
                assert!((kept..=model.end).contains(&log.log_end_offset().0), "{offset}");
                model.end = log.log_end_offset().0;
                model.start = model.start.min(model.end);
            }
            Step::Restart { beyond } => {
                let offset = model.end + beyond;
                log.truncate_fully_and_start_at(Offset(offset))
                    .expect("start anew");
                model.batches.clear();
                (model.start, model.end) = (offset, offset);
            }
            Step::AdvanceStart { at } => {
                let offset = model.pick(at);
                log.advance_log_start(Offset(offset)).expect("advance");
                model.knows_producers &= offset == model.start;
                model.start = offset;
            }
            Step::Roll => log.roll(0).expect("roll"),
            Step::Flush => assert_eq!(log.flush().expect("flush").0, model.end),
            Step::Read {
                from,
                upper,
                max_bytes,
            } => {
                let (from, upper) = (model.pick(from), model.pick(upper));
                let outcome = try_read(&log, from, upper, max_bytes).expect("read");
                let expected = model.visible(from, upper);
                let got = headers(&outcome.bytes).len();
                assert_eq!(got == 0, expected.is_empty(), "from {from} to {upper}");
                let bytes: Vec<u8> = expected[..got]
                    .iter()
                    .flat_map(|batch| batch.bytes.to_vec())
                    .collect();
                assert!(outcome.bytes == bytes, "from {from} to {upper}");
                assert!(got <= 1 || outcome.bytes.len() <= max_bytes);
                let next = expected[..got]
                    .last()
                    .map_or(from, |batch| batch.header.next_offset().0);
                assert_eq!(outcome.next_offset.0, next);
            }
            Step::CloseAndOpen => {
                log.close(true).expect("close");
                let (reopened, report) = log.reopen(clean(model.start));
                assert_eq!(report, RecoveryReport::default());
                log = reopened;
            }
            Step::Kill { checkpoint } => {
                let recovery_point = match checkpoint {
                    0 => Some(log.recovery_point()),
                    1 => Some(Offset(log.recovery_point().0 / 2)),
                    _ => None,
                };
                let options = OpenOptions {
                    recovery_point,
                    ..clean(model.start)
                };
                let (reopened, report) = log.reopen(OpenOptions {
                    clean_shutdown: false,
                    ..options
                });
                assert_eq!((report.bytes_cut, report.lost), (0, false));
                log = reopened;
            }
        }
        model.check(&log);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_a_list_of_batches(steps in proptest::collection::vec(step(), 1..60)) {
        run(steps);
    }
}
