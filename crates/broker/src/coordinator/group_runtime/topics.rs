//! The topics as groups see them, made from cluster images: one view for all shards, and a later one only
//! where a topic, its partitions or the racks of its replicas have changed. Leaders and in-sync sets change
//! all the time and concern no group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use metadata::delta::ImageDelta;
use metadata::{ClusterImage, Topic};
use protocol::{BrokerId, TopicId};
use tokio::sync::watch;

use crate::coordinator::group::{TopicView, TopicsView};

/// Where shards see the latest view; who looks late has missed nothing but views in between.
pub(super) type Topics = watch::Receiver<Arc<TopicsView>>;

/// Follows the images.
#[derive(Debug)]
pub(super) struct TopicsWatch {
    latest: watch::Sender<Arc<TopicsView>>,
}

impl TopicsWatch {
    /// Begins with no topics.
    pub(super) fn new() -> Self {
        Self {
            latest: watch::Sender::default(),
        }
    }

    /// For one shard.
    pub(super) fn subscribe(&self) -> Topics {
        self.latest.subscribe()
    }

    /// Goes on from the image that was followed last to a newer one; `delta` lies between them.
    pub(super) fn follow(&self, older: &ClusterImage, newer: &ClusterImage, delta: &ImageDelta) {
        let changed = changed_topics(older, newer, delta);
        if changed.is_empty() && delta.removed_topics.is_empty() {
            return;
        }
        let racks = racks(newer);
        let mut view = TopicsView::clone(&self.latest.borrow());
        let mut differs = !delta.removed_topics.is_empty();
        for &id in &delta.removed_topics {
            view = view.without(id);
        }
        for topic in changed.into_iter().filter_map(|id| newer.topics.get(&id)) {
            let topic = view_of(topic, &racks);
            if view.topic_by_id(topic.id) != Some(&topic) {
                view = view.with(topic);
                differs = true;
            }
        }
        if differs {
            self.latest.send_replace(Arc::new(view));
        }
    }
}

/// Topics that a group may see otherwise now.
fn changed_topics(older: &ClusterImage, newer: &ClusterImage, delta: &ImageDelta) -> BTreeSet<TopicId> {
    let rack = |image: &ClusterImage, id: &BrokerId| -> Option<String> {
        image.brokers.get(id).and_then(|broker| broker.rack.clone())
    };
    let moved = delta
        .changed_brokers
        .iter()
        .filter(|id| rack(older, id) != rack(newer, id))
        .filter_map(|id| newer.partitions_by_broker.get(id))
        .flatten();
    delta
        .changed_partitions
        .keys()
        .chain(moved)
        .map(|tp| tp.topic_id)
        .collect()
}

fn racks(image: &ClusterImage) -> BTreeMap<BrokerId, Arc<str>> {
    let brokers = image.brokers.values();
    brokers
        .filter_map(|broker| Some((broker.id, Arc::from(broker.rack.as_deref()?))))
        .collect()
}

fn view_of(topic: &Topic, racks: &BTreeMap<BrokerId, Arc<str>>) -> TopicView {
    let of_replicas = topic.partitions.values().map(|partition| {
        let replicas = partition.replicas.iter();
        replicas.filter_map(|id| racks.get(id)).cloned().collect()
    });
    TopicView::new(topic.id, topic.name.clone(), of_replicas.collect())
}

#[cfg(test)]
mod tests {
    use metadata::{BrokerRegistration, PartitionRegistration, records};
    use protocol::grpc::v1::MetadataRecord;
    use protocol::{
        BrokerEpoch, DirectoryId, IncarnationId, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicPartition,
    };
    use uuid::Uuid;

    use super::*;

    fn broker(id: i32, epoch: i64, rack: &str) -> MetadataRecord {
        records::register_broker_record(&BrokerRegistration {
            id: BrokerId(id),
            epoch: BrokerEpoch(epoch),
            incarnation: IncarnationId(Uuid::from_u128(epoch as u128)),
            endpoints: Vec::new(),
            internal_address: "localhost:1".to_owned(),
            rack: Some(rack.to_owned()),
            log_dirs: Vec::new(),
            fenced: true,
            in_controlled_shutdown: false,
            version: String::new(),
        })
    }

    fn topic(id: u128, name: &str, replicas: &[i32], leader: i32) -> Vec<MetadataRecord> {
        let id = TopicId(Uuid::from_u128(id));
        let replicas: Vec<BrokerId> = replicas.iter().copied().map(BrokerId).collect();
        let partition = PartitionRegistration {
            directories: vec![DirectoryId::ZERO; replicas.len()],
            isr: replicas.clone(),
            replicas,
            elr: Vec::new(),
            leader: Some(BrokerId(leader)),
            leader_epoch: LeaderEpoch(leader),
            partition_epoch: PartitionEpoch(leader),
            adding: Vec::new(),
            removing: Vec::new(),
        };
        let tp = TopicPartition::new(id, PartitionIndex(0));
        vec![
            records::topic_record(id, &name.parse().expect("a topic's name")),
            records::partition_record(tp, &partition),
        ]
    }

    /// Follows from one image to the next; whether shards are told of it.
    fn follow(watch: &TopicsWatch, older: &ClusterImage, newer: &ClusterImage) -> bool {
        let mut topics = watch.subscribe();
        topics.mark_unchanged();
        watch.follow(older, newer, &ImageDelta::between(older, newer));
        topics.has_changed().expect("the sender lives")
    }

    fn image(records: &[MetadataRecord]) -> ClusterImage {
        ClusterImage::default().speculate(records).expect("fits")
    }

    fn racks(watch: &TopicsWatch, topic: &str) -> Vec<String> {
        let view = Arc::clone(&watch.subscribe().borrow());
        let topic = view.topic_by_name(topic).expect("the topic is there");
        topic.racks[0].iter().map(ToString::to_string).collect()
    }

    #[test]
    fn topics_and_racks_are_followed_and_leaders_are_not() {
        let brokers = [broker(1, 1, "a"), broker(2, 2, "b")];
        let with = |topics: &[Vec<MetadataRecord>]| {
            let records: Vec<_> = brokers.iter().cloned().chain(topics.concat()).collect();
            image(&records)
        };
        let watch = TopicsWatch::new();
        let (nothing, first) = (ClusterImage::default(), with(&[topic(1, "t", &[1, 2], 1)]));
        assert!(follow(&watch, &nothing, &first));
        assert_eq!(racks(&watch, "t"), ["a", "b"]);

        let another_leader = with(&[topic(1, "t", &[1, 2], 2)]);
        assert!(!follow(&watch, &first, &another_leader));

        let moved = another_leader.speculate(&[broker(2, 3, "c")]).expect("fits");
        assert!(follow(&watch, &another_leader, &moved));
        assert_eq!(racks(&watch, "t"), ["a", "c"]);

        // Deleted and created again: another topic under the name.
        let again = with(&[topic(2, "t", &[1], 1)]);
        assert!(follow(&watch, &moved, &again));
        assert_eq!(racks(&watch, "t"), ["a"]);
        assert_eq!(watch.subscribe().borrow().topics().count(), 1);
        assert!(follow(&watch, &again, &nothing));
        assert_eq!(watch.subscribe().borrow().topics().count(), 0);
    }
}
