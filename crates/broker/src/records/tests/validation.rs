//! Each rule of validation, and the code that breaking it gets.

use super::*;

#[test]
fn a_wrong_max_timestamp_is_corrected() {
    let batch = forged(&plain(&three()), |b| {
        b[35..43].copy_from_slice(&7_i64.to_be_bytes());
    });
    let validated = validate(batch.clone(), &rules()).expect("sound");
    let header = BatchHeader::parse(&validated.batches).expect("whole");
    assert_eq!(header.max_timestamp, NOW + 50);
    batch::verify_crc(&validated.batches).expect("renewed");

    let log_append_time = RecordRules {
        timestamp_type: TimestampType::LogAppendTime,
        ..rules()
    };
    let validated = validate(batch.clone(), &log_append_time).expect("the log sets its own");
    assert_eq!(validated.batches, batch);
}

#[test]
fn records_without_a_timestamp_have_no_largest() {
    let batch = BatchBuilder::default().build_records(&[(None, Some(b"v"))]);
    let validated = validate(batch.into(), &rules()).expect("sound");
    assert_eq!(
        (validated.max_timestamp, validated.offset_of_max_timestamp),
        (-1, None)
    );
}

#[test]
fn damage_is_a_corrupt_message() {
    let batch = plain(&three());
    let mut flipped = batch.to_vec();
    *flipped.last_mut().expect("not empty") ^= 1;
    refused(flipped, &rules(), ErrorCode::CorruptMessage);
    for cut in 1..batch.len() {
        refused(batch.slice(..cut), &rules(), ErrorCode::CorruptMessage);
    }
    for length in [-1, i32::MIN, 0, 48, i32::MAX] {
        let bad = forged(&batch, |b| b[8..12].copy_from_slice(&length.to_be_bytes()));
        refused(bad, &rules(), ErrorCode::CorruptMessage);
    }
    let tail = [&batch[..], &[0; 20]].concat();
    refused(tail, &rules(), ErrorCode::CorruptMessage);
    let tail = [&batch[..], &batch[..70]].concat();
    refused(tail, &rules(), ErrorCode::CorruptMessage);
}

#[test]
fn headers_that_contradict_themselves_are_invalid_records() {
    let batch = plain(&three());
    refused(Bytes::new(), &rules(), ErrorCode::InvalidRecord);
    refused(
        [&batch[..], &batch[..]].concat(),
        &rules(),
        ErrorCode::InvalidRecord,
    );
    let set = |at: usize, bytes: &[u8]| forged(&batch, |b| b[at..at + bytes.len()].copy_from_slice(bytes));
    for magic in [0, 1, 3, 0xff] {
        refused(set(16, &[magic]), &rules(), ErrorCode::InvalidRecord);
    }
    refused(set(0, &1_i64.to_be_bytes()), &rules(), ErrorCode::InvalidRecord);
    refused(
        set(0, &i64::MAX.to_be_bytes()),
        &rules(),
        ErrorCode::InvalidRecord,
    );
    for delta in [-1, 0, 1, 3, i32::MIN, i32::MAX] {
        refused(
            set(23, &i32::to_be_bytes(delta)),
            &rules(),
            ErrorCode::InvalidRecord,
        );
    }
    for count in [-1, 0, 2, 4, i32::MAX] {
        refused(
            set(57, &i32::to_be_bytes(count)),
            &rules(),
            ErrorCode::InvalidRecord,
        );
    }
    let control = set(21, &0x20_i16.to_be_bytes());
    refused(control, &rules(), ErrorCode::InvalidRecord);
    let no_sequence = set(43, &9_i64.to_be_bytes());
    refused(no_sequence, &rules(), ErrorCode::InvalidRecord);
    for codec in [5, 6, 7_i16] {
        let unknown = set(21, &codec.to_be_bytes());
        refused(unknown, &rules(), ErrorCode::UnsupportedCompressionType);
    }
    let log_append_time = set(21, &0x08_i16.to_be_bytes());
    refused(log_append_time, &rules(), ErrorCode::InvalidTimestamp);
    let transactional = set(21, &0x10_i16.to_be_bytes());
    refused(
        transactional.clone(),
        &rules(),
        ErrorCode::TransactionalIdAuthorizationFailed,
    );
    let allowed = RecordRules {
        transactional: true,
        ..rules()
    };
    validate(transactional, &allowed).expect("in a transaction");
}

