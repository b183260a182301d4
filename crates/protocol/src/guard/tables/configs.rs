//! Configs: DescribeConfigs, AlterConfigs, IncrementalAlterConfigs.

use kafka_protocol::messages::ApiKey;

use crate::guard::schema::{Api, BOOL, I8, Kind, NULL_STR, STR, all, array, null_array, since};

pub(super) const APIS: &[Api] = &[
    Api::new(
        ApiKey::DescribeConfigs,
        1..=4,
        4,
        &[
            all(array(&Kind::Struct(&[
                all(I8),               // resource type
                all(STR),              // resource name
                all(null_array(&STR)), // keys
            ]))),
            all(BOOL),      // include synonyms
            since(3, BOOL), // include documentation
        ],
    ),
    Api::new(
        ApiKey::AlterConfigs,
        0..=2,
        2,
        &[
            all(array(&Kind::Struct(&[
                all(I8),  // resource type
                all(STR), // resource name
                all(array(&Kind::Struct(&[
                    all(STR),      // name
                    all(NULL_STR), // value
                ]))),
            ]))),
            all(BOOL), // validate only
        ],
    ),
    Api::new(
        ApiKey::IncrementalAlterConfigs,
        0..=1,
        1,
        &[
            all(array(&Kind::Struct(&[
                all(I8),  // resource type
                all(STR), // resource name
                all(array(&Kind::Struct(&[
                    all(STR),      // name
                    all(I8),       // operation
                    all(NULL_STR), // value
                ]))),
            ]))),
            all(BOOL), // validate only
        ],
    ),
];
