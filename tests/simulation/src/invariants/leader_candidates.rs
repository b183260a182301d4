//! LeaderCandidateCompleteness: whoever may be elected cleanly (ISR and ELR) has every committed record
//! on its disk. A wiped disk is none any more: its broker says so when it registers, which it must
//! before it can lead.

use metadata::ClusterImage;
use protocol::TopicPartition;

use crate::broker::Broker;
use crate::checker::Checker;

pub(super) fn poll(brokers: &[Broker], truth: &ClusterImage, checker: &mut Checker) {
    for (&id, topic) in &truth.topics {
        for (&index, partition) in &topic.partitions {
            let tp = TopicPartition::new(id, index);
            let needed = checker.history(tp).committed.len();
            for candidate in partition.isr.iter().chain(&partition.elr) {
                let held = brokers.iter().find(|broker| broker.id == candidate.get());
                let Some(broker) = held.filter(|broker| !broker.wiped) else {
                    continue;
                };
                let log = broker.disk.meant(tp, partition.directory_of(*candidate));
                let has = log.map_or(0, |log| log.verified.min(log.durable));
                if has < needed {
                    let what =
                        format!("{tp}: broker {candidate} has {has} of {needed} committed: {partition:?}");
                    checker.fail("LeaderCandidateCompleteness", what);
                }
            }
        }
    }
}
