//! Images under random histories: applying is deterministic, snapshots rebuild exactly, deltas tell
//! what changed, claims and transactions hold back what must not show.

use std::collections::BTreeSet;

use metadata::{
    ApplyError, ClusterImage, ConfigResource, PartitionRegistration, SnapshotReader, delta::ImageDelta,
    records, snapshot_entries,
};
use proptest::prelude::*;
use protocol::{
    BrokerId, ClaimId, DirectoryId, IncarnationId, LeaderEpoch, Offset, PartitionEpoch, PartitionIndex,
    TopicId, TopicPartition,
    grpc::v1::{
        AbortTransactionRecord, BeginTransactionRecord, BrokerChangeRecord, ClusterRecord,
        EndTransactionRecord, FeatureRecord, MetadataEntry, MetadataRecord, PartitionChangeRecord,
        ProducerIdsRecord, RegisterBrokerRecord, RemoveTopicRecord, TopicRecord, UnregisterBrokerRecord,
        metadata_record::Record,
    },
};

/// One step of a random history, over few brokers and topics so that steps meet.
#[derive(Clone, Debug)]
enum Step {
    Register {
        broker: i32,
        dirs: u8,
    },
    Change {
        broker: i32,
        fenced: bool,
        leaving: bool,
    },
    Unregister {
        broker: i32,
    },
    CreateTopic {
        topic: u8,
        partitions: u8,
        first_replica: i32,
    },
    ChangePartition {
        topic: u8,
        partition: i32,
        isr: u8,
        leader: u8,
        reverse: bool,
    },
    RemoveTopic {
        topic: u8,
    },
    Config {
        resource: u8,
        key: u8,
        value: Option<u8>,
    },
    ProducerIds {
        by: i64,
    },
    Feature {
        name: u8,
        level: i16,
    },
    Begin,
    End,
    Abort,
    Claim(u8),
    ForeignEntry,
    Blank,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    prop_oneof![
        3 => (1..5i32, 0..3u8).prop_map(|(broker, dirs)| Register { broker, dirs }),
        2 => (1..5i32, any::<bool>(), any::<bool>())
            .prop_map(|(broker, fenced, leaving)| Change { broker, fenced, leaving }),
        1 => (1..5i32).prop_map(|broker| Unregister { broker }),
        4 => (0..4u8, 1..4u8, 1..4i32)
            .prop_map(|(topic, partitions, first_replica)| CreateTopic { topic, partitions, first_replica }),
        6 => (0..4u8, 0..3i32, any::<u8>(), 0..3u8, any::<bool>()).prop_map(
            |(topic, partition, isr, leader, reverse)| ChangePartition { topic, partition, isr, leader, reverse }
        ),
        1 => (0..4u8).prop_map(|topic| RemoveTopic { topic }),
        3 => (0..6u8, 0..3u8, proptest::option::of(0..3u8))
            .prop_map(|(resource, key, value)| Config { resource, key, value }),
        1 => (0..3000i64).prop_map(|by| ProducerIds { by }),
        1 => (0..3u8, 0..3i16).prop_map(|(name, level)| Feature { name, level }),
        1 => Just(Begin),
        2 => Just(End),
        1 => Just(Abort),
        1 => (1..4u8).prop_map(Claim),
        1 => Just(ForeignEntry),
        1 => Just(Blank),
    ]
}

fn topic_id(topic: u8) -> TopicId {
    TopicId::from_slice(&[topic + 1; 16]).expect("16 bytes")
}

fn claim(id: u8) -> ClaimId {
    ClaimId::from_slice(&[id; 16]).expect("16 bytes")
}

fn dir(broker: i32) -> DirectoryId {
    DirectoryId::from_slice(&[broker as u8; 16]).expect("16 bytes")
}

fn config_resource(resource: u8) -> ConfigResource {
    match resource {
        0..4 => ConfigResource::Topic(format!("topic-{resource}").parse().expect("valid")),
        4 => ConfigResource::Broker(BrokerId(1)),
        _ => ConfigResource::ClusterDefault,
    }
}

