//! The records that a client sends for one partition.
//!
//! The first byte chooses the rules, the rest is the batch. Its checksum is put right first: no
//! fuzzer guesses one.

use broker::records::{RecordRules, TopicCompression, validate};
use bytes::Bytes;
use protocol::{
    ErrorCode, Offset,
    batch::{self, BatchHeader, Compression, TimestampType},
    records::first_at_or_after,
};

/// The rules that a target's first byte stands for: bits 0–2 the topic's compression, then
/// compacted, LogAppendTime, header only, transactional.
pub fn rules(choice: u8) -> RecordRules {
    let bit = |n: u8| choice >> n & 1 == 1;
    RecordRules {
        compression: match choice & 7 {
            0 => TopicCompression::Fixed(Compression::None),
            1 => TopicCompression::Fixed(Compression::Gzip),
            2 => TopicCompression::Fixed(Compression::Snappy),
            3 => TopicCompression::Fixed(Compression::Lz4),
            4 => TopicCompression::Fixed(Compression::Zstd),
            _ => TopicCompression::Producer,
        },
        compacted: bit(3),
        timestamp_type: if bit(4) {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        header_only: bit(5),
        transactional: bit(6),
        now_ms: 1_700_000_000_000,
        ..RecordRules::default()
    }
}

/// Validation and time search take any bytes; what is accepted is whole, within the size limit,
/// searchable, and accepted again as it is.
///
/// # Panics
/// When that is not so.
pub fn run(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else {
        return;
    };
    let rules = rules(choice);
    let mut bytes = rest.to_vec();
    if bytes.len() >= batch::HEADER_LEN {
        batch::renew_crc(&mut bytes);
    }
    // As if it lay in the log, whatever it is.
    let _ = first_at_or_after(&bytes, 0, Offset::ZERO);
    let Ok(validated) = validate(Bytes::from(bytes), &rules) else {
        return;
    };
    let header = BatchHeader::parse(&validated.batches).expect("accepted batches are whole");
    batch::verify_crc(&validated.batches).expect("accepted batches have their checksum");
    assert_eq!(
        header.size,
        validated.batches.len(),
        "one batch and nothing after it"
    );
    assert!(header.size <= rules.max_message_bytes, "within the limit");
    assert_eq!(
        header.record_count, validated.record_count,
        "all records are kept"
    );
    if !rules.header_only || rules.compacted {
        let found = first_at_or_after(&validated.batches, header.max_timestamp, Offset::ZERO)
            .expect("accepted records can be walked");
        if rules.timestamp_type == TimestampType::CreateTime {
            let offset = found.map(|(_, offset)| offset.0);
            assert!(
                validated.offset_of_max_timestamp.map(i64::from) == offset || header.max_timestamp == -1,
                "the largest timestamp is where validation saw it"
            );
        }
    }
    let as_it_is = RecordRules {
        compression: TopicCompression::Producer,
        ..rules
    };
    match validate(validated.batches.clone(), &as_it_is) {
        Ok(again) => assert_eq!(again.batches, validated.batches, "nothing is left to change"),
        // A better codec makes the ratio higher than what clients may send.
        Err(error) => assert_eq!(error.code(), ErrorCode::MessageTooLarge, "{error}"),
    }
}
