//! Every key of a node's file that Ottla honours. Names, types and defaults are Kafka's 4.x, except for
//! what the documentation of a key says; keys of Ottla's own begin with `ottla.`. One table, as long as there are
//! keys.

use super::def::{ConfigDef, ConfigKind, UpdateMode, Valid};

/// A key that is read once, when the node starts.
const fn fixed(
    name: &'static str,
    kind: ConfigKind,
    default: Option<&'static str>,
    valid: Valid,
    doc: &'static str,
) -> ConfigDef {
    ConfigDef {
        name,
        kind,
        default,
        update: UpdateMode::ReadOnly,
        synonyms: &[],
        valid,
        doc,
    }
}

/// The default of a topic's key, which can be changed while the cluster runs.
const fn topic_default(
    name: &'static str,
    kind: ConfigKind,
    default: Option<&'static str>,
    valid: Valid,
    doc: &'static str,
) -> ConfigDef {
    ConfigDef {
        name,
        kind,
        default,
        update: UpdateMode::PerBroker,
        synonyms: &[],
        valid,
        doc,
    }
}

/// A key that is no topic's and can be changed while the node runs.
const fn live(
    name: &'static str,
    kind: ConfigKind,
    default: &'static str,
    valid: Valid,
    doc: &'static str,
) -> ConfigDef {
    topic_default(name, kind, Some(default), valid, doc)
}

/// As [`topic_default`], for what all nodes must agree on.
const fn agreed(
    name: &'static str,
    kind: ConfigKind,
    default: Option<&'static str>,
    valid: Valid,
    doc: &'static str,
) -> ConfigDef {
    ConfigDef {
        update: UpdateMode::ClusterWide,
        ..topic_default(name, kind, default, valid, doc)
    }
}

/// `Long.MAX_VALUE`: Kafka's way of writing "never".
const NEVER: &str = "9223372036854775807";

