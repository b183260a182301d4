//! The data path: Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, InitProducerId,
//! DeleteRecords.

use kafka_protocol::messages::ApiKey;

use crate::guard::schema::{
    Api, I8, I16, I32, I32S, I64, Kind, NULL_BYTES, NULL_STR, STR, UUID, all, array, since, tagged, until,
};

pub(super) const APIS: &[Api] = &[
    Api::new(
        ApiKey::Produce,
        3..=13,
        9,
        &[
            all(NULL_STR), // transactional id
            all(I16),      // acks
            all(I32),      // timeout
            all(array(&Kind::Struct(&[
                until(12, STR),  // topic name
                since(13, UUID), // topic id
                all(array(&Kind::Struct(&[
                    all(I32),        // partition
                    all(NULL_BYTES), // records
                ]))),
            ]))),
        ],
    ),
    Api::new(
        ApiKey::Fetch,
        4..=18,
        12,
        &[
            until(14, I32), // replica id
            all(I32),       // max wait
            all(I32),       // min bytes
            all(I32),       // max bytes
            all(I8),        // isolation level
            since(7, I32),  // session id
            since(7, I32),  // session epoch
            all(array(&Kind::Struct(&[
                until(12, STR),  // topic name
                since(13, UUID), // topic id
                all(array(&Kind::Struct(&[
                    all(I32),            // partition
                    since(9, I32),       // current leader epoch
                    all(I64),            // fetch offset
                    since(12, I32),      // last fetched epoch
                    since(5, I64),       // log start offset
                    all(I32),            // max bytes
                    tagged(0, 17, UUID), // replica directory id
                    tagged(1, 18, I64),  // high watermark
                ]))),
            ]))),
            since(
                7,
                array(&Kind::Struct(&[
                    until(12, STR),  // forgotten topic name
                    since(13, UUID), // forgotten topic id
                    all(I32S),       // partitions
                ])),
            ),
            since(11, STR),          // rack id
            tagged(0, 12, NULL_STR), // cluster id
            tagged(
                1,
                15,
                Kind::Struct(&[
                    all(I32), // replica id
                    all(I64), // replica epoch
                ]),
            ),
        ],
    ),
    Api::new(
        ApiKey::ListOffsets,
        1..=10,
        6,
        &[
            all(I32),     // replica id
            since(2, I8), // isolation level
            all(array(&Kind::Struct(&[
                all(STR), // topic name
                all(array(&Kind::Struct(&[
                    all(I32),      // partition
                    since(4, I32), // current leader epoch
                    all(I64),      // timestamp
                ]))),
            ]))),
            since(10, I32), // timeout
        ],
    ),
    Api::new(
        ApiKey::OffsetForLeaderEpoch,
        2..=4,
        4,
        &[
            since(3, I32), // replica id
            all(array(&Kind::Struct(&[
                all(STR), // topic name
                all(array(&Kind::Struct(&[
                    all(I32), // partition
                    all(I32), // current leader epoch
                    all(I32), // leader epoch
                ]))),
            ]))),
        ],
    ),
    Api::new(
        ApiKey::InitProducerId,
        0..=5,
        2,
        &[
            all(NULL_STR), // transactional id
            all(I32),      // transaction timeout
            since(3, I64), // producer id
            since(3, I16), // producer epoch
        ],
    ),
    Api::new(
        ApiKey::DeleteRecords,
        0..=2,
        2,
        &[
            all(array(&Kind::Struct(&[
                all(STR), // topic name
                all(array(&Kind::Struct(&[
                    all(I32), // partition
                    all(I64), // offset
                ]))),
            ]))),
            all(I32), // timeout
        ],
    ),
];
