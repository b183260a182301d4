//! The protocol of KIP-848 and what is asked about groups of any kind: ConsumerGroupHeartbeat,
//! ConsumerGroupDescribe, DescribeGroups, ListGroups, DeleteGroups.

use kafka_protocol::messages::ApiKey;

use crate::guard::schema::{Api, BOOL, I32, I32S, Kind, NULL_STR, STR, STRS, UUID, all, null_array, since};

pub(super) const APIS: &[Api] = &[
    Api::new(
        ApiKey::ConsumerGroupHeartbeat,
        0..=1,
        0,
        &[
            all(STR),              // group
            all(STR),              // member id
            all(I32),              // member epoch
            all(NULL_STR),         // instance id
            all(NULL_STR),         // rack id
            all(I32),              // rebalance timeout
            all(null_array(&STR)), // subscribed topics
            since(1, NULL_STR),    // subscribed regular expression
            all(NULL_STR),         // server assignor
            all(null_array(&Kind::Struct(&[
                all(UUID), // topic id
                all(I32S), // partitions
            ]))),
        ],
    ),
    Api::new(
        ApiKey::ConsumerGroupDescribe,
        0..=1,
        0,
        &[
            all(STRS), // groups
            all(BOOL), // include authorized operations
        ],
    ),
    Api::new(
        ApiKey::DescribeGroups,
        0..=6,
        5,
        &[
            all(STRS),      // groups
            since(3, BOOL), // include authorized operations
        ],
    ),
    Api::new(
        ApiKey::ListGroups,
        0..=5,
        3,
        &[
            since(4, STRS), // states
            since(5, STRS), // types
        ],
    ),
    Api::new(ApiKey::DeleteGroups, 0..=2, 2, &[all(STRS)]),
];