/// The entry for a step; `None` stands for Raft's own. It may not fit the image.
fn entry_of(step: &Step, image: &ClusterImage, offset: i64) -> Option<MetadataEntry> {
    let epoch_of = |broker: i32| image.brokers.get(&BrokerId(broker)).map_or(0, |b| b.epoch.get());
    let mut made = Vec::new();
    match *step {
        Step::Register { broker, dirs } => made.push(Record::RegisterBroker(RegisterBrokerRecord {
            broker_id: broker,
            incarnation_id: IncarnationId::from_slice(&[7; 16])
                .expect("16 bytes")
                .to_vec()
                .into(),
            broker_epoch: offset,
            rack: if dirs == 1 { "r".to_owned() } else { String::new() },
            log_dirs: (0..dirs)
                .map(|d| dir(broker + i32::from(d)).to_vec().into())
                .collect(),
            internal_address: format!("host-{broker}:19092"),
            ..RegisterBrokerRecord::default()
        })),
        Step::Change {
            broker,
            fenced,
            leaving,
        } => made.push(Record::BrokerChange(BrokerChangeRecord {
            broker_id: broker,
            broker_epoch: epoch_of(broker),
            fenced: Some(fenced),
            in_controlled_shutdown: Some(leaving),
            log_dirs: None,
        })),
        Step::Unregister { broker } => made.push(Record::UnregisterBroker(UnregisterBrokerRecord {
            broker_id: broker,
            broker_epoch: epoch_of(broker),
        })),
        Step::CreateTopic {
            topic,
            partitions,
            first_replica,
        } => {
            made.push(Record::Topic(TopicRecord {
                topic_id: topic_id(topic).to_vec().into(),
                name: format!("topic-{topic}"),
            }));
            let replicas = [first_replica, first_replica + 1, first_replica + 2];
            let partition = PartitionRegistration {
                replicas: replicas.map(BrokerId).to_vec(),
                directories: replicas.map(dir).to_vec(),
                isr: replicas.map(BrokerId).to_vec(),
                elr: vec![],
                leader: Some(BrokerId(first_replica)),
                leader_epoch: LeaderEpoch(0),
                partition_epoch: PartitionEpoch(0),
                adding: vec![],
                removing: vec![],
            };
            made.extend((0..i32::from(partitions)).filter_map(|index| {
                let tp = TopicPartition::new(topic_id(topic), PartitionIndex(index));
                records::partition_record(tp, &partition).record
            }));
        }
        Step::ChangePartition {
            topic,
            partition,
            isr,
            leader,
            reverse,
        } => {
            let tp = TopicPartition::new(topic_id(topic), PartitionIndex(partition));
            let mut replicas = image
                .partition(tp)
                .map(|p| p.replicas.clone())
                .unwrap_or_default();
            let mut directories = image
                .partition(tp)
                .map(|p| p.directories.clone())
                .unwrap_or_default();
            if reverse {
                replicas.reverse();
                directories.reverse();
            }
            let (isr, elr): (Vec<_>, Vec<_>) = replicas
                .iter()
                .enumerate()
                .partition(|(i, _)| isr & (1 << i) != 0);
            let isr: Vec<_> = isr.into_iter().map(|(_, id)| *id).collect();
            let elr: Vec<_> = elr.into_iter().map(|(_, id)| *id).collect();
            made.push(Record::PartitionChange(PartitionChangeRecord {
                topic_id: topic_id(topic).to_vec().into(),
                partition,
                leader: Some(records::leader_to_record(isr.get(usize::from(leader)).copied())),
                bump_leader_epoch: true,
                isr: Some(records::broker_ids(&isr)),
                elr: Some(records::broker_ids(&elr)),
                replicas: Some(records::broker_ids(&replicas)),
                directories: directories.iter().map(|d| d.to_vec().into()).collect(),
                ..PartitionChangeRecord::default()
            }));
        }
        Step::RemoveTopic { topic } => made.push(Record::RemoveTopic(RemoveTopicRecord {
            topic_id: topic_id(topic).to_vec().into(),
        })),
        Step::Config { resource, key, value } => {
            let value = value.map(|value| value.to_string());
            let key = format!("key-{key}");
            made.extend(records::config_record(&config_resource(resource), &key, value.as_deref()).record);
        }
        Step::ProducerIds { by } => made.push(Record::ProducerIds(ProducerIdsRecord {
            broker_id: 1,
            broker_epoch: 1,
            next_producer_id: image.next_producer_id.get() + by,
        })),
        Step::Feature { name, level } => made.push(Record::Feature(FeatureRecord {
            name: format!("feature-{name}"),
            level: level.into(),
        })),
        Step::Begin => made.push(Record::BeginTransaction(BeginTransactionRecord::default())),
        Step::End => made.push(Record::EndTransaction(EndTransactionRecord {})),
        Step::Abort => made.push(Record::AbortTransaction(AbortTransactionRecord::default())),
        Step::Claim(id) => return Some(records::claim_entry(claim(id))),
        Step::ForeignEntry => {
            let forged = Record::Cluster(ClusterRecord {
                cluster_id: "foreign".to_owned(),
            });
            return Some(records::entry(claim(99), vec![records::record(forged)]));
        }
        Step::Blank => return None,
    }
    Some(records::entry(
        image.claim,
        made.into_iter().map(records::record).collect(),
    ))
}

