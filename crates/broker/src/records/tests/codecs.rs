//! Compression: opening what clients wrote, within bounds, and compressing anew.

use super::*;

#[test]
fn a_sound_batch_passes_as_it_is_in_every_codec() {
    for codec in CODECS {
        let batch = compressed(&plain(&three()), codec);
        let validated = validate(batch.clone(), &rules()).expect("sound");
        assert_eq!(validated.batches.as_ptr(), batch.as_ptr(), "no copy is made");
        assert_eq!(
            validated,
            Validated {
                batches: batch,
                record_count: 3,
                max_timestamp: NOW + 50,
                offset_of_max_timestamp: Some(1),
                source_compression: codec,
            }
        );
    }
}

#[test]
fn recompression_keeps_every_byte_of_the_records() {
    let original = plain(&three());
    for from in CODECS {
        for to in CODECS {
            let batch = compressed(&original, from);
            let rules = RecordRules {
                compression: TopicCompression::Fixed(to),
                ..rules()
            };
            let validated = validate(batch, &rules).expect("sound");
            let header = BatchHeader::parse(&validated.batches).expect("whole");
            batch::verify_crc(&validated.batches).expect("renewed");
            assert_eq!(header.compression(), Ok(to));
            assert_eq!((header.record_count, header.max_timestamp), (3, NOW + 50));
            assert_eq!(opened(&validated.batches), framed(&three()), "{from:?} to {to:?}");
        }
    }
}

/// As in Kafka: it is not looked at, and goes where the batch is built anew.
#[test]
fn a_delete_horizon_that_a_client_claims_passes_and_goes_with_recompression() {
    let claims = BatchBuilder {
        attributes: 0x40,
        ..builder(&three())
    };
    let batch = Bytes::from(claims.build(&framed(&three()), 3));
    let validated = validate(batch.clone(), &rules()).expect("sound");
    assert_eq!(validated.batches, batch);
    let rules = RecordRules {
        compression: TopicCompression::Fixed(Compression::Zstd),
        ..rules()
    };
    let validated = validate(batch, &rules).expect("sound");
    let header = BatchHeader::parse(&validated.batches).expect("whole");
    assert_eq!(header.delete_horizon(), None);
}

#[test]
fn recompression_stops_at_the_topics_limit() {
    let records = [rec(0, None, Some(&vec![b'x'; 100_000]))];
    let batch = compressed(&plain(&records), Compression::Zstd);
    let rules = RecordRules {
        max_message_bytes: 50_000,
        compression: TopicCompression::Fixed(Compression::None),
        ..rules()
    };
    refused(batch, &rules, ErrorCode::MessageTooLarge);
}

#[test]
fn what_other_writers_compress_opens() {
    let records = framed(&three());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&records).expect("to memory");
    let gzip = gzip.finish().expect("to memory");
    let raw_snappy = snap::raw::Encoder::new().compress_vec(&records).expect("small");
    let mut lz4 = lz4_flex::frame::FrameEncoder::with_frame_info(
        lz4_flex::frame::FrameInfo::new()
            .block_mode(lz4_flex::frame::BlockMode::Linked)
            .content_checksum(true)
            .block_checksums(true),
        Vec::new(),
    );
    lz4.write_all(&records).expect("to memory");
    let lz4 = lz4.finish().expect("to memory");
    let zstd = zstd::stream::encode_all(&records[..], 19).expect("to memory");
    for (codec, bytes) in [(1, gzip), (2, raw_snappy), (3, lz4), (4, zstd)] {
        let validated = validate(around(&bytes, codec, 3), &rules()).expect("opens");
        assert_eq!((validated.record_count, validated.max_timestamp), (3, NOW + 50));
    }
}

#[test]
fn compressed_garbage_is_an_invalid_record() {
    for codec in 1..=4 {
        for garbage in [&b""[..], b"\0", b"nothing that any codec writes", &[0xff; 64]] {
            refused(around(garbage, codec, 1), &rules(), ErrorCode::InvalidRecord);
        }
        // Compressed bytes around garbage.
        let inner = around(b"nothing that is a record", 0, 1);
        let batch = compressed(&inner, CODECS[codec as usize]);
        refused(batch, &rules(), ErrorCode::InvalidRecord);
    }
}

/// One record whose value is this many zeros.
pub(super) fn zeros(size: usize) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 1];
    put_varint(&mut body, size as i64);
    body.resize(body.len() + size, 0);
    body.push(0);
    let mut framed = Vec::new();
    put_varint(&mut framed, body.len() as i64);
    framed.extend_from_slice(&body);
    framed
}

#[test]
fn what_opens_to_too_much_is_too_large() {
    let bomb = zeros(20 << 20);
    let honest = zeros(8 << 20);
    for codec in [Compression::Gzip, Compression::Zstd] {
        let batch = compressed(&around(&bomb, 0, 1), codec);
        assert!(batch.len() < 40_000, "{}", batch.len());
        let error = refused(batch, &rules(), ErrorCode::MessageTooLarge);
        assert_eq!(error, RecordError::OpensTooLarge { limit: 16 << 20 });
        let batch = compressed(&around(&honest, 0, 1), codec);
        validate(batch, &rules()).expect("repetitive and honest");
    }
    // Snappy and LZ4 cannot compress that well; what they claim is checked.
    let claim = [
        0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 6,
    ];
    let claim = [&claim[..], &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]].concat();
    refused(around(&claim, 2, 1), &rules(), ErrorCode::InvalidRecord);
}
