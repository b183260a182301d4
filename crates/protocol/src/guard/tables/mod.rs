//! The schemas, one file for each group of APIs.

mod cluster;
mod configs;
mod consumer_groups;
mod groups;
mod log_dirs;
mod records;
mod topics;

use kafka_protocol::messages::ApiKey;

use super::schema::Api;

/// Every schema there is.
const TABLES: [&[Api]; 7] = [
    cluster::APIS,
    records::APIS,
    topics::APIS,
    configs::APIS,
    groups::APIS,
    consumer_groups::APIS,
    log_dirs::APIS,
];

/// The schemas, in no order that means anything.
pub(super) fn iter() -> impl Iterator<Item = &'static Api> {
    TABLES.into_iter().flatten()
}

/// The schema of one API.
pub(super) fn find(key: ApiKey) -> Option<&'static Api> {
    iter().find(|api| api.key == key)
}
