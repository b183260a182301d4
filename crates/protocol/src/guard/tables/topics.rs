//! Topics and their leaders: CreateTopics, DeleteTopics, CreatePartitions, ElectLeaders.

use kafka_protocol::messages::ApiKey;

use crate::guard::schema::{
    Api, BOOL, I8, I16, I32, I32S, Kind, NULL_STR, STR, STRS, UUID, all, array, null_array, since, until,
};

pub(super) const APIS: &[Api] = &[
    Api::new(
        ApiKey::CreateTopics,
        2..=7,
        5,
        &[
            all(array(&Kind::Struct(&[
                all(STR), // name
                all(I32), // partitions
                all(I16), // replication factor
                all(array(&Kind::Struct(&[
                    all(I32),  // partition
                    all(I32S), // brokers
                ]))),
                all(array(&Kind::Struct(&[
                    all(STR),      // config name
                    all(NULL_STR), // config value
                ]))),
            ]))),
            all(I32),  // timeout
            all(BOOL), // validate only
        ],
    ),
    Api::new(
        ApiKey::DeleteTopics,
        1..=6,
        4,
        &[
            since(
                6,
                array(&Kind::Struct(&[
                    all(NULL_STR), // name
                    all(UUID),     // id
                ])),
            ),
            until(5, STRS), // names
            all(I32),       // timeout
        ],
    ),
    Api::new(
        ApiKey::CreatePartitions,
        0..=3,
        2,
        &[
            all(array(&Kind::Struct(&[
                all(STR), // name
                all(I32), // count
                all(null_array(&Kind::Struct(&[
                    all(I32S), // brokers
                ]))),
            ]))),
            all(I32),  // timeout
            all(BOOL), // validate only
        ],
    ),
    Api::new(
        ApiKey::ElectLeaders,
        0..=2,
        2,
        &[
            since(1, I8), // election type
            all(null_array(&Kind::Struct(&[
                all(STR),  // topic
                all(I32S), // partitions
            ]))),
            all(I32), // timeout
        ],
    ),
];
