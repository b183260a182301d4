//! Holds the guard and its schemas against the decoder that they guard.
//!
//! Requests are written from the schemas themselves: a tape of bytes decides every choice (how
//! many elements, null or not, which tagged fields). The decoder must read what was written to its
//! last byte and write it again unchanged, so a schema that differs from Kafka's in one field of one
//! version fails.

mod writer;

use std::{collections::BTreeSet, fs, path::Path};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{self, ApiKey},
    protocol::{Decodable, Encodable, Message},
};
use proptest::prelude::*;

use super::{
    GuardError, MAX_ELEMENTS, RequestHeader, check_body, parse_header, schema::Api, tables, versions, walk,
};
use writer::written;

/// Decodes a body as `T`, from the bytes that the guard walked over alone, and encodes it again.
fn recode_as<T: Decodable + Encodable>(version: i16, mut body: Bytes) -> Result<Bytes, String> {
    let request = T::decode(&mut body, version).map_err(|e| e.to_string())?;
    if !body.is_empty() {
        return Err(format!("{} bytes left", body.len()));
    }
    let mut out = BytesMut::new();
    request.encode(&mut out, version).map_err(|e| e.to_string())?;
    Ok(out.freeze())
}

fn default_as<T: Encodable + Default>(version: i16) -> Bytes {
    let mut out = BytesMut::new();
    T::default()
        .encode(&mut out, version)
        .expect("the default request exists in every version");
    out.freeze()
}

macro_rules! requests {
    ($($key:ident => $request:ident,)*) => {
        fn recode(key: ApiKey, version: i16, body: Bytes) -> Result<Bytes, String> {
            match key {
                $(ApiKey::$key => recode_as::<messages::$request>(version, body),)*
                other => panic!("{other:?} has a schema and no test"),
            }
        }

        fn default_body(key: ApiKey, version: i16) -> Bytes {
            match key {
                $(ApiKey::$key => default_as::<messages::$request>(version),)*
                other => panic!("{other:?} has a schema and no test"),
            }
        }

        /// Every request type with the range that its decoder has.
        const DECODERS: &[(ApiKey, i16, i16)] = &[
            $((
                ApiKey::$key,
                messages::$request::VERSIONS.min,
                messages::$request::VERSIONS.max,
            ),)*
        ];
    };
}

requests! {
    Produce => ProduceRequest,
    Fetch => FetchRequest,
    ListOffsets => ListOffsetsRequest,
    Metadata => MetadataRequest,
    OffsetCommit => OffsetCommitRequest,
    OffsetFetch => OffsetFetchRequest,
    FindCoordinator => FindCoordinatorRequest,
    JoinGroup => JoinGroupRequest,
    Heartbeat => HeartbeatRequest,
    LeaveGroup => LeaveGroupRequest,
    SyncGroup => SyncGroupRequest,
    DescribeGroups => DescribeGroupsRequest,
    ListGroups => ListGroupsRequest,
    ApiVersions => ApiVersionsRequest,
    CreateTopics => CreateTopicsRequest,
    DeleteTopics => DeleteTopicsRequest,
    DeleteRecords => DeleteRecordsRequest,
    InitProducerId => InitProducerIdRequest,
    OffsetForLeaderEpoch => OffsetForLeaderEpochRequest,
    DescribeConfigs => DescribeConfigsRequest,
    AlterConfigs => AlterConfigsRequest,
    AlterReplicaLogDirs => AlterReplicaLogDirsRequest,
    DescribeLogDirs => DescribeLogDirsRequest,
    CreatePartitions => CreatePartitionsRequest,
    DeleteGroups => DeleteGroupsRequest,
    ElectLeaders => ElectLeadersRequest,
    IncrementalAlterConfigs => IncrementalAlterConfigsRequest,
    OffsetDelete => OffsetDeleteRequest,
    DescribeCluster => DescribeClusterRequest,
    ConsumerGroupHeartbeat => ConsumerGroupHeartbeatRequest,
    ConsumerGroupDescribe => ConsumerGroupDescribeRequest,
    DescribeTopicPartitions => DescribeTopicPartitionsRequest,
}

/// Every (API, version) that has a schema.
fn every_version() -> impl Iterator<Item = (&'static Api, i16)> {
    tables::iter().flat_map(|api| (api.min..=api.max).map(move |version| (api, version)))
}

#[test]
fn schemas_and_decoders_have_the_same_versions() {
    assert_eq!(tables::iter().count(), DECODERS.len(), "one schema an API");
    for &(key, min, max) in DECODERS {
        assert_eq!(versions(key), Some((min, max)), "{key:?}");
    }
    for (api, version) in every_version() {
        let flexible = api.key.request_header_version(version) >= 2;
        assert_eq!(version >= api.flexible, flexible, "{:?} {version}", api.key);
    }
}

#[test]
fn what_has_no_schema_is_refused_by_name() {
    let refused = |api: ApiKey, version| {
        assert_eq!(
            check_body(api, version, &[]),
            Err(GuardError::UnsupportedVersion {
                api_key: api as i16,
                version
            })
        );
    };
    refused(ApiKey::Vote, 0);
    for api in tables::iter() {
        refused(api.key, api.min - 1);
        refused(api.key, api.max + 1);
        refused(api.key, i16::MIN);
        refused(api.key, i16::MAX);
    }
}

