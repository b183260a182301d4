//! What must hold of a log, by what was written to it.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::atomic::AtomicUsize,
};

use super::{world::Written, *};

/// Logs that are shown to other tools.
const SHOWN: usize = 8;

/// What lies in the log, as it is read.
pub(super) struct Holding {
    records: Vec<Read>,
    /// Of each record that lies in a batch with a delete horizon: that, ms since 1970.
    horizons: HashMap<i64, i64>,
    /// Of each record, where its batch ends.
    ends: HashMap<i64, i64>,
}

impl World {
    /// The records from the log's start on.
    fn left(&self) -> Vec<Read> {
        let start = self.log.log_start_offset().0;
        let mut left = records(&self.log);
        left.retain(|record| record.offset >= start);
        left
    }

    pub(super) fn holding(&self) -> Holding {
        let records = self.left();
        let (mut horizons, mut ends) = (HashMap::new(), HashMap::new());
        for (header, _) in batches(&self.log) {
            let within = header.base_offset.0..=header.last_offset().0;
            for record in records.iter().filter(|record| within.contains(&record.offset)) {
                ends.insert(record.offset, header.next_offset().0);
                if let Some(horizon) = header.delete_horizon() {
                    horizons.insert(record.offset, horizon);
                }
            }
        }
        Holding {
            records,
            horizons,
            ends,
        }
    }

    /// What holds at any time.
    pub(super) fn check(&self) {
        let (start, left) = (self.log.log_start_offset().0, self.left());
        let aborted = self.aborted();
        let counts = |record: &&Read| record.offset >= start && !aborted.contains(&record.offset);
        let written = || self.written.iter().map(|written| &written.read);
        assert_eq!(
            last_of_each(left.iter().filter(counts)),
            last_of_each(written().filter(counts))
        );
        // What is left is what was written: offset, epoch, time, key, value, headers.
        let mut all = written();
        for record in &left {
            assert!(all.any(|original| original == record), "{record:?}");
            let epoch = self.log.epoch_at(Offset(record.offset));
            assert_eq!(epoch, Some(LeaderEpoch(record.epoch)), "at {}", record.offset);
        }
        self.check_producers();
        self.check_markers(&left);
        self.check_times(&left);
    }

    fn check_producers(&self) {
        for producer in (0..3).chain(10..12) {
            let last = self
                .produced
                .iter()
                .rev()
                .find(|batch| batch.producer == producer);
            let known = self.log.producer(ProducerId(producer));
            assert_eq!(
                known.as_ref().and_then(crate::ProducerEntry::last_sequence),
                last.map(|batch| batch.last_sequence),
                "producer {producer}"
            );
            assert_eq!(
                known.and_then(|entry| entry.transaction_start()),
                self.open_transaction(producer).map(Offset),
                "producer {producer}"
            );
        }
    }

    /// The end of a transaction stays as long as a record of it.
    fn check_markers(&self, left: &[Read]) {
        let offsets: BTreeSet<_> = left.iter().map(|record| record.offset).collect();
        for (at, record) in self.written.iter().enumerate() {
            let Written {
                read, transaction, ..
            } = record;
            if transaction.is_none() || read.control || !offsets.contains(&read.offset) {
                continue;
            }
            let end = self.written[at..]
                .iter()
                .find(|later| later.read.control && later.transaction == *transaction);
            if let Some(end) = end {
                assert!(
                    offsets.contains(&end.read.offset),
                    "{} without {}",
                    read.offset,
                    end.read.offset
                );
            }
        }
    }

    /// Searches by time find what a walk would.
    fn check_times(&self, left: &[Read]) {
        let found = |at: Option<crate::TimestampedOffset>| at.map(|found| (found.timestamp, found.offset.0));
        let first_from = |time: i64| {
            let first = left.iter().find(|record| record.timestamp >= time);
            first.map(|record| (record.timestamp, record.offset))
        };
        let newest = left.iter().map(|record| record.timestamp).max();
        let by_log = self.log.max_timestamp().expect("search");
        assert_eq!(found(by_log), newest.and_then(first_from), "the newest");
        let some = left.iter().step_by(left.len() / 3 + 1);
        for time in some.flat_map(|record| [record.timestamp, record.timestamp + 1]) {
            let by_log = self.log.offset_for_timestamp(time).expect("search");
            assert_eq!(found(by_log), first_from(time), "at {time}");
        }
    }

    /// What a cleaning that came to its end has made of what was there before: of the records below where it
    /// ended, exactly the last of each key, without tombstones whose time is over.
    pub(super) fn check_cleaned(&self, before: &Holding, done: &Compacted) {
        let (cleaned_to, aborted) = (done.cleaned_to.0, self.aborted());
        let counts = |record: &&Read| {
            !record.control && record.offset < cleaned_to && !aborted.contains(&record.offset)
        };
        let newest: HashMap<_, _> = before
            .records
            .iter()
            .filter(counts)
            .map(|record| (&record.key, record.offset))
            .collect();
        let is_over = |record: &Read| {
            let horizon = before.horizons.get(&record.offset);
            record.value.is_none() && horizon.is_some_and(|&horizon| horizon <= self.now)
        };
        let expected: Vec<_> = before
            .records
            .iter()
            .filter(counts)
            .filter(|record| newest[&record.key] == record.offset && !is_over(record))
            .collect();
        let after = self.holding();
        let kept: Vec<_> = after
            .records
            .iter()
            .filter(|record| !record.control && record.offset < cleaned_to)
            .collect();
        assert_eq!(kept, expected, "cleaned to {cleaned_to} at {}", self.now);
        for tombstone in kept.iter().filter(|record| record.value.is_none()) {
            let offset = tombstone.offset;
            let horizon = match before.horizons.get(&offset) {
                Some(&begun) => begun,
                // What it deletes is gone now.
                None if before.ends[&offset] <= cleaned_to => self.now + DAY,
                None => continue,
            };
            assert_eq!(
                after.horizons.get(&offset),
                Some(&horizon),
                "of the tombstone at {offset}"
            );
        }
    }

    /// Of a log that is cleaned up to its active segment: one record of each key.
    pub(super) fn check_compacted(&self) {
        let left = self.left();
        let data: Vec<_> = left.iter().filter(|record| !record.control).collect();
        let keys: BTreeSet<_> = data.iter().map(|record| &record.key).collect();
        assert_eq!(data.len(), keys.len(), "one record of each key");
        let aborted = self.aborted();
        assert!(data.iter().all(|record| !aborted.contains(&record.offset)));
    }

    /// Copies the log for other tools to read, if somebody asks for it.
    pub(super) fn show(&self) {
        static LOGS: AtomicUsize = AtomicUsize::new(0);
        let Some(folder) = std::env::var_os("OTTLA_CLEANED_SEGMENTS").map(PathBuf::from) else {
            return;
        };
        // The active segment is empty, and so are logs of which nothing is left.
        if self.left().is_empty() {
            return;
        }
        let number = LOGS.fetch_add(1, Ordering::Relaxed);
        if number < SHOWN {
            let to = folder.join(format!("t-{number}"));
            fs::create_dir_all(&to).expect("create");
            for entry in fs::read_dir(self.log.dir()).expect("list") {
                let path = entry.expect("entry").path();
                fs::copy(&path, to.join(path.file_name().expect("name"))).expect("copy");
            }
        }
    }
}