#[test]
fn counts_that_agree_with_each_other_and_not_with_the_records_are_invalid_records() {
    for codec in CODECS {
        for count in [1, 2, 4, 1000, i32::MAX] {
            let batch = forged(&plain(&three()), |b| {
                b[23..27].copy_from_slice(&(count - 1).to_be_bytes());
                b[57..61].copy_from_slice(&count.to_be_bytes());
            });
            let error = refused(compressed(&batch, codec), &rules(), ErrorCode::InvalidRecord);
            let what = if count < 3 {
                Malformed::Surplus
            } else {
                Malformed::Missing
            };
            assert!(
                matches!(error, RecordError::Malformed { what: w, .. } if w == what),
                "{error}"
            );
        }
    }
}

#[test]
fn framing_is_checked_field_by_field() {
    let one = |records: &[u8]| refused(around(records, 0, 1), &rules(), ErrorCode::InvalidRecord);
    let what = |records: &[u8]| match one(records) {
        RecordError::Malformed { index: 0, what } => what,
        other => panic!("{other}"),
    };
    // length 6: attributes, timestamp, offset, null key, null value, no headers
    validate(around(&[12, 0, 0, 0, 1, 1, 0], 0, 1), &rules()).expect("the smallest record");
    assert_eq!(what(&[]), Malformed::Missing);
    assert_eq!(what(&[0]), Malformed::Length(0));
    assert_eq!(what(&[1]), Malformed::Length(-1));
    assert_eq!(what(&[14, 0, 0, 0, 1, 1, 0, 0]), Malformed::Extent);
    assert_eq!(what(&[10, 0, 0, 0, 1, 1, 0]), Malformed::Extent);
    assert_eq!(what(&[12, 0, 0, 2, 1, 1, 0]), Malformed::OffsetDelta(1));
    assert_eq!(what(&[12, 0, 0, 1, 1, 1, 0]), Malformed::OffsetDelta(-1));
    assert_eq!(what(&[12, 0, 0, 0, 3, 1, 0]), Malformed::Length(-2));
    assert_eq!(what(&[12, 0, 0, 0, 1, 100, 0]), Malformed::Length(50));
    assert_eq!(what(&[12, 0, 0, 0, 1, 8, 0]), Malformed::Missing);
    assert_eq!(what(&[12, 0, 0, 0, 1, 1, 1]), Malformed::Length(-1));
    assert_eq!(what(&[12, 0, 0, 0, 1, 1, 100]), Malformed::Length(50));
    // a header with a null key
    assert_eq!(what(&[16, 0, 0, 0, 1, 1, 2, 1, 1]), Malformed::Length(-1));
    assert_eq!(what(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Malformed::Varint);
    assert_eq!(what(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01]), Malformed::Varint);
}

#[test]
fn bounds_on_timestamps_name_the_records() {
    let mut records = three();
    records[0].timestamp_delta = 3_600_001;
    records[2].timestamp_delta = -1001;
    let mut rules = rules();
    rules.before_max_ms = 1000;
    for codec in CODECS {
        let error = refused(
            compressed(&plain(&records), codec),
            &rules,
            ErrorCode::InvalidTimestamp,
        );
        let indexes: Vec<i32> = error.record_faults().iter().map(|fault| fault.index).collect();
        assert_eq!(indexes, [0, 2]);
    }
    records[0].timestamp_delta = 3_600_000;
    records[2].timestamp_delta = -1000;
    validate(plain(&records), &rules).expect("just within");

    rules.timestamp_type = TimestampType::LogAppendTime;
    records[0].timestamp_delta = i64::MAX;
    validate(plain_at(&records, 0), &rules).expect("the producer's clock does not matter");
}

