//! The table of Kafka APIs that this broker serves: the only source of what ApiVersions advertises,
//! of what a connection accepts and of `docs/protocol-support.md`.

use kafka_protocol::messages::ApiKey;

use super::handlers;

/// One API and its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// Which.
    pub key: ApiKey,
    /// Lowest version that ApiVersions names.
    pub advertised_from: i16,
    /// Lowest version that is answered; a lower one closes the connection.
    pub served_from: i16,
    /// Highest version, advertised and served.
    pub to: i16,
}

impl Api {
    /// An API whose advertised versions are all served.
    pub(crate) const fn new(key: ApiKey, from: i16, to: i16) -> Self {
        Self {
            key,
            advertised_from: from,
            served_from: from,
            to,
        }
    }

    /// Whether `version` is answered.
    pub const fn serves(&self, version: i16) -> bool {
        self.served_from <= version && version <= self.to
    }
}

/// Every API that is served, by ascending key.
pub const APIS: &[Api] = &[
    handlers::produce::API,
    handlers::fetch::API,
    handlers::list_offsets::API,
    handlers::metadata::API,
    handlers::offset_commit::API,
    handlers::offset_fetch::API,
    handlers::find_coordinator::API,
    handlers::join_group::API,
    handlers::heartbeat::API,
    handlers::leave_group::API,
    handlers::sync_group::API,
    handlers::describe_groups::API,
    handlers::list_groups::API,
    handlers::api_versions::API,
    handlers::create_topics::API,
    handlers::delete_topics::API,
    handlers::delete_records::API,
    handlers::init_producer_id::API,
    handlers::offset_for_leader_epoch::API,
    handlers::describe_configs::API,
    handlers::alter_configs::API,
    handlers::alter_replica_log_dirs::API,
    handlers::describe_log_dirs::API,
    handlers::create_partitions::API,
    handlers::delete_groups::API,
    handlers::elect_leaders::API,
    handlers::incremental_alter_configs::API,
    handlers::offset_delete::API,
    handlers::describe_cluster::API,
    handlers::consumer_group_heartbeat::API,
    handlers::consumer_group_describe::API,
    handlers::describe_topic_partitions::API,
];

/// The API of this key, where it is served.
pub fn find(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ascend_and_ranges_are_not_empty() {
        for pair in APIS.windows(2) {
            assert!((pair[0].key as i16) < pair[1].key as i16);
        }
        for api in APIS {
            assert!(
                api.advertised_from <= api.served_from && api.served_from <= api.to,
                "{api:?}"
            );
        }
    }
}
