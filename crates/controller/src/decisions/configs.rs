//! Configuration changed at runtime, and what that changes about partitions.

use std::collections::{BTreeMap, BTreeSet};

use metadata::{
    ClusterImage, ConfigResource,
    configs::{
        CleanerSettings, ConfigError, ConfigKind, GroupTimes, NodeDefaults, Scope, TopicSettings,
        config_kind, effective_value, list_items, validate,
    },
    records,
};
use protocol::{
    TopicPartition,
    grpc::v1::{
        AlterConfig, AlterConfigsRequest, AlterConfigsResource, AlterConfigsResult, ConfigOp, MetadataRecord,
    },
};

use super::{
    AlterConfigsError, Outcome, View, elections::all_partitions, kafka_error,
    partition_change::PartitionChange, success,
};

/// Keys of which controllers and leaders must be of one mind: they decide who may be elected.
const ELECTION_KEYS: [&str; 2] = ["min.insync.replicas", "unclean.leader.election.enable"];

/// Changes configurations, each resource by itself, incrementally or (`replace_all`) so that keys that
/// are not named are removed.
///
/// Where `min.insync.replicas` changes, the same records bring every ELR into line with it: a lower one
/// lets the high watermark move, and then whoever is outside the ISR no longer has every record. Where
/// unclean elections become allowed, partitions without a leader get one.
pub fn alter_configs(view: View<'_>, request: &AlterConfigsRequest) -> Outcome<Vec<AlterConfigsResult>> {
    let mut image = view.image.clone();
    let mut made = Vec::new();
    let mut seen = BTreeSet::new();
    let results = request.resources.iter().map(|wish| {
        let result = if seen.insert((wish.resource_type, wish.resource_name.clone())) {
            let view = View {
                image: &image,
                ..view
            };
            alter(view, wish, request.replace_all)
        } else {
            Err(AlterConfigsError::NamedTwice(wish.resource_name.clone()))
        };
        let error = match result {
            Ok((next, records)) => {
                image = next;
                made.extend(records);
                success()
            }
            Err(error) => kafka_error(&error),
        };
        AlterConfigsResult {
            resource_type: wish.resource_type,
            resource_name: wish.resource_name.clone(),
            error: Some(error),
        }
    });
    let reply = results.collect();
    Outcome {
        records: if request.validate_only { Vec::new() } else { made },
        reply,
    }
}

/// Makes the controller's static `min.insync.replicas` the cluster-wide default where none is set, so
/// that every node resolves the same value. To be decided first in a controller's term.
pub fn publish_agreed_defaults(view: View<'_>) -> Outcome<()> {
    let key = "min.insync.replicas";
    let resource = ConfigResource::ClusterDefault;
    let value = view.defaults.value(key);
    let record = value
        .filter(|value| validate(Scope::ClusterDefault, key, value).is_ok())
        .filter(|_| view.image.config(&resource, key).is_none())
        .map(|value| records::config_record(&resource, key, Some(value)));
    let decided = record.and_then(|record| with_consequences(view, &resource, vec![record]).ok());
    Outcome {
        records: decided.map(|(_, records)| records).unwrap_or_default(),
        reply: (),
    }
}

/// The image after the change, and the records that make it.
type Changed = (ClusterImage, Vec<MetadataRecord>);

fn alter(
    view: View<'_>,
    wish: &AlterConfigsResource,
    replace_all: bool,
) -> Result<Changed, AlterConfigsError> {
    let resource = records::resource_from_record(wish.resource_type, &wish.resource_name)
        .map_err(AlterConfigsError::Resource)?;
    if let ConfigResource::Topic(name) = &resource
        && !view.image.topic_ids.contains_key(name)
    {
        return Err(AlterConfigsError::UnknownTopic(name.clone()));
    }
    let old = view.image.configs.get(&resource).cloned().unwrap_or_default();
    let mut new: BTreeMap<String, Option<String>> = BTreeMap::new();
    for change in &wish.configs {
        let value = changed_value(view, &resource, change)?;
        if new.insert(change.key.clone(), value).is_some() {
            return Err(AlterConfigsError::NamedTwice(change.key.clone()));
        }
    }
    if replace_all {
        for key in old.keys() {
            new.entry(key.clone()).or_insert(None);
        }
    }
    let made = new
        .iter()
        .filter(|(key, value)| old.get(*key) != value.as_ref())
        .map(|(key, value)| records::config_record(&resource, key, value.as_deref()))
        .collect();
    let changed = with_consequences(view, &resource, made)?;
    check_cleaner(view.image, &changed.0, &resource)?;
    match &resource {
        ConfigResource::Group(group) => {
            GroupTimes::set_for(&changed.0, group).check(&changed.0, view.defaults)?;
        }
        ConfigResource::Topic(name) => TopicSettings::check(&changed.0, name, view.defaults)?,
        ConfigResource::Broker(_) | ConfigResource::ClusterDefault => {}
    }
    Ok(changed)
}

