//! Topics: created, given more partitions, deleted.

use std::collections::BTreeSet;

use metadata::{
    ClusterImage, ConfigResource, PartitionRegistration,
    configs::{Scope, TopicSettings, describe, min_insync_replicas, validate},
    records,
};
use protocol::{
    BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId, TopicName, TopicPartition,
    grpc::v1::{
        ConfigEntry, CreatePartitionsRequest, CreateTopicsRequest, CreatedTopic, DeleteTopicsRequest,
        DeletedTopic, MetadataRecord, NamedError, NewPartitions, NewTopic, RemoveTopicRecord,
        ReplicaAssignment, TopicRef, metadata_record::Record,
    },
};

use super::{Outcome, Placer, TopicError, View, kafka_error, success};

/// How many partitions one request may make, as in Kafka.
pub const MAX_PARTITIONS_PER_REQUEST: usize = 10_000;

/// The metadata log looks like a topic to tools; nobody creates one of that name.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// Topics that their coordinators create for themselves.
const INTERNAL_TOPICS: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Creates the request's topics, each by itself: one that is refused does not stop the others.
/// `seed` decides ties of placement, `fresh_id` gives a random id each time it is asked.
/// With `validate_only` the reply is the same and nothing is created.
pub fn create_topics(
    view: View<'_>,
    request: &CreateTopicsRequest,
    seed: u64,
    fresh_id: &mut dyn FnMut() -> TopicId,
) -> Outcome<Vec<CreatedTopic>> {
    let mut working = Working::new(view, seed);
    let named_twice = repeated(request.topics.iter().map(|topic| topic.name.as_str()));
    let results = request.topics.iter().map(|wish| {
        let made = if named_twice.contains(wish.name.as_str()) {
            Err(TopicError::NamedTwice)
        } else {
            create_topic(&mut working, wish, request.auto_create, fresh_id)
        };
        made.unwrap_or_else(|error| CreatedTopic {
            name: wish.name.clone(),
            error: Some(kafka_error(&error)),
            topic_id: TopicId::ZERO.to_vec().into(),
            partitions: -1,
            replication_factor: -1,
            configs: Vec::new(),
        })
    });
    let reply = results.collect();
    working.outcome(request.validate_only, reply)
}

fn create_topic(
    working: &mut Working<'_>,
    wish: &NewTopic,
    auto_create: bool,
    fresh_id: &mut dyn FnMut() -> TopicId,
) -> Result<CreatedTopic, TopicError> {
    let name = TopicName::new(&wish.name)?;
    check_name(&working.image, &name, auto_create)?;
    for config in &wish.configs {
        let value = config
            .value
            .as_deref()
            .ok_or_else(|| TopicError::NullValue(config.key.clone()))?;
        validate(Scope::Topic, &config.key, value)?;
    }
    let assignments = if wish.assignments.is_empty() {
        working.place_new(wish)?
    } else {
        working.check_count(wish.assignments.len())?;
        working.assigned_new(wish)?
    };
    let id = fresh_id();
    let mut made = vec![records::topic_record(id, &name)];
    let resource = ConfigResource::Topic(name.clone());
    made.extend(
        wish.configs
            .iter()
            .map(|config| records::config_record(&resource, &config.key, config.value.as_deref())),
    );
    let configured = working.image.speculate(&made)?;
    TopicSettings::check(&configured, &name, working.view.defaults)?;
    made.extend(working.partition_records(&configured, id, 0, &assignments));
    working.add(made, assignments.len())?;
    let described = describe(&working.image, &resource, working.view.defaults);
    Ok(CreatedTopic {
        name: wish.name.clone(),
        error: Some(success()),
        topic_id: id.to_vec().into(),
        partitions: assignments.len() as i32,
        replication_factor: assignments.first().map_or(0, Vec::len) as i32,
        configs: described
            .into_iter()
            .map(|config| ConfigEntry {
                key: config.name.to_owned(),
                value: config.value,
            })
            .collect(),
    })
}

