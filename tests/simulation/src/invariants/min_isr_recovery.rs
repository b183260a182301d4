//! MinIsrRecoveryQuorum: those who may be elected cleanly (ISR and ELR) are never fewer than
//! `min.insync.replicas`, but for disks that were lost and are not made good yet. So the loss of
//! `min.insync.replicas` − 1 disks, at any moment, leaves somebody who has everything.

use metadata::ClusterImage;
use metadata::configs::min_insync_replicas;
use protocol::TopicPartition;

use crate::broker::Broker;
use crate::checker::Checker;

pub(super) fn poll(brokers: &[Broker], truth: &ClusterImage, checker: &mut Checker) {
    for (&id, topic) in &truth.topics {
        for (&index, partition) in &topic.partitions {
            let lost = partition.replicas.iter().filter(|replica| {
                let broker = brokers.iter().find(|broker| broker.id == replica.get());
                broker.is_some_and(|broker| broker.hurt)
            });
            let needed = min_insync_replicas(truth, &topic.name, partition.replicas.len());
            let candidates = partition.isr.len() + partition.elr.len();
            if candidates + lost.count() < needed {
                let tp = TopicPartition::new(id, index);
                let what = format!("{tp}: {candidates} candidates, {needed} are needed: {partition:?}");
                checker.fail("MinIsrRecoveryQuorum", what);
            }
        }
    }
}
