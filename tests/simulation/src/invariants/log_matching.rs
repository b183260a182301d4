//! LogMatching: below its high watermark every replica has the one committed history.

use crate::broker::Broker;
use crate::checker::Checker;

pub(super) fn poll(brokers: &mut [Broker], checker: &mut Checker) {
    // Twice: what the last broker is the first to call committed is compared with all of them.
    for _ in 0..2 {
        compare(brokers, checker);
    }
}

fn compare(brokers: &mut [Broker], checker: &mut Checker) {
    for broker in brokers {
        // A dead broker's disk counts too, and so does a copy: it may be a candidate.
        for (&tp, log) in broker.disk.logs.iter_mut().chain(&mut broker.disk.futures) {
            let process = broker.process.as_ref();
            let high_watermark = process
                .and_then(|process| process.replicas.get(&tp))
                .map_or(0, |replica| replica.state.high_watermark().0 as usize);
            let committed = &mut checker.histories.entry(tp).or_default().committed;
            while let Some(record) = log.records.get(log.verified) {
                match committed.get(log.verified) {
                    Some(known) if known == record => {}
                    None if log.verified < high_watermark => committed.push(*record),
                    _ => break,
                }
                log.verified += 1;
            }
            if log.verified < high_watermark {
                let at = log.verified;
                let (here, known) = (log.records.get(at), committed.get(at));
                let what = format!(
                    "broker {} calls {here:?} committed at {tp} offset {at}, {known:?} was",
                    broker.id
                );
                checker.fail("LogMatching", what);
                return;
            }
        }
    }
}