fn check_name(image: &ClusterImage, name: &TopicName, auto_create: bool) -> Result<(), TopicError> {
    let reserved = name.as_str() == METADATA_TOPIC || auto_create && INTERNAL_TOPICS.contains(&name.as_str());
    if reserved {
        return Err(TopicError::Reserved(name.clone()));
    }
    if image.topic_ids.contains_key(name) {
        return Err(TopicError::Exists(name.clone()));
    }
    // Only names with one of these can collide with another.
    if name.as_str().contains(['.', '_'])
        && let Some(existing) = image
            .topic_ids
            .keys()
            .find(|existing| name.collides_with(existing))
    {
        return Err(TopicError::Collides {
            name: name.clone(),
            existing: existing.clone(),
        });
    }
    Ok(())
}

/// Gives topics more partitions, each topic by itself.
pub fn create_partitions(
    view: View<'_>,
    request: &CreatePartitionsRequest,
    seed: u64,
) -> Outcome<Vec<NamedError>> {
    let mut working = Working::new(view, seed);
    let named_twice = repeated(request.topics.iter().map(|topic| topic.name.as_str()));
    let results = request.topics.iter().map(|wish| {
        let made = if named_twice.contains(wish.name.as_str()) {
            Err(TopicError::NamedTwice)
        } else {
            add_partitions(&mut working, wish)
        };
        NamedError {
            name: wish.name.clone(),
            error: Some(made.err().map_or_else(success, |error| kafka_error(&error))),
        }
    });
    let reply = results.collect();
    working.outcome(request.validate_only, reply)
}

fn add_partitions(working: &mut Working<'_>, wish: &NewPartitions) -> Result<(), TopicError> {
    let topic = working
        .image
        .topic(&wish.name)
        .cloned()
        .ok_or_else(|| TopicError::UnknownName(wish.name.clone()))?;
    if INTERNAL_TOPICS.contains(&wish.name.as_str()) {
        // Groups and transactions would be looked for where they are not.
        return Err(TopicError::Partitions(format!(
            "the number of partitions of {} cannot be changed",
            wish.name
        )));
    }
    let present = topic.partitions.len();
    let wanted = usize::try_from(wish.count).unwrap_or(0);
    if wanted == present {
        return Err(TopicError::Partitions(format!(
            "topic already has {present} partitions"
        )));
    }
    let Some(more) = wanted.checked_sub(present) else {
        return Err(TopicError::Partitions(format!(
            "topic has {present} partitions; {} would not be an increase",
            wish.count
        )));
    };
    working.check_count(more)?;
    let held: Vec<_> = topic.partitions.values().map(|p| p.replicas.clone()).collect();
    let replication_factor = held.first().map_or(1, Vec::len);
    let assignments = if wish.assignments.is_empty() {
        working
            .placer
            .place(&held, more, replication_factor)
            .map_err(|error| TopicError::ReplicationFactor(error.to_string()))?
    } else {
        if wish.assignments.len() != more {
            return Err(TopicError::Assignment(format!(
                "{more} partitions are added and {} assignments given",
                wish.assignments.len()
            )));
        }
        let assigned = working.assigned(&wish.assignments)?;
        if assigned
            .iter()
            .any(|replicas| replicas.len() != replication_factor)
        {
            return Err(TopicError::Assignment(format!(
                "an assignment does not have the topic's {replication_factor} replicas"
            )));
        }
        assigned
    };
    let image = working.image.clone();
    let made = working.partition_records(&image, topic.id, present, &assignments);
    working.add(made, more)
}