/// The cleaners' threads and their memory must go together, as far as they are set at runtime: what
/// stands in the brokers' files is not known here.
fn check_cleaner(
    before: &ClusterImage,
    after: &ClusterImage,
    resource: &ConfigResource,
) -> Result<(), ConfigError> {
    let node = match resource {
        ConfigResource::Topic(_) | ConfigResource::Group(_) => return Ok(()),
        ConfigResource::Broker(id) => NodeDefaults::of_broker(*id, BTreeMap::new()),
        ConfigResource::ClusterDefault => NodeDefaults::default(),
    };
    let set = CleanerSettings::resolve(after, &node);
    // What was wrong before must not stand in the way of other changes.
    if set == CleanerSettings::resolve(before, &node) {
        return Ok(());
    }
    set.check()
}

/// What the key is to be; `None`: removed.
fn changed_value(
    view: View<'_>,
    resource: &ConfigResource,
    change: &AlterConfig,
) -> Result<Option<String>, AlterConfigsError> {
    let scope = match resource {
        ConfigResource::Topic(_) => Scope::Topic,
        ConfigResource::Group(_) => Scope::Group,
        ConfigResource::Broker(_) => Scope::Broker,
        ConfigResource::ClusterDefault => Scope::ClusterDefault,
    };
    let op = ConfigOp::try_from(change.op).map_err(|_| AlterConfigsError::UnknownOperation {
        key: change.key.clone(),
        op: change.op,
    })?;
    let kind = config_kind(scope, &change.key)?;
    let given = || {
        let value = change.value.as_deref();
        value.ok_or_else(|| AlterConfigsError::NullValue(change.key.clone()))
    };
    let value = match op {
        ConfigOp::Delete => return Ok(None),
        ConfigOp::Set => given()?.to_owned(),
        ConfigOp::Append | ConfigOp::Subtract => {
            if kind != ConfigKind::List {
                return Err(AlterConfigsError::NotAList(change.key.clone()));
            }
            let current = effective_value(view.image, resource, &change.key, view.defaults);
            let current = current.unwrap_or_default();
            let mut items = list_items(&current);
            let named = list_items(given()?);
            items.retain(|item| !named.contains(item));
            if op == ConfigOp::Append {
                items.extend(named);
            }
            items.join(",")
        }
    };
    validate(scope, &change.key, &value)?;
    Ok(Some(value))
}

/// Adds what the changed keys mean for partitions.
fn with_consequences(
    view: View<'_>,
    resource: &ConfigResource,
    mut made: Vec<MetadataRecord>,
) -> Result<Changed, metadata::ApplyError> {
    let mut image = view.image.speculate(&made)?;
    let changed = ELECTION_KEYS
        .iter()
        .any(|key| image.config(resource, key) != view.image.config(resource, key));
    if changed {
        let after = View {
            image: &image,
            ..view
        };
        let consequences: Vec<_> = affected(&image, resource)
            .into_iter()
            .filter_map(|tp| PartitionChange::of(after, tp)?.record(|id| after.is_eligible(id)))
            .collect();
        image = image.speculate(&consequences)?;
        made.extend(consequences);
    }
    Ok((image, made))
}

/// The partitions for which a resource's keys count in elections.
fn affected(image: &ClusterImage, resource: &ConfigResource) -> Vec<TopicPartition> {
    match resource {
        ConfigResource::Topic(name) => match image.topic(name.as_str()) {
            Some(topic) => topic
                .partitions
                .keys()
                .map(|&index| TopicPartition::new(topic.id, index))
                .collect(),
            None => Vec::new(),
        },
        ConfigResource::ClusterDefault => all_partitions(image).collect(),
        ConfigResource::Broker(_) | ConfigResource::Group(_) => Vec::new(),
    }
}
