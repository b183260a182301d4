//! Readers, a writer that truncates, a flusher and retention at once: no reader may ever see a batch that
//! is not whole, not the one of its offset, or from before a truncation it began after.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use protocol::{Offset, batch::Batches};
use storage::{LogConfig, ReadRequest, StorageError};
use support::*;

#[test]
fn readers_see_whole_batches_of_one_history() {
    let TestLog { dir: _dir, log } = TestLog::new(LogConfig {
        segment_bytes: 4000,
        ..small()
    });
    let log = Arc::new(log);
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|reader| {
            let (log, done) = (Arc::clone(&log), Arc::clone(&done));
            thread::spawn(move || {
                let mut reads = 0_u64;
                let mut at = Offset(0);
                while !done.load(Ordering::Relaxed) || reads == 0 {
                    let upper = log.log_end_offset();
                    let request = ReadRequest {
                        from: at,
                        upper,
                        max_bytes: 700 * (reader + 1),
                        min_one_batch: true,
                    };
                    match log.read(request) {
                        Ok(outcome) => {
                            let mut expected = outcome.first.unwrap_or(at);
                            for batch in Batches::new(outcome.bytes) {
                                let (header, _) = batch.expect("whole");
                                assert!(header.base_offset >= expected);
                                expected = header.next_offset();
                            }
                            at = if outcome.first.is_some() {
                                outcome.next_offset
                            } else {
                                log.log_start_offset()
                            };
                            reads += 1;
                        }
                        Err(StorageError::OffsetOutOfRange { .. }) => at = log.log_start_offset(),
                        Err(error) => panic!("at {at}: {error}"),
                    }
                }
                reads
            })
        })
        .collect();
    let flusher = {
        let (log, done) = (Arc::clone(&log), Arc::clone(&done));
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let durable = log.flush().expect("flush");
                assert!(durable <= log.log_end_offset() || log.generation() > 0);
            }
        })
    };
    for round in 0..400_i64 {
        for _ in 0..5 {
            lead(&log, batch(2, 80), round as i32);
        }
        let end = log.log_end_offset().0;
        match round % 7 {
            3 => log
                .truncate_to(Offset((end - 17).max(log.log_start_offset().0)))
                .expect("truncate"),
            5 => log
                .advance_log_start(Offset(end - 60).max(Offset(0)))
                .expect("advance"),
            6 if round % 5 == 0 => log.truncate_fully_and_start_at(Offset(end)).expect("start anew"),
            _ => {}
        }
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().expect("reader") > 0);
    }
    flusher.join().expect("flusher");
    assert_eq!(log.flush().expect("flush"), log.log_end_offset());
}
