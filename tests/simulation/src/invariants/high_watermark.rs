//! The high watermark of a leadership never goes back.

use crate::broker::Broker;
use crate::checker::Checker;

pub(super) fn poll(brokers: &mut [Broker], checker: &mut Checker) {
    for broker in brokers {
        let Some(process) = &broker.process else { continue };
        for (&tp, replica) in &process.replicas {
            let Ok(leader) = replica.state.leader() else {
                continue;
            };
            let now = replica.state.high_watermark();
            let marks = &mut checker.history(tp).high_watermarks;
            let before = marks.insert(leader.epoch(), now);
            if let Some(before) = before.filter(|&before| now < before) {
                let what = format!("{tp} epoch {}: from {before} to {now}", leader.epoch());
                checker.fail("HighWatermarkMonotone", what);
            }
        }
    }
}
