//! Log directories: AlterReplicaLogDirs, DescribeLogDirs.

use kafka_protocol::messages::ApiKey;

use crate::guard::schema::{Api, I32S, Kind, STR, all, array, null_array};

pub(super) const APIS: &[Api] = &[
    Api::new(
        ApiKey::AlterReplicaLogDirs,
        1..=2,
        2,
        &[all(array(&Kind::Struct(&[
            all(STR), // path
            all(array(&Kind::Struct(&[
                all(STR),  // topic
                all(I32S), // partitions
            ]))),
        ])))],
    ),
    Api::new(
        ApiKey::DescribeLogDirs,
        1..=4,
        2,
        &[all(null_array(&Kind::Struct(&[
            all(STR),  // topic
            all(I32S), // partitions
        ])))],
    ),
];