/// Deletes topics, by name or by id. What was created later in the same request's time is another topic.
pub fn delete_topics(view: View<'_>, request: &DeleteTopicsRequest) -> Outcome<Vec<DeletedTopic>> {
    let mut made = Vec::new();
    // Once by its name and once by its id is twice too; neither is carried out.
    let found = request.topics.iter().filter_map(|named| find(view, named).ok());
    let named_twice = repeated(found.map(|(id, _)| id));
    let results = request.topics.iter().map(|named| {
        let result = find(view, named).and_then(|(id, name)| {
            if named_twice.contains(&id) {
                Err(TopicError::NamedTwice)
            } else {
                Ok((id, name))
            }
        });
        match result {
            Ok((id, name)) => {
                made.push(records::record(Record::RemoveTopic(RemoveTopicRecord {
                    topic_id: id.to_vec().into(),
                })));
                DeletedTopic {
                    name: name.to_string(),
                    topic_id: id.to_vec().into(),
                    error: Some(success()),
                }
            }
            Err(error) => DeletedTopic {
                name: named.name.clone(),
                topic_id: named.topic_id.clone(),
                error: Some(kafka_error(&error)),
            },
        }
    });
    let reply = results.collect();
    Outcome { records: made, reply }
}

fn find(view: View<'_>, named: &TopicRef) -> Result<(TopicId, TopicName), TopicError> {
    if view.defaults.value_or_default("delete.topic.enable") == Some("false") {
        return Err(TopicError::DeletionDisabled);
    }
    let topic = if named.name.is_empty() {
        let id = TopicId::from_slice(&named.topic_id).unwrap_or_default();
        let found = view.image.topics.get(&id);
        found.ok_or_else(|| TopicError::UnknownId(id.to_string()))?
    } else {
        let found = view.image.topic(&named.name);
        found.ok_or_else(|| TopicError::UnknownName(named.name.clone()))?
    };
    Ok((topic.id, topic.name.clone()))
}

fn repeated<T: Ord + Copy>(named: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    named.filter(|name| !seen.insert(*name)).collect()
}

/// One request in the making: each topic is decided on an image that has the ones before it.
struct Working<'a> {
    view: View<'a>,
    image: ClusterImage,
    placer: Placer,
    records: Vec<MetadataRecord>,
    partitions: usize,
}

impl<'a> Working<'a> {
    fn new(view: View<'a>, seed: u64) -> Self {
        Self {
            view,
            image: view.image.clone(),
            placer: Placer::new(view, seed),
            records: Vec::new(),
            partitions: 0,
        }
    }

    fn add(&mut self, records: Vec<MetadataRecord>, partitions: usize) -> Result<(), TopicError> {
        self.image = self.image.speculate(&records)?;
        self.records.extend(records);
        self.partitions += partitions;
        Ok(())
    }

    fn outcome<R>(self, validate_only: bool, reply: R) -> Outcome<R> {
        Outcome {
            records: if validate_only { Vec::new() } else { self.records },
            reply,
        }
    }

    /// Refuses a number of partitions that no topic, or no request, may have.
    fn check_count(&self, partitions: usize) -> Result<(), TopicError> {
        if partitions > MAX_PARTITIONS_PER_REQUEST {
            return Err(TopicError::Partitions(format!(
                "{partitions} partitions are more than the {MAX_PARTITIONS_PER_REQUEST} that one request may make"
            )));
        }
        if self.partitions + partitions > MAX_PARTITIONS_PER_REQUEST {
            return Err(TopicError::TooMany(MAX_PARTITIONS_PER_REQUEST));
        }
        Ok(())
    }

    fn default_number(&self, key: &str) -> usize {
        let value = self.view.defaults.value_or_default(key);
        value.and_then(|value| value.trim().parse().ok()).unwrap_or(1)
    }

    /// Places a new topic by number of partitions and replication factor.
    fn place_new(&mut self, wish: &NewTopic) -> Result<Vec<Vec<BrokerId>>, TopicError> {
        let replication_factor = match wish.replication_factor {
            -1 => self.default_number("default.replication.factor"),
            factor if factor > 0 => factor as usize,
            factor => {
                return Err(TopicError::ReplicationFactor(format!(
                    "replication factor {factor} must be larger than 0, or -1 for the default"
                )));
            }
        };
        let partitions = match wish.partitions {
            -1 => self.default_number("num.partitions"),
            count if count > 0 => count as usize,
            count => {
                return Err(TopicError::Partitions(format!(
                    "number of partitions {count} must be larger than 0, or -1 for the default"
                )));
            }
        };
        self.check_count(partitions)?;
        self.placer
            .place(&[], partitions, replication_factor)
            .map_err(|error| TopicError::ReplicationFactor(error.to_string()))
    }