fn rebuilt(image: &ClusterImage) -> ClusterImage {
    let (header, entries) = snapshot_entries(image);
    let mut reader = SnapshotReader::new(&header).expect("our own header");
    for entry in entries {
        reader.entry(&entry).expect("our own entry");
    }
    reader.finish()
}

fn assert_consistent(image: &ClusterImage) {
    let mut indexed = BTreeSet::new();
    for (&broker, partitions) in &image.partitions_by_broker {
        assert!(!partitions.is_empty());
        indexed.extend(partitions.iter().map(|&tp| (broker, tp)));
    }
    let mut named = BTreeSet::new();
    for (&id, topic) in &image.topics {
        assert_eq!(image.topic_ids.get(&topic.name), Some(&id));
        for (i, (&index, partition)) in topic.partitions.iter().enumerate() {
            assert_eq!(index.get(), i as i32);
            assert_eq!(partition.check(), Ok(()));
            named.extend(
                partition
                    .replicas
                    .iter()
                    .map(|&broker| (broker, TopicPartition::new(id, index))),
            );
        }
    }
    assert_eq!(image.topics.len(), image.topic_ids.len());
    assert_eq!(indexed, named);
    assert!(image.configs.values().all(|keys| !keys.is_empty()));
}

/// The delta of `older` and `newer` by looking at everything.
fn assert_delta(older: &ClusterImage, newer: &ClusterImage) {
    let delta = ImageDelta::between(older, newer);
    for (id, topic) in &newer.topics {
        for (&index, partition) in &topic.partitions {
            let tp = TopicPartition::new(*id, index);
            let changed = older.partition(tp) != Some(partition);
            assert_eq!(delta.changed_partitions.get(&tp), changed.then_some(partition));
        }
    }
    let gone = older
        .topics
        .keys()
        .filter(|id| !newer.topics.contains_key(*id))
        .copied();
    assert_eq!(delta.removed_topics, gone.collect());
    for id in older.brokers.keys().chain(newer.brokers.keys()) {
        let changed = older.brokers.get(id) != newer.brokers.get(id);
        assert_eq!(delta.changed_brokers.contains(id), changed);
    }
    for resource in older.configs.keys().chain(newer.configs.keys()) {
        let changed = older.configs.get(resource) != newer.configs.get(resource);
        assert_eq!(delta.changed_configs.contains(resource), changed);
    }
}

