//! A topic's configuration as typed values, after defaults.

use std::time::Duration;

use protocol::{
    TopicName,
    batch::{Compression, TimestampType},
};

use super::{
    def::{ConfigError, list_items},
    resolve::{NodeDefaults, topic_values},
    topic_table::topic_def,
};
use crate::{ClusterImage, ConfigResource};

const MIN_COMPACTION_LAG: &str = "min.compaction.lag.ms";
const MAX_COMPACTION_LAG: &str = "max.compaction.lag.ms";

/// `cleanup.policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Old segments are deleted by age and size.
    pub delete: bool,
    /// Records are compacted to the last one of each key.
    pub compact: bool,
}

/// `compression.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicCompression {
    /// As the producer sent it.
    Producer,
    /// Always this one.
    Fixed(Compression),
}

/// What holds for one topic on one node. [`TOPIC_CONFIGS`](super::TOPIC_CONFIGS) has the meaning and
/// the default of each.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicSettings {
    /// `cleanup.policy`.
    pub cleanup_policy: CleanupPolicy,
    /// `compression.type`.
    pub compression: TopicCompression,
    /// `delete.retention.ms`.
    pub delete_retention: Duration,
    /// `file.delete.delay.ms`.
    pub file_delete_delay: Duration,
    /// `flush.messages`: 1 means that durable is fdatasync.
    pub flush_messages: u64,
    /// `flush.ms`; `None`: never by time.
    pub flush_interval: Option<Duration>,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u32,
    /// `max.compaction.lag.ms`; `None`: no limit.
    pub max_compaction_lag: Option<Duration>,
    /// `max.message.bytes`.
    pub max_message_bytes: u32,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max: Duration,
    /// `message.timestamp.before.max.ms`; `None`: no limit.
    pub timestamp_before_max: Option<Duration>,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `min.cleanable.dirty.ratio`, from 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag: Duration,
    /// `min.insync.replicas`, at most the replication factor.
    pub min_insync_replicas: usize,
    /// `preallocate`.
    pub preallocate: bool,
    /// `retention.bytes`; `None`: no limit.
    pub retention_bytes: Option<u64>,
    /// `retention.ms`; `None`: for ever.
    pub retention: Option<Duration>,
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.index.bytes`.
    pub segment_index_bytes: u32,
    /// `segment.ms`.
    pub segment_age: Duration,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election: bool,
}

impl TopicSettings {
    /// What holds for `topic` on the node, at this image. The replication factor, on which the default
    /// of `min.insync.replicas` depends, is that of the topic's first partition (1 where there is none).
    pub fn resolve(image: &ClusterImage, topic: &TopicName, node: &NodeDefaults) -> Self {
        let replication_factor = image
            .topic(topic.as_str())
            .and_then(|topic| topic.partitions.values().next())
            .map_or(1, |partition| partition.replicas.len());
        let lookup = Lookup { image, topic, node };
        let policy = lookup.text("cleanup.policy");
        let policy = list_items(&policy);
        Self {
            cleanup_policy: CleanupPolicy {
                delete: policy.contains(&"delete"),
                compact: policy.contains(&"compact"),
            },
            compression: match lookup.text("compression.type").as_str() {
                "uncompressed" => TopicCompression::Fixed(Compression::None),
                "gzip" => TopicCompression::Fixed(Compression::Gzip),
                "snappy" => TopicCompression::Fixed(Compression::Snappy),
                "lz4" => TopicCompression::Fixed(Compression::Lz4),
                "zstd" => TopicCompression::Fixed(Compression::Zstd),
                _ => TopicCompression::Producer,
            },
            delete_retention: lookup.duration("delete.retention.ms"),
            file_delete_delay: lookup.duration("file.delete.delay.ms"),
            flush_messages: lookup.number("flush.messages").unsigned_abs(),
            flush_interval: lookup.limit("flush.ms"),
            index_interval_bytes: lookup.size("index.interval.bytes"),
            max_compaction_lag: lookup.limit(MAX_COMPACTION_LAG),
            max_message_bytes: lookup.size("max.message.bytes"),
            timestamp_after_max: lookup.duration("message.timestamp.after.max.ms"),
            timestamp_before_max: lookup.limit("message.timestamp.before.max.ms"),
            timestamp_type: match lookup.text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            min_cleanable_dirty_ratio: lookup.text("min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
            min_compaction_lag: lookup.duration(MIN_COMPACTION_LAG),
            min_insync_replicas: min_insync_replicas(image, topic, replication_factor),
            preallocate: lookup.truth("preallocate"),
            retention_bytes: u64::try_from(lookup.number("retention.bytes")).ok(),
            retention: lookup.limit("retention.ms"),
            segment_bytes: lookup.size("segment.bytes"),
            segment_index_bytes: lookup.size("segment.index.bytes"),
            segment_age: lookup.duration("segment.ms"),
            unclean_leader_election: lookup.truth("unclean.leader.election.enable"),
        }
    }

    /// Whether what holds for `topic` goes together, as Kafka's `LogConfig.validateValues` asks: a record must
    /// not be kept from compaction for longer than it may stay uncompacted. What nobody has set for the topic
    /// itself is not its fault.
    pub fn check(image: &ClusterImage, topic: &TopicName, node: &NodeDefaults) -> Result<(), ConfigError> {
        let resource = ConfigResource::Topic(topic.clone());
        if [MIN_COMPACTION_LAG, MAX_COMPACTION_LAG]
            .iter()
            .all(|key| image.config(&resource, key).is_none())
        {
            return Ok(());
        }
        let settings = Self::resolve(image, topic, node);
        let least = settings.min_compaction_lag;
        match settings.max_compaction_lag.filter(|most| least > *most) {
            None => Ok(()),
            Some(most) => Err(ConfigError::Conflict(format!(
                "conflict topic config setting {MIN_COMPACTION_LAG} ({}) > {MAX_COMPACTION_LAG} ({})",
                least.as_millis(),
                most.as_millis()
            ))),
        }
    }
}

/// `min.insync.replicas` of a topic with this replication factor, at most that factor. The same on
/// every node at the same image: it takes part in what may be elected (KIP-966).
pub fn min_insync_replicas(image: &ClusterImage, topic: &TopicName, replication_factor: usize) -> usize {
    let nobody = NodeDefaults::default();
    let lookup = Lookup {
        image,
        topic,
        node: &nobody,
    };
    let configured = lookup
        .find("min.insync.replicas")
        .and_then(|value| value.parse::<usize>().ok());
    let built_in = if replication_factor >= 3 { 2 } else { 1 };
    configured.unwrap_or(built_in).min(replication_factor).max(1)
}

/// `unclean.leader.election.enable` of a topic.
pub fn unclean_leader_election(image: &ClusterImage, topic: &TopicName, node: &NodeDefaults) -> bool {
    Lookup { image, topic, node }.truth("unclean.leader.election.enable")
}

/// `flush.messages` of a topic.
pub fn flush_messages(image: &ClusterImage, topic: &TopicName, node: &NodeDefaults) -> u64 {
    Lookup { image, topic, node }
        .number("flush.messages")
        .unsigned_abs()
}

struct Lookup<'a> {
    image: &'a ClusterImage,
    topic: &'a TopicName,
    node: &'a NodeDefaults,
}

impl Lookup<'_> {
    fn find(&self, key: &'static str) -> Option<String> {
        let def = topic_def(key)?;
        topic_values(self.image, self.topic, def, self.node)
            .next()
            .map(|found| found.value.trim().to_owned())
    }

    fn text(&self, key: &'static str) -> String {
        self.find(key)
            .expect("a key that is looked up by text is in the table, with a default")
    }

    fn number(&self, key: &'static str) -> i64 {
        // What was found has passed the key's check.
        self.text(key)
            .parse()
            .expect("a value that was checked as a number")
    }

    fn truth(&self, key: &'static str) -> bool {
        self.text(key).eq_ignore_ascii_case("true")
    }

    fn size(&self, key: &'static str) -> u32 {
        u32::try_from(self.number(key)).unwrap_or(0)
    }

    fn duration(&self, key: &'static str) -> Duration {
        Duration::from_millis(u64::try_from(self.number(key)).unwrap_or(0))
    }

    /// A duration for which −1 and `Long.MAX_VALUE` mean that there is no limit.
    fn limit(&self, key: &'static str) -> Option<Duration> {
        u64::try_from(self.number(key))
            .ok()
            .filter(|&millis| millis < i64::MAX as u64)
            .map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records;

    fn image(settings: &[(ConfigResource, &str, &str)]) -> ClusterImage {
        let records: Vec<_> = settings
            .iter()
            .map(|(resource, key, value)| records::config_record(resource, key, Some(value)))
            .collect();
        ClusterImage::default().speculate(&records).expect("fits")
    }

    fn node(values: &[(&str, &str)]) -> NodeDefaults {
        let values = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        NodeDefaults::of_broker(protocol::BrokerId(1), values.collect())
    }

    #[test]
    fn the_nearest_place_counts() {
        use crate::ConfigResource::{Broker, ClusterDefault, Topic};
        let name: TopicName = "t".parse().expect("valid");
        let retention = |image: &ClusterImage, node: &NodeDefaults| {
            TopicSettings::resolve(image, &name, node)
                .retention
                .map(|retention| retention.as_millis())
        };
        let empty = ClusterImage::default();
        assert_eq!(retention(&empty, &node(&[])), Some(604_800_000));
        assert_eq!(
            retention(&empty, &node(&[("log.retention.hours", "2")])),
            Some(7_200_000)
        );
        assert_eq!(retention(&empty, &node(&[("log.retention.hours", "-1")])), None);
        let file = node(&[("log.retention.hours", "2"), ("log.retention.ms", "5")]);
        assert_eq!(retention(&empty, &file), Some(5));
        let cluster = image(&[(ClusterDefault, "log.retention.ms", "6")]);
        assert_eq!(retention(&cluster, &file), Some(6));
        let broker = image(&[
            (ClusterDefault, "log.retention.ms", "6"),
            (Broker(protocol::BrokerId(1)), "log.retention.ms", "7"),
            (Broker(protocol::BrokerId(2)), "log.retention.ms", "9"),
        ]);
        assert_eq!(retention(&broker, &file), Some(7));
        let topic = image(&[(Topic(name.clone()), "retention.ms", "8")]);
        assert_eq!(retention(&topic, &file), Some(8));
    }

    #[test]
    fn min_insync_replicas_is_the_same_on_every_node() {
        use crate::ConfigResource::{Broker, ClusterDefault, Topic};
        let name: TopicName = "t".parse().expect("valid");
        let empty = ClusterImage::default();
        assert_eq!(min_insync_replicas(&empty, &name, 1), 1);
        assert_eq!(min_insync_replicas(&empty, &name, 2), 1);
        assert_eq!(min_insync_replicas(&empty, &name, 3), 2);
        let settings = TopicSettings::resolve(&empty, &name, &node(&[("min.insync.replicas", "3")]));
        assert_eq!(settings.min_insync_replicas, 1);
        let set = image(&[
            (Broker(protocol::BrokerId(1)), "min.insync.replicas", "1"),
            (ClusterDefault, "min.insync.replicas", "3"),
        ]);
        assert_eq!(min_insync_replicas(&set, &name, 5), 3);
        assert_eq!(
            min_insync_replicas(&set, &name, 2),
            2,
            "never above the replication factor"
        );
        let topic = image(&[(Topic(name.clone()), "min.insync.replicas", "4")]);
        assert_eq!(min_insync_replicas(&topic, &name, 5), 4);
    }

    #[test]
    fn compaction_lags_go_together_where_a_topic_has_one() {
        use crate::ConfigResource::{ClusterDefault, Topic};
        let name: TopicName = "t".parse().expect("valid");
        let check = |of_topic: &[(&str, &str)], of_cluster: &[(&str, &str)]| {
            let of_topic = of_topic
                .iter()
                .map(|&(key, value)| (Topic(name.clone()), key, value));
            let of_cluster = of_cluster
                .iter()
                .map(|&(key, value)| (ClusterDefault, key, value));
            let set: Vec<_> = of_topic.chain(of_cluster).collect();
            TopicSettings::check(&image(&set), &name, &node(&[])).map_err(|error| error.to_string())
        };
        assert_eq!(
            check(&[("min.compaction.lag.ms", "9223372036854775807")], &[]),
            Ok(())
        );
        assert_eq!(check(&[("max.compaction.lag.ms", "1")], &[]), Ok(()));
        assert_eq!(
            check(
                &[("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "5")],
                &[]
            ),
            Ok(())
        );
        let refused = Err(String::from(
            "conflict topic config setting min.compaction.lag.ms (6) > max.compaction.lag.ms (5)",
        ));
        assert_eq!(
            check(
                &[("min.compaction.lag.ms", "6"), ("max.compaction.lag.ms", "5")],
                &[]
            ),
            refused
        );
        // The one that the topic does not have comes from the cluster.
        let of_cluster = [("log.cleaner.max.compaction.lag.ms", "5")];
        assert_eq!(check(&[("min.compaction.lag.ms", "6")], &of_cluster), refused);
        let both = [("log.cleaner.min.compaction.lag.ms", "6"), of_cluster[0]];
        assert_eq!(check(&[("max.compaction.lag.ms", "5")], &both), refused);
        assert_eq!(check(&[], &both), Ok(()));
    }
}