    /// Takes a new topic's assignment from the request.
    fn assigned_new(&self, wish: &NewTopic) -> Result<Vec<Vec<BrokerId>>, TopicError> {
        if wish.replication_factor != -1 {
            return Err(TopicError::Contradiction(
                "an assignment is given, and a replication factor other than -1",
            ));
        }
        if wish.partitions != -1 {
            return Err(TopicError::Contradiction(
                "an assignment is given, and a number of partitions other than -1",
            ));
        }
        let mut assignments = wish.assignments.clone();
        assignments.sort_by_key(|assignment| assignment.partition);
        let consecutive = assignments
            .iter()
            .enumerate()
            .all(|(i, assignment)| usize::try_from(assignment.partition) == Ok(i));
        if !consecutive {
            return Err(TopicError::Assignment(
                "the partitions of an assignment must be 0, 1, 2 and so on".to_owned(),
            ));
        }
        self.assigned(&assignments)
    }

    /// Checks assignments against the brokers and each other.
    fn assigned(&self, assignments: &[ReplicaAssignment]) -> Result<Vec<Vec<BrokerId>>, TopicError> {
        let mut placed: Vec<Vec<BrokerId>> = Vec::with_capacity(assignments.len());
        for assignment in assignments {
            let replicas: Vec<_> = assignment.brokers.iter().copied().map(BrokerId).collect();
            let refuse = |what: String| {
                Err(TopicError::Assignment(format!(
                    "partition {}: {what}",
                    assignment.partition
                )))
            };
            if replicas.is_empty() {
                return refuse("it has no replicas".to_owned());
            }
            if replicas.iter().collect::<BTreeSet<_>>().len() != replicas.len() {
                return refuse("a broker is named twice".to_owned());
            }
            let unknown = replicas.iter().find(|id| !self.image.brokers.contains_key(*id));
            if let Some(unknown) = unknown {
                return refuse(format!("broker {unknown} is not registered"));
            }
            if !replicas.iter().any(|&id| self.view.is_eligible(id)) {
                return refuse("all its brokers are fenced or shutting down".to_owned());
            }
            if placed.first().is_some_and(|first| first.len() != replicas.len()) {
                return refuse("it has another number of replicas than the first".to_owned());
            }
            placed.push(replicas);
        }
        Ok(placed)
    }

    /// The records of new partitions from index `first` on, of a topic that is in `image` with its settings.
    /// Only live replicas begin in sync. Where they are fewer than `min.insync.replicas` the others begin in
    /// the ELR: nothing can be acknowledged before there are enough, so they lack nothing, and the partition
    /// outlives the loss of the only live disk.
    fn partition_records(
        &mut self,
        image: &ClusterImage,
        topic: TopicId,
        first: usize,
        assignments: &[Vec<BrokerId>],
    ) -> Vec<MetadataRecord> {
        let mut made = Vec::with_capacity(assignments.len());
        for (index, replicas) in (first..).zip(assignments) {
            let isr: Vec<_> = replicas
                .iter()
                .copied()
                .filter(|&id| self.view.is_eligible(id))
                .collect();
            let enough = image
                .topics
                .get(&topic)
                .map_or(1, |topic| min_insync_replicas(image, &topic.name, replicas.len()));
            let elr = if isr.len() < enough {
                replicas.iter().copied().filter(|id| !isr.contains(id)).collect()
            } else {
                Vec::new()
            };
            let partition = PartitionRegistration {
                directories: replicas.iter().map(|&id| self.placer.directory(id)).collect(),
                replicas: replicas.clone(),
                leader: isr.first().copied(),
                isr,
                elr,
                leader_epoch: LeaderEpoch::ZERO,
                partition_epoch: PartitionEpoch::ZERO,
                adding: Vec::new(),
                removing: Vec::new(),
            };
            let tp = TopicPartition::new(topic, PartitionIndex(index as i32));
            made.push(records::partition_record(tp, &partition));
        }
        made
    }
}
