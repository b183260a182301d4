//! Idempotence: in the committed history each idempotent producer's sequences are 0, 1, 2, …: nothing is
//! doubled, nothing changes places, nothing is left out, whatever the producer had to repeat.

use crate::checker::Checker;

pub(super) fn poll(checker: &mut Checker) {
    let mut broken = None;
    for (tp, history) in &mut checker.histories {
        let (compared, last) = &mut history.sequences;
        for (at, record) in history.committed.iter().enumerate().skip(*compared) {
            let Some((producer, sequence)) = record.sequence else {
                continue;
            };
            let before = last.insert(producer, sequence);
            if sequence != before.map_or(0, |before| before + 1) {
                broken = Some(format!(
                    "{tp} offset {at}: producer {producer} sequence {sequence} follows {before:?}"
                ));
            }
        }
        *compared = history.committed.len();
    }
    if let Some(what) = broken {
        checker.fail("Idempotence", what);
    }
}
