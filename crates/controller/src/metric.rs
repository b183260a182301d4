//! The controller's metrics, all of them.

use metadata::ClusterImage;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

use crate::event_loop::ActiveView;

const ACTIVE: &str = "ottla_controller_active_count";
const ELECTIONS: &str = "ottla_controller_elections_total";
const EPOCH: &str = "ottla_controller_quorum_epoch";
const COMMITTED: &str = "ottla_controller_committed_offset";
const ACTIVE_BROKERS: &str = "ottla_controller_active_broker_count";
const FENCED_BROKERS: &str = "ottla_controller_fenced_broker_count";
const TOPICS: &str = "ottla_controller_global_topic_count";
const PARTITIONS: &str = "ottla_controller_global_partition_count";
const OFFLINE: &str = "ottla_controller_offline_partitions_count";
const NOT_PREFERRED: &str = "ottla_controller_preferred_replica_imbalance_count";
/// Seconds of one write and flush of the metadata log.
pub(crate) const LOG_FLUSH: &str = "ottla_controller_log_flush_seconds";

/// Tells the recorder what the metrics mean.
pub(crate) fn describe() {
    describe_gauge!(ACTIVE, "1 on the active controller, else 0");
    describe_counter!(ELECTIONS, "Elections that this controller won");
    describe_gauge!(EPOCH, "Raft term that this controller knows of");
    describe_gauge!(COMMITTED, "Last committed offset of the metadata log");
    describe_gauge!(ACTIVE_BROKERS, "Registered brokers that are not fenced");
    describe_gauge!(FENCED_BROKERS, "Registered brokers that are fenced");
    describe_gauge!(TOPICS, "Topics");
    describe_gauge!(PARTITIONS, "Partitions");
    describe_gauge!(OFFLINE, "Partitions without a leader");
    describe_gauge!(
        NOT_PREFERRED,
        "Partitions that their preferred leader does not lead"
    );
    describe_histogram!(
        LOG_FLUSH,
        Unit::Seconds,
        "Time of one write and flush of the metadata log"
    );
}

/// This controller won an election.
pub(crate) fn election() {
    counter!(ELECTIONS).increment(1);
}

/// Brings every gauge up to date.
pub(crate) fn gauges(image: &ClusterImage, view: &ActiveView) {
    let live = image.live_brokers().count();
    let partitions = || image.topics.values().flat_map(|topic| topic.partitions.values());
    let offline = partitions()
        .filter(|partition| partition.leader.is_none())
        .count();
    let moved = partitions()
        .filter(|partition| partition.leader != partition.preferred_leader())
        .count();
    gauge!(ACTIVE).set(if view.is_self { 1.0 } else { 0.0 });
    gauge!(EPOCH).set(f64::from(view.epoch.get()));
    gauge!(COMMITTED).set(image.offset.map_or(-1.0, |offset| offset.get() as f64));
    gauge!(ACTIVE_BROKERS).set(live as f64);
    gauge!(FENCED_BROKERS).set((image.brokers.len() - live) as f64);
    gauge!(TOPICS).set(image.topics.len() as f64);
    gauge!(PARTITIONS).set(partitions().count() as f64);
    gauge!(OFFLINE).set(offline as f64);
    gauge!(NOT_PREFERRED).set(moved as f64);
}