proptest! {
    #[test]
    fn random_histories_keep_every_promise(steps in prop::collection::vec(step(), 1..80)) {
        let mut image = ClusterImage::default();
        let mut history = vec![image.clone()];
        for (offset, step) in steps.iter().enumerate() {
            let offset = Offset(offset as i64);
            let entry = entry_of(step, &image, offset.get());
            let result = image.apply(offset, LeaderEpoch(1), entry.as_ref());
            prop_assert_eq!(&result, &image.apply(offset, LeaderEpoch(1), entry.as_ref()));
            // A rebuilt image takes the history on exactly as the original does.
            prop_assert_eq!(&result, &rebuilt(&image).apply(offset, LeaderEpoch(1), entry.as_ref()));
            let Ok(next) = result else { continue };
            assert_consistent(&next);
            prop_assert_eq!(&rebuilt(&next), &next);
            prop_assert_eq!(&next.cluster_id, &None);
            image = next;
            history.push(image.clone());
        }
        for (i, older) in history.iter().enumerate().step_by(7) {
            for newer in history.iter().skip(i).step_by(5) {
                assert_delta(older, newer);
            }
        }
    }

    #[test]
    fn no_bytes_make_apply_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(mut entry) = <MetadataEntry as prost::Message>::decode(&*bytes) {
            entry.format_version = 1;
            entry.claim_id = vec![0; 16].into();
            let _ = ClusterImage::default().apply(Offset(0), LeaderEpoch(0), Some(&entry));
        }
    }
}

fn feature(name: &str) -> MetadataRecord {
    records::record(Record::Feature(FeatureRecord {
        name: name.to_owned(),
        level: 1,
    }))
}

#[test]
fn an_entry_of_another_claim_only_moves_the_offset() {
    let image = ClusterImage::default();
    let image = image
        .apply(Offset(0), LeaderEpoch(1), Some(&records::claim_entry(claim(1))))
        .expect("fits");
    let image = image
        .apply(
            Offset(1),
            LeaderEpoch(2),
            Some(&records::entry(claim(2), vec![feature("late")])),
        )
        .expect("fits");
    assert!(image.features.is_empty());
    assert_eq!(
        (image.offset, image.epoch, image.claim),
        (Some(Offset(1)), LeaderEpoch(2), claim(1))
    );
}

#[test]
fn a_new_claim_drops_the_open_transaction() {
    let begin = records::record(Record::BeginTransaction(BeginTransactionRecord::default()));
    let end = records::record(Record::EndTransaction(EndTransactionRecord {}));
    let apply = |image: &ClusterImage, offset, entry: &MetadataEntry| {
        image.apply(Offset(offset), LeaderEpoch(1), Some(entry))
    };
    let image = apply(&ClusterImage::default(), 0, &records::claim_entry(claim(1))).expect("fits");
    let open = apply(&image, 1, &records::entry(claim(1), vec![begin, feature("half")])).expect("fits");
    assert!(open.features.is_empty());
    let whole = apply(
        &open,
        2,
        &records::entry(claim(1), vec![feature("rest"), end.clone()]),
    )
    .expect("fits");
    assert_eq!(whole.features.len(), 2);

    let reclaimed = apply(&open, 2, &records::claim_entry(claim(2))).expect("fits");
    let after = apply(&reclaimed, 3, &records::entry(claim(2), vec![end])).expect_err("nothing to end");
    assert!(matches!(
        after,
        ApplyError::Damaged {
            offset: Offset(3),
            ..
        }
    ));
    assert!(reclaimed.features.is_empty());
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let newer = MetadataEntry {
        format_version: 2,
        ..records::claim_entry(claim(1))
    };
    let error = ClusterImage::default()
        .apply(Offset(5), LeaderEpoch(1), Some(&newer))
        .expect_err("refused");
    assert_eq!(
        error.to_string(),
        "metadata entry at offset 5 has format version 2; this binary reads up to 1"
    );
}

#[test]
fn an_image_does_not_go_back() {
    let image = ClusterImage::default()
        .apply(Offset(5), LeaderEpoch(1), None)
        .expect("fits");
    assert!(image.apply(Offset(5), LeaderEpoch(1), None).is_err());
}