#[test]
fn default_requests_of_every_version_pass_whole() {
    for (api, version) in every_version() {
        let body = default_body(api.key, version);
        assert_eq!(
            check_body(api.key, version, &body),
            Ok(()),
            "{:?} {version}",
            api.key
        );
    }
}

#[test]
fn filled_requests_of_every_version_pass_whole_and_only_whole() {
    // Primes, so that the cycle meets every field with every residue.
    let tapes: [&[u8]; 4] = [
        &[1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37],
        &[3, 149, 1, 99, 2, 7, 131, 3, 3, 5, 1],
        &[255, 254, 253, 251, 250, 127, 126],
        &[0],
    ];
    for (api, version) in every_version() {
        for tape in tapes {
            let what = format!("{:?} {version} {tape:?}", api.key);
            let body = written(api, version, tape);
            assert_eq!(walk::check(api, version, &body), Ok(body.len()), "{what}");
            let again = recode(api.key, version, body.clone().into());
            assert_eq!(again.as_deref(), Ok(&body[..]), "{what}");
            for cut in 0..body.len() {
                assert!(
                    check_body(api.key, version, &body[..cut]).is_err(),
                    "{what} cut at {cut}"
                );
            }
            let longer = [&body[..], &[0]].concat();
            assert_eq!(walk::check(api, version, &longer), Ok(body.len()), "{what}");
        }
    }
}

#[test]
fn a_count_beyond_the_bytes_is_refused_before_it_is_believed() {
    // Eight bytes for which the decoder alone reserves gigabytes.
    let body = [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    assert_eq!(
        check_body(ApiKey::Metadata, 0, &body),
        Err(GuardError::Truncated {
            at: 4,
            needed: 0x7fff_ffff,
            left: 4
        })
    );
    let compact = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0];
    assert!(matches!(
        check_body(ApiKey::Metadata, 9, &compact),
        Err(GuardError::Truncated { at: 5, .. })
    ));
    let fixed = [0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff];
    assert!(check_body(ApiKey::ElectLeaders, 0, &fixed).is_err());
}

#[test]
fn elements_are_bounded_in_all() {
    let names = |count: usize| {
        let mut body = (count as i32).to_be_bytes().to_vec();
        body.resize(4 + 2 * count, 0);
        check_body(ApiKey::Metadata, 0, &body)
    };
    assert_eq!(names(MAX_ELEMENTS), Ok(()));
    assert_eq!(
        names(MAX_ELEMENTS + 1),
        Err(GuardError::TooManyElements { at: 4 })
    );

    // A tagged section: empty software name and version, then that many empty tagged fields.
    let mut body = vec![1, 1, 0x80, 0x80, 0x40];
    body.resize(5 + 2 * (1 << 20), 0);
    assert!(matches!(
        check_body(ApiKey::ApiVersions, 3, &body),
        Err(GuardError::TooManyElements { .. })
    ));
}

#[test]
fn tagged_fields_take_what_they_say() {
    // DescribeCluster 0: a flag, then the tagged section.
    let check = |tags: &[u8]| check_body(ApiKey::DescribeCluster, 0, &[&[0], tags].concat());
    assert_eq!(check(&[0]), Ok(()));
    assert_eq!(check(&[1, 9, 2, b'a', b'b']), Ok(()));
    assert_eq!(
        check(&[1, 9, 3, b'a', b'b']),
        Err(GuardError::Truncated {
            at: 4,
            needed: 3,
            left: 2
        })
    );
    assert_eq!(
        check(&[0xff, 0xff, 0xff, 0xff, 0x1f]),
        Err(GuardError::Varint { at: 1 })
    );
    assert_eq!(
        check(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]),
        Err(GuardError::Varint { at: 1 })
    );

    // Fetch 12 ends in its tagged section; tag 0 is the cluster id, tag 1 comes with version 15.
    let fetch = |version: i16, tags: &[u8]| {
        let mut body = default_body(ApiKey::Fetch, version).to_vec();
        assert_eq!(body.pop(), Some(0), "the empty tagged section");
        body.extend_from_slice(tags);
        check_body(ApiKey::Fetch, version, &body)
    };
    assert_eq!(fetch(12, &[1, 0, 2, 2, b'c']), Ok(()));
    assert!(matches!(
        fetch(12, &[1, 0, 3, 2, b'c', 0]),
        Err(GuardError::TagSize {
            tag: 0,
            size: 3,
            taken: 2,
            ..
        })
    ));
    assert!(matches!(
        fetch(12, &[1, 1, 0]),
        Err(GuardError::Tag { tag: 1, .. })
    ));
}