/// Node keys, in the order of their names.
pub static NODE_CONFIGS: &[ConfigDef] = &[
    fixed(
        "advertised.listeners",
        ConfigKind::List,
        None,
        Valid::Any,
        "What clients are told to connect to, as `NAME://host:port`. Default: `listeners`, with `localhost` \
         where a listener binds every interface.",
    ),
    fixed(
        "auto.create.topics.enable",
        ConfigKind::Boolean,
        Some("true"),
        Valid::Any,
        "Whether a topic that a client asks for is created where it does not exist.",
    ),
    fixed(
        "auto.leader.rebalance.enable",
        ConfigKind::Boolean,
        Some("true"),
        Valid::Any,
        "Whether the controller hands leadership back to preferred leaders. Read by controllers.",
    ),
    fixed(
        "broker.heartbeat.interval.ms",
        ConfigKind::Int,
        Some("500"),
        Valid::AtLeast(1),
        "How often a broker tells the controller that it is alive (Kafka: 2000).",
    ),
    fixed(
        "broker.rack",
        ConfigKind::String,
        None,
        Valid::Any,
        "Where the broker stands: replicas of a partition are spread over racks.",
    ),
    fixed(
        "broker.session.timeout.ms",
        ConfigKind::Int,
        Some("3000"),
        Valid::AtLeast(100),
        "How long a broker may be silent before it is fenced (Kafka: 9000). A broker whose process died is \
         fenced at once.",
    ),
    topic_default(
        "compression.type",
        ConfigKind::String,
        Some("producer"),
        Valid::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "Default of the topic key `compression.type`.",
    ),
    fixed(
        "connections.max.idle.ms",
        ConfigKind::Long,
        Some("600000"),
        Valid::AtLeast(1),
        "After how long without a request a connection is closed.",
    ),
    fixed(
        "controller.listener.names",
        ConfigKind::List,
        Some("CONTROLLER"),
        Valid::Any,
        "Which of `listeners` is a controller's internal port.",
    ),
    fixed(
        "controller.quorum.voters",
        ConfigKind::List,
        None,
        Valid::NonEmpty,
        "Every controller, as `id@host:port` of its internal port. Required.",
    ),
    fixed(
        "default.replication.factor",
        ConfigKind::Int,
        Some("1"),
        Valid::Between(1, 32_767),
        "The replication factor of topics that are created without one. Read by controllers.",
    ),
    fixed(
        "delete.topic.enable",
        ConfigKind::Boolean,
        Some("true"),
        Valid::Any,
        "Whether topics can be deleted. Read by controllers.",
    ),
    fixed(
        "group.consumer.assignors",
        ConfigKind::List,
        Some("uniform,range"),
        Valid::OneOf(&["uniform", "range"]),
        "The assignors that groups of the KIP-848 protocol may ask for. The first is for groups that ask for none.",
    ),
    fixed(
        "group.consumer.heartbeat.interval.ms",
        ConfigKind::Int,
        Some("5000"),
        Valid::AtLeast(1),
        "How often members of the KIP-848 protocol are to send heartbeats. Default of the group key \
         `consumer.heartbeat.interval.ms`.",
    ),
    fixed(
        "group.consumer.max.heartbeat.interval.ms",
        ConfigKind::Int,
        Some("15000"),
        Valid::AtLeast(1),
        "The longest heartbeat interval that may be set. Read by controllers too.",
    ),
    fixed(
        "group.consumer.max.session.timeout.ms",
        ConfigKind::Int,
        Some("60000"),
        Valid::AtLeast(1),
        "The longest session timeout that may be set for the KIP-848 protocol. Read by controllers too.",
    ),
    fixed(
        "group.consumer.max.size",
        ConfigKind::Int,
        Some("2147483647"),
        Valid::AtLeast(1),
        "How many members a group of the KIP-848 protocol may have.",
    ),
    fixed(
        "group.consumer.migration.policy",
        ConfigKind::String,
        Some("bidirectional"),
        Valid::OneOfAnyCase(&["disabled", "upgrade", "downgrade", "bidirectional"]),
        "Whether a group with members may go from the classic protocol to that of KIP-848 (`upgrade`), back \
         (`downgrade`), both or neither.",
    ),
    fixed(
        "group.consumer.min.heartbeat.interval.ms",
        ConfigKind::Int,
        Some("5000"),
        Valid::AtLeast(1),
        "The shortest heartbeat interval that may be set. Read by controllers too.",
    ),
    fixed(
        "group.consumer.min.session.timeout.ms",
        ConfigKind::Int,
        Some("45000"),
        Valid::AtLeast(1),
        "The shortest session timeout that may be set for the KIP-848 protocol. Read by controllers too.",
    ),
    fixed(
        "group.consumer.session.timeout.ms",
        ConfigKind::Int,
        Some("45000"),
        Valid::AtLeast(1),
        "How long members of the KIP-848 protocol may be silent. Default of the group key \
         `consumer.session.timeout.ms`.",
    ),
    fixed(
        "group.initial.rebalance.delay.ms",
        ConfigKind::Int,
        Some("3000"),
        Valid::AtLeast(0),
        "How long the first rebalance of an empty group of the classic protocol waits for more members.",
    ),
    fixed(
        "group.max.session.timeout.ms",
        ConfigKind::Int,
        Some("1800000"),
        Valid::AtLeast(1),
        "The longest session timeout that a member of the classic protocol may ask for.",
    ),
    fixed(
        "group.max.size",
        ConfigKind::Int,
        Some("2147483647"),
        Valid::AtLeast(1),
        "How many members a group of the classic protocol may have.",
    ),
    fixed(
        "group.min.session.timeout.ms",
        ConfigKind::Int,
        Some("6000"),
        Valid::AtLeast(1),
        "The shortest session timeout that a member of the classic protocol may ask for.",
    ),
    fixed(
        "inter.broker.listener.name",
        ConfigKind::String,
        None,
        Valid::Any,
        "Which of `listeners` is a broker's internal port. Default: the one named INTERNAL, else the first \
         client port + 10000 on the loopback interface.",
    ),
    fixed(
        "leader.imbalance.check.interval.seconds",
        ConfigKind::Long,
        Some("300"),
        Valid::AtLeast(1),
        "How often leadership is handed back to preferred leaders. Read by controllers.",
    ),
    fixed(
        "listener.security.protocol.map",
        ConfigKind::List,
        None,
        Valid::Any,
        "How each listener protects its connections, as `NAME:PROTOCOL`. PLAINTEXT is the only protocol so far.",
    ),
    fixed(
        "listeners",
        ConfigKind::List,
        Some("PLAINTEXT://:9092"),
        Valid::NonEmpty,
        "Where the node listens, as `NAME://host:port`; an empty host is every interface.",
    ),
    live(
        "log.cleaner.backoff.ms",
        ConfigKind::Long,
        "15000",
        Valid::AtLeast(0),
        "How long a log cleaner waits where no log is due for compaction.",
    ),
    live(
        "log.cleaner.dedupe.buffer.size",
        ConfigKind::Long,
        "134217728",
        Valid::AtLeast((1 << 20) + 1),
        "Memory for the maps of keys that compaction makes, over all cleaner threads: 24 bytes for each key, \
         and more than 1 MiB for each thread. \
         It is taken for as long as a log is compacted, and no more of it than the log has records.",
    ),
    topic_default(
        "log.cleaner.delete.retention.ms",
        ConfigKind::Long,
        Some("86400000"),
        Valid::AtLeast(0),
        "Default of the topic key `delete.retention.ms`.",
    ),
    fixed(
        "log.cleaner.enable",
        ConfigKind::Boolean,
        Some("true"),
        Valid::Any,
        "Whether this broker compacts logs whose `cleanup.policy` contains `compact`.",
    ),
    live(
        "log.cleaner.io.buffer.load.factor",
        ConfigKind::Double,
        "0.9",
        Valid::Ratio,
        "How full a map of keys may get: fuller maps hold more keys and are slower.",
    ),
    live(
        "log.cleaner.io.buffer.size",
        ConfigKind::Int,
        "524288",
        Valid::AtLeast(0),
        "Bytes that compaction reads and writes at once, over all cleaner threads.",
    ),
    live(
        "log.cleaner.io.max.bytes.per.second",
        ConfigKind::Double,
        "1.7976931348623157E308",
        Valid::Any,
        "The most bytes that compaction reads and writes in a second, over all cleaner threads.",
    ),
    topic_default(
        "log.cleaner.max.compaction.lag.ms",
        ConfigKind::Long,
        Some(NEVER),
        Valid::AtLeast(1),
        "Default of the topic key `max.compaction.lag.ms`.",
    ),
    topic_default(
        "log.cleaner.min.cleanable.ratio",
        ConfigKind::Double,
        Some("0.5"),
        Valid::Ratio,
        "Default of the topic key `min.cleanable.dirty.ratio`.",
    ),
    topic_default(
        "log.cleaner.min.compaction.lag.ms",
        ConfigKind::Long,
        Some("0"),
        Valid::AtLeast(0),
        "Default of the topic key `min.compaction.lag.ms`.",
    ),
    live(
        "log.cleaner.threads",
        ConfigKind::Int,
        "1",
        Valid::AtLeast(0),
        "Threads that compact logs; one log at a time each.",
    ),
    topic_default(
        "log.cleanup.policy",
        ConfigKind::List,
        Some("delete"),
        Valid::OneOf(&["compact", "delete"]),
        "Default of the topic key `cleanup.policy`.",
    ),
    fixed(
        "log.dir",
        ConfigKind::String,
        None,
        Valid::NonEmpty,
        "The node's data directory, where `log.dirs` is not set.",
    ),
    fixed(
        "log.dirs",
        ConfigKind::List,
        None,
        Valid::NonEmpty,
        "The node's data directories, one for each disk. A new replica goes where the fewest are; a directory that fails takes only its replicas offline. Required, unless `log.dir` is set.",
    ),
    topic_default(
        "log.flush.interval.messages",
        ConfigKind::Long,
        Some("1"),
        Valid::AtLeast(1),
        "Default of the topic key `flush.messages` (Kafka: 9223372036854775807).",
    ),
    topic_default(
        "log.flush.interval.ms",
        ConfigKind::Long,
        None,
        Valid::AtLeast(0),
        "Default of the topic key `flush.ms`. Where it is not set: never.",
    ),
    topic_default(
        "log.index.interval.bytes",
        ConfigKind::Int,
        Some("4096"),
        Valid::AtLeast(0),
        "Default of the topic key `index.interval.bytes`.",
    ),
    topic_default(
        "log.index.size.max.bytes",
        ConfigKind::Int,
        Some("10485760"),
        Valid::AtLeast(4),
        "Default of the topic key `segment.index.bytes`.",
    ),
    topic_default(
        "log.message.timestamp.after.max.ms",
        ConfigKind::Long,
        Some("3600000"),
        Valid::AtLeast(0),
        "Default of the topic key `message.timestamp.after.max.ms`.",
    ),
    topic_default(
        "log.message.timestamp.before.max.ms",
        ConfigKind::Long,
        Some(NEVER),
        Valid::AtLeast(0),
        "Default of the topic key `message.timestamp.before.max.ms`.",
    ),
    topic_default(
        "log.message.timestamp.type",
        ConfigKind::String,
        Some("CreateTime"),
        Valid::OneOf(&["CreateTime", "LogAppendTime"]),
        "Default of the topic key `message.timestamp.type`.",
    ),
    topic_default(
        "log.preallocate",
        ConfigKind::Boolean,
        Some("false"),
        Valid::Any,
        "Default of the topic key `preallocate`.",
    ),
    topic_default(
        "log.retention.bytes",
        ConfigKind::Long,
        Some("-1"),
        Valid::AtLeast(-1),
        "Default of the topic key `retention.bytes`.",
    ),
    topic_default(
        "log.retention.hours",
        ConfigKind::Int,
        Some("168"),
        Valid::AtLeast(-1),
        "Default of the topic key `retention.ms`, in hours, where neither milliseconds nor minutes are set.",
    ),
    topic_default(
        "log.retention.minutes",
        ConfigKind::Int,
        None,
        Valid::AtLeast(-1),
        "Default of the topic key `retention.ms`, in minutes, where milliseconds are not set.",
    ),
    topic_default(
        "log.retention.ms",
        ConfigKind::Long,
        None,
        Valid::AtLeast(-1),
        "Default of the topic key `retention.ms`.",
    ),
    topic_default(
        "log.roll.hours",
        ConfigKind::Int,
        Some("168"),
        Valid::AtLeast(1),
        "Default of the topic key `segment.ms`, in hours, where milliseconds are not set.",
    ),
    topic_default(
        "log.roll.ms",
        ConfigKind::Long,
        None,
        Valid::AtLeast(1),
        "Default of the topic key `segment.ms`.",
    ),
    topic_default(
        "log.segment.bytes",
        ConfigKind::Int,
        Some("1073741824"),
        Valid::AtLeast(1_048_576),
        "Default of the topic key `segment.bytes`.",
    ),
    topic_default(
        "log.segment.delete.delay.ms",
        ConfigKind::Long,
        Some("60000"),
        Valid::AtLeast(0),
        "Default of the topic key `file.delete.delay.ms`.",
    ),
    fixed(
        "max.connections",
        ConfigKind::Int,
        Some("2147483647"),
        Valid::AtLeast(0),
        "How many client connections a broker takes at a time.",
    ),
    fixed(
        "max.connections.per.ip",
        ConfigKind::Int,
        Some("2147483647"),
        Valid::AtLeast(0),
        "How many client connections a broker takes at a time from one address.",
    ),
    fixed(
        "max.request.partition.size.limit",
        ConfigKind::Int,
        Some("2000"),
        Valid::AtLeast(1),
        "How many partitions one answer to DescribeTopicPartitions describes at most.",
    ),
    topic_default(
        "message.max.bytes",
        ConfigKind::Int,
        Some("1048588"),
        Valid::AtLeast(0),
        "Default of the topic key `max.message.bytes`.",
    ),
    fixed(
        "metadata.log.dir",
        ConfigKind::String,
        None,
        Valid::NonEmpty,
        "A controller's directory for the metadata log. Default: the first data directory.",
    ),
    agreed(
        "min.insync.replicas",
        ConfigKind::Int,
        None,
        Valid::AtLeast(1),
        "Default of the topic key `min.insync.replicas`. All nodes agree on it: it is read from the controllers' \
         files (the first active controller that has it records it as the cluster-wide default), not from brokers'. \
         Where it is not set: 2 where the replication factor is 3 or more, else 1.",
    ),
    fixed(
        "node.id",
        ConfigKind::Int,
        None,
        Valid::AtLeast(0),
        "The node's number, unique over brokers and controllers. Required.",
    ),
    fixed(
        "num.io.threads",
        ConfigKind::Int,
        Some("8"),
        Valid::AtLeast(1),
        "How many threads read and append.",
    ),
    fixed(
        "num.partitions",
        ConfigKind::Int,
        Some("1"),
        Valid::AtLeast(1),
        "How many partitions topics get that are created without a number. Read by controllers.",
    ),
    fixed(
        "num.recovery.threads.per.data.dir",
        ConfigKind::Int,
        Some("2"),
        Valid::AtLeast(1),
        "How many logs of a data directory are recovered at a time after an unclean stop.",
    ),
    fixed(
        "offset.metadata.max.bytes",
        ConfigKind::Int,
        Some("4096"),
        Valid::AtLeast(0),
        "The longest text that may be committed with an offset.",
    ),
    fixed(
        "offsets.commit.timeout.ms",
        ConfigKind::Int,
        Some("5000"),
        Valid::AtLeast(1),
        "How long a commit, or what else a group's coordinator writes, waits for the in-sync replicas.",
    ),
    fixed(
        "offsets.retention.check.interval.ms",
        ConfigKind::Long,
        Some("600000"),
        Valid::AtLeast(1),
        "How often committed offsets are looked through for those that have expired.",
    ),
    fixed(
        "offsets.retention.minutes",
        ConfigKind::Int,
        Some("10080"),
        Valid::AtLeast(1),
        "How long offsets that nobody reads on from are kept: of a classic group since it has no members any more, of one of the KIP-848 protocol, and of consumers that are in no group, since each was committed.",
    ),
    fixed(
        "offsets.topic.num.partitions",
        ConfigKind::Int,
        Some("50"),
        Valid::AtLeast(1),
        "How many partitions `__consumer_offsets` is created with; it must not change afterwards.",
    ),
    fixed(
        "offsets.topic.replication.factor",
        ConfigKind::Int,
        Some("3"),
        Valid::AtLeast(1),
        "How many copies each partition of `__consumer_offsets` is created with: fewer where there are fewer brokers.",
    ),
    fixed(
        "offsets.topic.segment.bytes",
        ConfigKind::Int,
        Some("104857600"),
        Valid::AtLeast(1_048_576),
        "The segment size that `__consumer_offsets` is created with.",
    ),
    fixed(
        "ottla.batch.validation",
        ConfigKind::String,
        Some("full"),
        Valid::OneOf(&["full", "header"]),
        "How clients' batches are checked: `full` opens each record as Kafka does, `header` checks header and \
         checksum alone.",
    ),
    fixed(
        "ottla.controlled.shutdown.timeout.ms",
        ConfigKind::Int,
        Some("30000"),
        Valid::AtLeast(0),
        "How long a broker that is asked to stop waits for its leaderships to move.",
    ),
    fixed(
        "ottla.flush.threads",
        ConfigKind::Int,
        Some("8"),
        Valid::AtLeast(1),
        "How many logs are flushed to disk at a time.",
    ),
    fixed(
        "process.roles",
        ConfigKind::List,
        None,
        Valid::OneOf(&["broker", "controller"]),
        "What the node is: broker, controller or both. Required.",
    ),
    live(
        "replica.alter.log.dirs.io.max.bytes.per.second",
        ConfigKind::Long,
        NEVER,
        Valid::AtLeast(0),
        "The most bytes that a broker copies in a second between its log directories, over all replicas that \
         move; 0 all but stops them. What is left when a replica comes to rest at the end of its move, 1 MiB and \
         what has been written meanwhile, is not held back.",
    ),
    fixed(
        "replica.lag.time.max.ms",
        ConfigKind::Long,
        Some("30000"),
        Valid::AtLeast(1),
        "How long a follower may lag before it leaves the in-sync set.",
    ),
    fixed(
        "socket.request.max.bytes",
        ConfigKind::Int,
        Some("104857600"),
        Valid::AtLeast(1),
        "The largest request a broker takes.",
    ),
    agreed(
        "unclean.leader.election.enable",
        ConfigKind::Boolean,
        Some("false"),
        Valid::Any,
        "Default of the topic key `unclean.leader.election.enable`. Read by controllers.",
    ),
];

/// The definition of a node's key.
pub(crate) fn node_def(key: &str) -> Option<&'static ConfigDef> {
    NODE_CONFIGS.iter().find(|def| def.name == key)
}

/// The built-in default of a node's key, where it has one.
pub fn node_default(key: &str) -> Option<&'static str> {
    node_def(key)?.default
}