/// A batch whose base timestamp is another.
fn plain_at(records: &[Rec], base_timestamp: i64) -> Bytes {
    let builder = BatchBuilder {
        base_timestamp,
        max_timestamp: base_timestamp,
        ..BatchBuilder::default()
    };
    builder.build(&framed(records), records.len() as i32).into()
}

#[test]
fn extreme_timestamps_overflow_nothing() {
    for base in [i64::MIN, i64::MAX, -1, 0] {
        for delta in [i64::MIN, i64::MAX, -1, 0] {
            for now_ms in [i64::MIN, i64::MAX, 0] {
                let mut records = three();
                records[0].timestamp_delta = delta;
                let rules = RecordRules { now_ms, ..rules() };
                let _ = validate(plain_at(&records, base), &rules);
            }
        }
    }
}

#[test]
fn compacted_topics_want_keys() {
    let rules = RecordRules {
        compacted: true,
        ..rules()
    };
    let header_only = RecordRules {
        header_only: true,
        ..rules
    };
    for rules in [rules, header_only] {
        let error = refused(plain(&three()), &rules, ErrorCode::InvalidRecord);
        assert_eq!(
            error.record_faults(),
            [RecordFault {
                index: 0,
                kind: RecordFaultKind::NoKey
            }]
        );
        validate(plain(&[rec(0, Some(b""), None)]), &rules).expect("an empty key is a key");
    }
}

#[test]
fn the_number_of_named_faults_is_bounded() {
    let records: Vec<Rec> = (0..5000).map(|delta| rec(delta, None, None)).collect();
    let rules = RecordRules {
        compacted: true,
        ..rules()
    };
    let error = refused(plain(&records), &rules, ErrorCode::InvalidRecord);
    assert_eq!(error.record_faults().len(), 1000);
    assert!(error.to_string().len() < 500);
}

#[test]
fn size_is_checked_with_the_header() {
    let batch = plain(&three());
    let mut rules = rules();
    rules.max_message_bytes = batch.len();
    validate(batch.clone(), &rules).expect("just fits");
    rules.max_message_bytes -= 1;
    refused(batch, &rules, ErrorCode::MessageTooLarge);
}

#[test]
fn zstd_comes_with_produce_version_seven() {
    let rules = RecordRules {
        zstd: false,
        ..rules()
    };
    let batch = compressed(&plain(&three()), Compression::Zstd);
    refused(batch, &rules, ErrorCode::UnsupportedCompressionType);
    validate(compressed(&plain(&three()), Compression::Lz4), &rules).expect("older codecs do");
}

#[test]
fn header_only_trusts_the_records_and_nothing_else() {
    let rules = RecordRules {
        header_only: true,
        ..rules()
    };
    let garbage = around(b"not records at all", 0, 7);
    let validated = validate(garbage, &rules).expect("not looked at");
    assert_eq!(
        (validated.max_timestamp, validated.offset_of_max_timestamp),
        (NOW, None)
    );
    let late = forged(&plain(&three()), |b| {
        b[35..43].copy_from_slice(&(NOW + 4_000_000).to_be_bytes());
    });
    refused(late, &rules, ErrorCode::InvalidTimestamp);
    let mut flipped = plain(&three()).to_vec();
    flipped[70] ^= 1;
    refused(flipped, &rules, ErrorCode::CorruptMessage);
    let recompressed = RecordRules {
        compression: TopicCompression::Fixed(Compression::Zstd),
        ..rules
    };
    let validated = validate(plain(&three()), &recompressed).expect("sound");
    assert_eq!(opened(&validated.batches), framed(&three()));
}
