//! Classic groups and offsets: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, OffsetCommit,
//! OffsetFetch, OffsetDelete.

use kafka_protocol::messages::ApiKey;

use crate::guard::schema::{
    Api, BOOL, BYTES, I32, I32S, I64, Kind, NEVER, NULL_STR, STR, all, array, null_array, since, until,
};

pub(super) const APIS: &[Api] = &[
    Api::new(
        ApiKey::JoinGroup,
        0..=9,
        6,
        &[
            all(STR),           // group
            all(I32),           // session timeout
            since(1, I32),      // rebalance timeout
            all(STR),           // member id
            since(5, NULL_STR), // group instance id
            all(STR),           // protocol type
            all(array(&Kind::Struct(&[
                all(STR),   // protocol name
                all(BYTES), // metadata
            ]))),
            since(8, NULL_STR), // reason
        ],
    ),
    Api::new(
        ApiKey::SyncGroup,
        0..=5,
        4,
        &[
            all(STR),           // group
            all(I32),           // generation
            all(STR),           // member id
            since(3, NULL_STR), // group instance id
            since(5, NULL_STR), // protocol type
            since(5, NULL_STR), // protocol name
            all(array(&Kind::Struct(&[
                all(STR),   // member id
                all(BYTES), // assignment
            ]))),
        ],
    ),
    Api::new(
        ApiKey::Heartbeat,
        0..=4,
        4,
        &[
            all(STR),           // group
            all(I32),           // generation
            all(STR),           // member id
            since(3, NULL_STR), // group instance id
        ],
    ),
    Api::new(
        ApiKey::LeaveGroup,
        0..=5,
        4,
        &[
            all(STR),      // group
            until(2, STR), // member id
            since(
                3,
                array(&Kind::Struct(&[
                    all(STR),           // member id
                    all(NULL_STR),      // group instance id
                    since(5, NULL_STR), // reason
                ])),
            ),
        ],
    ),
    Api::new(
        ApiKey::OffsetCommit,
        2..=9,
        8,
        &[
            all(STR),           // group
            all(I32),           // generation or member epoch
            all(STR),           // member id
            since(7, NULL_STR), // group instance id
            until(4, I64),      // retention time
            all(array(&Kind::Struct(&[
                all(STR), // topic name
                all(array(&Kind::Struct(&[
                    all(I32),      // partition
                    all(I64),      // offset
                    since(6, I32), // leader epoch
                    all(NULL_STR), // metadata
                ]))),
            ]))),
        ],
    ),
    Api::new(
        ApiKey::OffsetFetch,
        1..=9,
        6,
        &[
            until(7, STR), // group
            until(
                7,
                null_array(&Kind::Struct(&[
                    all(STR),  // topic name
                    all(I32S), // partitions
                ])),
            ),
            since(
                8,
                array(&Kind::Struct(&[
                    all(STR),           // group
                    since(9, NULL_STR), // member id
                    since(9, I32),      // member epoch
                    all(null_array(&Kind::Struct(&[
                        all(STR),  // topic name
                        all(I32S), // partitions
                    ]))),
                ])),
            ),
            since(7, BOOL), // require stable
        ],
    ),
    Api::new(
        ApiKey::OffsetDelete,
        0..=0,
        NEVER,
        &[
            all(STR), // group
            all(array(&Kind::Struct(&[
                all(STR), // topic name
                all(array(&Kind::Struct(&[all(I32)]))),
            ]))),
        ],
    ),
];
