//! LeaderCompleteness: whom the controller has chosen as leader has every committed record, and every
//! record that was acknowledged, where it was acknowledged. A leader whose process is down cannot be
//! judged: it must register before it leads again, and what it has then is judged there.

use metadata::ClusterImage;
use protocol::{BrokerId, TopicPartition};

use crate::broker::Broker;
use crate::checker::Checker;

pub(super) fn poll(brokers: &[Broker], truth: &ClusterImage, checker: &mut Checker) {
    for (&id, topic) in &truth.topics {
        for (&index, partition) in &topic.partitions {
            let tp = TopicPartition::new(id, index);
            let leads = |broker: &&Broker| partition.leader.is_some_and(|id| id.get() == broker.id);
            let Some(leader) = brokers.iter().find(leads) else {
                continue;
            };
            if leader.process.is_none() || leader.wiped {
                continue;
            }
            let history = checker.history(tp);
            let needed = history.committed.len();
            let log = leader.disk.meant(tp, partition.directory_of(BrokerId(leader.id)));
            let has = log.map_or(0, |log| log.verified);
            let last = history.acknowledged.last_key_value();
            let missing = last.filter(|(at, value)| {
                let there = log.and_then(|log| log.records.get(at.0 as usize));
                there.map(|record| record.value) != Some(**value)
            });
            if has < needed || missing.is_some() {
                let what = format!(
                    "{tp}: leader {} has {has} of {needed} committed, {missing:?} was acknowledged: {partition:?}",
                    leader.id
                );
                checker.fail("LeaderCompleteness", what);
            }
        }
    }
}
