//! Every topic key that Ottla honours. Names, types and defaults are Kafka's 4.x, except for what the
//! documentation of a key says.

use super::def::{ConfigDef, ConfigKind, Synonym, UpdateMode, Valid};

/// A topic's key.
const fn topic(
    name: &'static str,
    kind: ConfigKind,
    default: &'static str,
    valid: Valid,
    synonyms: &'static [Synonym],
    doc: &'static str,
) -> ConfigDef {
    ConfigDef {
        name,
        kind,
        default: Some(default),
        update: UpdateMode::ClusterWide,
        synonyms,
        valid,
        doc,
    }
}

/// `Long.MAX_VALUE`: Kafka's way of writing "never".
const NEVER: &str = "9223372036854775807";

/// Topic keys, in the order of their names.
pub static TOPIC_CONFIGS: &[ConfigDef] = &[
    topic(
        "cleanup.policy",
        ConfigKind::List,
        "delete",
        Valid::OneOf(&["compact", "delete"]),
        &[Synonym::of("log.cleanup.policy")],
        "What happens to old segments: `delete` by age and size, `compact` to the last record of each key, or both.",
    ),
    topic(
        "compression.type",
        ConfigKind::String,
        "producer",
        Valid::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        &[Synonym::of("compression.type")],
        "How batches rest in the log: `producer` keeps what the producer sent, another value recompresses.",
    ),
    topic(
        "delete.retention.ms",
        ConfigKind::Long,
        "86400000",
        Valid::AtLeast(0),
        &[Synonym::of("log.cleaner.delete.retention.ms")],
        "How long tombstones of compacted topics are kept.",
    ),
    topic(
        "file.delete.delay.ms",
        ConfigKind::Long,
        "60000",
        Valid::AtLeast(0),
        &[Synonym::of("log.segment.delete.delay.ms")],
        "How long a deleted segment's files stay before they are removed.",
    ),
    topic(
        "flush.messages",
        ConfigKind::Long,
        "1",
        Valid::AtLeast(1),
        &[Synonym::of("log.flush.interval.messages")],
        "After how many records the log is flushed to disk. 1, Ottla's default, means that a record counts as \
         replicated only once fdatasync has returned; 9223372036854775807, Kafka's default, leaves it to the page cache.",
    ),
    topic(
        "flush.ms",
        ConfigKind::Long,
        NEVER,
        Valid::AtLeast(0),
        &[Synonym::of("log.flush.interval.ms")],
        "The longest time a record may stay unflushed where `flush.messages` is above 1.",
    ),
    topic(
        "index.interval.bytes",
        ConfigKind::Int,
        "4096",
        Valid::AtLeast(0),
        &[Synonym::of("log.index.interval.bytes")],
        "How many bytes of log lie between two index entries.",
    ),
    topic(
        "max.compaction.lag.ms",
        ConfigKind::Long,
        NEVER,
        Valid::AtLeast(1),
        &[Synonym::of("log.cleaner.max.compaction.lag.ms")],
        "The longest time a record stays out of compaction.",
    ),
    topic(
        "max.message.bytes",
        ConfigKind::Int,
        "1048588",
        Valid::AtLeast(0),
        &[Synonym::of("message.max.bytes")],
        "The largest record batch that is taken, after compression.",
    ),
    topic(
        "message.timestamp.after.max.ms",
        ConfigKind::Long,
        "3600000",
        Valid::AtLeast(0),
        &[Synonym::of("log.message.timestamp.after.max.ms")],
        "How far a record's timestamp may lie after the broker's clock, with `CreateTime`.",
    ),
    topic(
        "message.timestamp.before.max.ms",
        ConfigKind::Long,
        NEVER,
        Valid::AtLeast(0),
        &[Synonym::of("log.message.timestamp.before.max.ms")],
        "How far a record's timestamp may lie before the broker's clock, with `CreateTime`.",
    ),
    topic(
        "message.timestamp.type",
        ConfigKind::String,
        "CreateTime",
        Valid::OneOf(&["CreateTime", "LogAppendTime"]),
        &[Synonym::of("log.message.timestamp.type")],
        "Whose time a record bears: the producer's or that of the append.",
    ),
    topic(
        "min.cleanable.dirty.ratio",
        ConfigKind::Double,
        "0.5",
        Valid::Ratio,
        &[Synonym::of("log.cleaner.min.cleanable.ratio")],
        "Which share of a compacted log must be dirty before it is compacted again.",
    ),
    topic(
        "min.compaction.lag.ms",
        ConfigKind::Long,
        "0",
        Valid::AtLeast(0),
        &[Synonym::of("log.cleaner.min.compaction.lag.ms")],
        "The shortest time a record stays out of compaction.",
    ),
    ConfigDef {
        name: "min.insync.replicas",
        kind: ConfigKind::Int,
        default: None,
        update: UpdateMode::ClusterWide,
        synonyms: &[Synonym::of("min.insync.replicas")],
        valid: Valid::AtLeast(1),
        doc: "How many in-sync replicas an `acks=all` write needs; never more than the topic has replicas. \
              Default: 2 where the replication factor is 3 or more, else 1 (Kafka: always 1).",
    },
    topic(
        "preallocate",
        ConfigKind::Boolean,
        "false",
        Valid::Any,
        &[Synonym::of("log.preallocate")],
        "Whether disk space is reserved for a whole segment when it is created.",
    ),
    topic(
        "retention.bytes",
        ConfigKind::Long,
        "-1",
        Valid::AtLeast(-1),
        &[Synonym::of("log.retention.bytes")],
        "How large a partition may grow before its oldest segments are deleted; -1: no limit.",
    ),
    topic(
        "retention.ms",
        ConfigKind::Long,
        "604800000",
        Valid::AtLeast(-1),
        &[
            Synonym::of("log.retention.ms"),
            Synonym::scaled("log.retention.minutes", 60_000),
            Synonym::scaled("log.retention.hours", 3_600_000),
        ],
        "How long a segment is kept after its largest timestamp; -1: for ever.",
    ),
    topic(
        "segment.bytes",
        ConfigKind::Int,
        "1073741824",
        Valid::AtLeast(1_048_576),
        &[Synonym::of("log.segment.bytes")],
        "The size at which a segment is closed and the next one begun.",
    ),
    topic(
        "segment.index.bytes",
        ConfigKind::Int,
        "10485760",
        Valid::AtLeast(4),
        &[Synonym::of("log.index.size.max.bytes")],
        "The largest size of an index file; a segment is closed when its index is full.",
    ),
    topic(
        "segment.ms",
        ConfigKind::Long,
        "604800000",
        Valid::AtLeast(1),
        &[
            Synonym::of("log.roll.ms"),
            Synonym::scaled("log.roll.hours", 3_600_000),
        ],
        "The age at which a segment is closed, so that retention can reach it.",
    ),
    topic(
        "unclean.leader.election.enable",
        ConfigKind::Boolean,
        "false",
        Valid::Any,
        &[Synonym::of("unclean.leader.election.enable")],
        "Whether a replica that may lack acknowledged records may lead when no other can. Loses data.",
    ),
];

/// The definition of a topic's key.
pub(crate) fn topic_def(key: &str) -> Option<&'static ConfigDef> {
    TOPIC_CONFIGS.iter().find(|def| def.name == key)
}
