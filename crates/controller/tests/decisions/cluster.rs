//! A cluster that consists of its image: decisions are applied as the log would apply them.

use std::collections::BTreeMap;

use controller::decisions::{self, Outcome, Registered, View};
use metadata::{ClusterImage, PartitionRegistration, configs::NodeDefaults, records};
use protocol::{
    BrokerEpoch, BrokerId, ClaimId, DirectoryId, ErrorCode, IncarnationId, LeaderEpoch, Offset,
    PartitionIndex, TopicId, TopicPartition,
    grpc::v1::{
        AlterPartition, AlterPartitionsRequest, AlteredPartition, ConfigEntry, CreateTopicsRequest,
        CreatedTopic, InternalHello, IsrMember, KafkaError, MetadataRecord, NewTopic, Register,
    },
};

/// The image, and what makes the next incarnation and topic.
pub(crate) struct Cluster {
    pub(crate) image: ClusterImage,
    pub(crate) defaults: NodeDefaults,
    incarnations: u128,
    topics: u128,
}

pub(crate) fn b(id: i32) -> BrokerId {
    BrokerId(id)
}

pub(crate) fn dir(id: u128) -> DirectoryId {
    DirectoryId(uuid::Uuid::from_u128(id))
}

/// The error's code by name; `None` is success.
pub(crate) fn code(error: Option<&KafkaError>) -> ErrorCode {
    let code = error.expect("every reply has an error field").code;
    ErrorCode::from_code(i16::try_from(code).expect("16 bits")).expect("a known code")
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let claim = ClaimId(uuid::Uuid::from_u128(1));
        let image = ClusterImage::default()
            .apply(Offset(0), LeaderEpoch(1), Some(&records::claim_entry(claim)))
            .expect("fits");
        Self {
            image,
            defaults: NodeDefaults::default(),
            incarnations: 0,
            topics: 0,
        }
    }

    /// Live brokers with these ids, each with a directory of its own id, in the rack of that name.
    pub(crate) fn with_brokers(ids: &[i32], rack: impl Fn(i32) -> &'static str) -> Self {
        let mut cluster = Self::new();
        for &id in ids {
            let mut request = cluster.registration(id);
            rack(id).clone_into(&mut request.rack);
            cluster.register(&request);
            cluster.unfence(id);
        }
        cluster
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            image: &self.image,
            defaults: &self.defaults,
        }
    }

    /// Commits an outcome and hands back its reply.
    pub(crate) fn commit<R>(&mut self, outcome: Outcome<R>) -> R {
        self.commit_records(outcome.records);
        outcome.reply
    }

    fn commit_records(&mut self, records: Vec<MetadataRecord>) {
        if records.is_empty() {
            return;
        }
        let before = self.image.clone();
        assert_eq!(self.image.speculate(&records).map(|_| ()), Ok(()));
        let entry = records::entry(self.image.claim, records);
        let offset = self.image.offset.map_or(Offset(0), Offset::next);
        self.image = self
            .image
            .apply(offset, LeaderEpoch(1), Some(&entry))
            .expect("decisions fit the image they were made on");
        self.assert_invariants(&before);
    }

    /// What must hold after every decision.
    fn assert_invariants(&self, before: &ClusterImage) {
        for topic in self.image.topics.values() {
            for (&index, partition) in &topic.partitions {
                assert_eq!(partition.check(), Ok(()));
                let eligible =
                    |id: &BrokerId| self.view().image.brokers.get(id).is_some_and(|b| b.is_eligible());
                assert!(
                    partition.isr.iter().all(eligible),
                    "ISR of live brokers: {partition:?}"
                );
                let enough = metadata::configs::min_insync_replicas(
                    &self.image,
                    &topic.name,
                    partition.replicas.len(),
                );
                assert!(
                    partition.isr.len() < enough || partition.elr.is_empty(),
                    "an ELR beside enough in-sync replicas: {partition:?}"
                );
                assert!(
                    partition.leader.is_some() || partition.isr.is_empty(),
                    "in sync with no leader: {partition:?}"
                );
                let Some(old) = before.partition(TopicPartition::new(topic.id, index)) else {
                    continue;
                };
                assert!(partition.leader_epoch >= old.leader_epoch);
                assert!(partition.leader == old.leader || partition.leader_epoch > old.leader_epoch);
                assert!(partition == old || partition.partition_epoch > old.partition_epoch);
            }
        }
    }

    /// A new incarnation of the broker, with the directory that has its id.
    pub(crate) fn registration(&mut self, id: i32) -> Register {
        self.incarnations += 1;
        let incarnation = IncarnationId(uuid::Uuid::from_u128(self.incarnations));
        Register {
            hello: Some(InternalHello {
                node_id: id,
                incarnation_id: incarnation.to_vec().into(),
                ..InternalHello::default()
            }),
            internal_address: format!("127.0.0.1:{}", 19092 + id),
            log_dirs: vec![dir(id as u128).to_vec().into()],
            ..Register::default()
        }
    }

    pub(crate) fn register(&mut self, request: &Register) -> Registered {
        let next = BrokerEpoch(self.image.offset.map_or(0, Offset::get) + 1);
        let outcome = decisions::register(self.view(), request, next, false).expect("well formed");
        self.commit(outcome)
    }

    /// The broker's process ends and another begins.
    pub(crate) fn restart(&mut self, id: i32) {
        let request = self.registration(id);
        self.register(&request);
        self.unfence(id);
    }

    pub(crate) fn epoch(&self, id: i32) -> BrokerEpoch {
        self.image
            .brokers
            .get(&b(id))
            .map_or(BrokerEpoch(-1), |broker| broker.epoch)
    }

    pub(crate) fn fence(&mut self, id: i32) {
        let outcome = decisions::fence(self.view(), b(id));
        self.commit(outcome);
    }

    pub(crate) fn unfence(&mut self, id: i32) {
        let outcome = decisions::unfence(self.view(), b(id), self.epoch(id)).expect("current epoch");
        self.commit(outcome);
    }

    pub(crate) fn create_with(&mut self, request: &CreateTopicsRequest) -> Vec<CreatedTopic> {
        let mut topics = self.topics;
        let mut fresh = || {
            topics += 1;
            TopicId(uuid::Uuid::from_u128(topics))
        };
        let outcome = decisions::create_topics(self.view(), request, 7, &mut fresh);
        self.topics = topics;
        self.commit(outcome)
    }

    /// Creates a topic of one partition on exactly these brokers.
    pub(crate) fn create(
        &mut self,
        name: &str,
        replicas: &[i32],
        configs: &[(&str, &str)],
    ) -> TopicPartition {
        let topic = NewTopic {
            name: name.to_owned(),
            partitions: -1,
            replication_factor: -1,
            assignments: vec![protocol::grpc::v1::ReplicaAssignment {
                partition: 0,
                brokers: replicas.to_vec(),
            }],
            configs: configs
                .iter()
                .map(|(key, value)| ConfigEntry {
                    key: (*key).to_owned(),
                    value: Some((*value).to_owned()),
                })
                .collect(),
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..CreateTopicsRequest::default()
        };
        let created = self.create_with(&request);
        assert_eq!(code(created[0].error.as_ref()), ErrorCode::None);
        let id = TopicId::from_slice(&created[0].topic_id).expect("16 bytes");
        TopicPartition::new(id, PartitionIndex(0))
    }

    pub(crate) fn partition(&self, tp: TopicPartition) -> PartitionRegistration {
        (**self.image.partition(tp).expect("the partition is there")).clone()
    }

    /// Leader, ISR and ELR of a partition.
    pub(crate) fn state(&self, tp: TopicPartition) -> (Option<i32>, Vec<i32>, Vec<i32>) {
        let partition = self.partition(tp);
        let raw = |ids: &[BrokerId]| ids.iter().map(|id| id.get()).collect();
        (
            partition.leader.map(BrokerId::get),
            raw(&partition.isr),
            raw(&partition.elr),
        )
    }

    /// The request by which the partition's leader would set its in-sync set.
    pub(crate) fn alter_request(&self, tp: TopicPartition, isr: &[i32]) -> AlterPartitionsRequest {
        let partition = self.partition(tp);
        let leader = partition.leader.map_or(-1, BrokerId::get);
        AlterPartitionsRequest {
            broker_id: leader,
            broker_epoch: self.epoch(leader).get(),
            partitions: vec![AlterPartition {
                topic_id: tp.topic_id.to_vec().into(),
                partition: tp.partition.get(),
                leader_epoch: partition.leader_epoch.get(),
                partition_epoch: partition.partition_epoch.get(),
                new_isr: isr
                    .iter()
                    .map(|&id| IsrMember {
                        broker_id: id,
                        broker_epoch: self.epoch(id).get(),
                    })
                    .collect(),
            }],
        }
    }

    pub(crate) fn alter(&mut self, request: &AlterPartitionsRequest) -> AlteredPartition {
        let outcome = decisions::alter_partitions(self.view(), request).expect("the sender is current");
        self.commit(outcome).remove(0)
    }

    /// The partition's leader sets its in-sync set.
    pub(crate) fn set_isr(&mut self, tp: TopicPartition, isr: &[i32]) {
        let altered = self.alter(&self.alter_request(tp, isr));
        assert_eq!(code(altered.error.as_ref()), ErrorCode::None);
    }

    pub(crate) fn defaults(&mut self, values: &[(&str, &str)]) {
        let values = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        self.defaults = NodeDefaults::new(values.collect::<BTreeMap<_, _>>());
    }
}
