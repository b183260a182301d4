//! Once faults end, every partition becomes whole: a leader, all replicas in sync, equal logs that are
//! committed to their end, with everything that was ever acknowledged in them.

use metadata::ClusterImage;
use protocol::TopicPartition;

use crate::broker::Broker;
use crate::checker::Checker;

/// What is still missing, in a sentence; `None` where everything is whole.
pub(crate) fn missing(brokers: &[Broker], truth: &ClusterImage) -> Option<String> {
    for (&id, topic) in &truth.topics {
        for (&index, partition) in &topic.partitions {
            let tp = TopicPartition::new(id, index);
            if partition.leader.is_none() || partition.isr.len() < partition.replicas.len() {
                return Some(format!("{tp} is not whole: {partition:?}"));
            }
            let mut logs = Vec::new();
            for replica in &partition.replicas {
                let Some(broker) = brokers.iter().find(|broker| broker.id == replica.get()) else {
                    continue;
                };
                let process = broker.process.as_ref();
                let replica = process.and_then(|process| process.replicas.get(&tp));
                let (Some(replica), Some(log)) = (replica, broker.disk.logs.get(&tp)) else {
                    return Some(format!("{tp} has no replica at broker {}", broker.id));
                };
                if replica.state.high_watermark() != log.end() {
                    return Some(format!(
                        "{tp} is not committed to its end at broker {}",
                        broker.id
                    ));
                }
                logs.push(&log.records);
            }
            if logs.windows(2).any(|pair| pair[0] != pair[1]) {
                return Some(format!("the logs of {tp} differ"));
            }
        }
    }
    None
}

/// Nothing that was acknowledged is missing from the healed cluster.
pub(crate) fn lost(brokers: &[Broker], truth: &ClusterImage, checker: &mut Checker) {
    let mut lost = None;
    for (&tp, history) in &checker.histories {
        if truth.partition(tp).is_none() {
            continue;
        }
        let log = brokers.iter().find_map(|broker| broker.disk.logs.get(&tp));
        for (at, value) in &history.acknowledged {
            let found = log
                .and_then(|log| log.records.get(at.0 as usize))
                .map(|record| record.value);
            if found != Some(*value) {
                lost = Some(format!(
                    "{tp} offset {at}: {value} was acknowledged, {found:?} is there"
                ));
            }
        }
    }
    if let Some(what) = lost {
        checker.fail("AcknowledgedRecordLost", what);
    }
}