#[test]
fn nulls_negatives_and_other_bytes_are_named() {
    let create = |body: &[u8]| check_body(ApiKey::CreateTopics, 2, body);
    assert_eq!(create(&[0xff; 4]), Err(GuardError::Null { at: 0 }));
    assert_eq!(
        create(&[0xff, 0xff, 0xff, 0xfe]),
        Err(GuardError::Length { at: 0, length: -2 })
    );
    assert_eq!(
        check_body(ApiKey::FindCoordinator, 0, &[0, 1, 0xc3]),
        Err(GuardError::Utf8 { at: 2 })
    );
}

#[test]
fn headers_are_read_in_both_versions() {
    let tagged = [0, 18, 0, 3, 0, 0, 0, 9, 0, 2, b'm', b'e', 1, 5, 1, 0xaa, 1, 1, 0];
    assert_eq!(
        parse_header(&tagged),
        Ok((
            RequestHeader {
                api_key: ApiKey::ApiVersions,
                api_version: 3,
                correlation_id: 9,
                client_id: Some("me".to_owned()),
            },
            16
        ))
    );
    let plain = [0, 3, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    assert_eq!(
        parse_header(&plain),
        Ok((
            RequestHeader {
                api_key: ApiKey::Metadata,
                api_version: 1,
                correlation_id: -1,
                client_id: None,
            },
            10
        ))
    );
    assert_eq!(
        parse_header(&[0x7f, 0xff, 0, 0, 0, 0, 0, 0]),
        Err(GuardError::UnknownApi(0x7fff))
    );
    for cut in 0..16 {
        assert!(parse_header(&tagged[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn any_key_and_version_make_a_header_or_an_error() {
    for key in -2..200_i16 {
        for version in (-2..40).chain([i16::MIN, i16::MAX]) {
            let mut frame = [key.to_be_bytes(), version.to_be_bytes()].concat();
            frame.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff, 0]);
            let parsed = parse_header(&frame);
            assert_eq!(parsed.is_ok(), ApiKey::try_from(key).is_ok(), "{key} {version}");
        }
    }
}

/// Frames of the oldest, the newest and the first flexible version of every API: what the fuzz
/// target `request_frame` starts from. `OTTLA_WRITE_SEEDS=1` writes them.
#[test]
fn seeds_of_the_fuzzer_are_current() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/request_frame");
    for api in tables::iter() {
        for version in BTreeSet::from([api.min, api.max, api.flexible.clamp(api.min, api.max)]) {
            let mut frame = [(api.key as i16).to_be_bytes(), version.to_be_bytes()].concat();
            frame.extend_from_slice(&[0, 0, 0, 7, 0, 4]);
            frame.extend_from_slice(b"seed");
            if api.key.request_header_version(version) >= 2 {
                frame.push(0);
            }
            frame.extend(written(api, version, &[1, 2, 3, 5, 7, 11, 13]));
            let path = corpus.join(format!("{:?}-{version}", api.key));
            if std::env::var_os("OTTLA_WRITE_SEEDS").is_some() {
                fs::write(&path, &frame).expect("the corpus can be written");
            }
            assert!(
                fs::read(&path).is_ok_and(|seed| seed == frame),
                "{}",
                path.display()
            );
        }
    }
}

fn any_version() -> impl Strategy<Value = (&'static Api, i16)> {
    proptest::sample::select(every_version().collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The schema, the guard and the decoder agree on any request.
    #[test]
    fn written_requests_decode((api, version) in any_version(),
                               tape in proptest::collection::vec(any::<u8>(), 1..100)) {
        let body = written(api, version, &tape);
        prop_assert_eq!(check_body(api.key, version, &body), Ok(()));
        let again = recode(api.key, version, body.clone().into());
        prop_assert_eq!(again.as_deref(), Ok(&body[..]));
    }

    /// What the guard lets through after damage, the decoder reads as far as the guard walked: so
    /// every count it reserves memory for is one of elements that are there.
    #[test]
    fn damaged_requests_are_refused_or_decode(
        (api, version) in any_version(),
        tape in proptest::collection::vec(any::<u8>(), 1..60),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut body = written(api, version, &tape);
        body.push(0);
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        // Without a cut the byte that was added goes again; with one, anything may be missing.
        body.truncate(cut.map_or(body.len() - 1, |cut| cut.index(body.len())));
        if let Ok(walked) = walk::check(api, version, &body) {
            body.truncate(walked);
            let decoded = recode(api.key, version, body.into());
            prop_assert!(decoded.is_ok(), "{:?} {}: {:?}", api.key, version, decoded);
        }
    }

    #[test]
    fn garbage_is_refused_or_decodes((api, version) in any_version(),
                                     mut body in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(walked) = walk::check(api, version, &body) {
            body.truncate(walked);
            let decoded = recode(api.key, version, body.into());
            prop_assert!(decoded.is_ok(), "{:?} {}: {:?}", api.key, version, decoded);
        }
    }

    #[test]
    fn garbage_headers_never_panic(mut frame in proptest::collection::vec(any::<u8>(), 0..64),
                                   key in 0..95_i16) {
        let _ = parse_header(&frame);
        if let Some(front) = frame.get_mut(..2) {
            front.copy_from_slice(&key.to_be_bytes());
        }
        if let Ok((_, body)) = parse_header(&frame) {
            prop_assert!(body <= frame.len());
        }
    }
}
