//! Finding one's way: ApiVersions, Metadata, DescribeCluster, FindCoordinator,
//! DescribeTopicPartitions.

use kafka_protocol::messages::ApiKey;

use crate::guard::schema::{
    Api, BOOL, I8, I32, Kind, NULL_STR, STR, STRS, UUID, all, array, between, null_array, since, until,
};

pub(super) const APIS: &[Api] = &[
    Api::new(
        ApiKey::ApiVersions,
        0..=4,
        3,
        &[
            since(3, STR), // client software name
            since(3, STR), // client software version
        ],
    ),
    Api::new(
        ApiKey::Metadata,
        0..=13,
        9,
        &[
            all(null_array(&Kind::Struct(&[
                since(10, UUID),
                all(NULL_STR), // name
            ]))),
            since(4, BOOL),       // allow auto topic creation
            between(8, 10, BOOL), // include cluster authorized operations
            since(8, BOOL),       // include topic authorized operations
        ],
    ),
    Api::new(
        ApiKey::DescribeCluster,
        0..=2,
        0,
        &[
            all(BOOL),      // include cluster authorized operations
            since(1, I8),   // endpoint type
            since(2, BOOL), // include fenced brokers
        ],
    ),
    Api::new(
        ApiKey::FindCoordinator,
        0..=6,
        3,
        &[
            until(3, STR),  // key
            since(1, I8),   // key type
            since(4, STRS), // coordinator keys
        ],
    ),
    Api::new(
        ApiKey::DescribeTopicPartitions,
        0..=0,
        0,
        &[
            all(array(&Kind::Struct(&[all(STR)]))),
            all(I32), // response partition limit
            all(Kind::OptionalStruct(&[
                all(STR), // cursor: topic name
                all(I32), // cursor: partition index
            ])),
        ],
    ),
];
