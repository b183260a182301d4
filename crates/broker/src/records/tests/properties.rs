//! What holds for any records, and for any damage to them.

use proptest::prelude::*;

use super::*;

fn any_bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..max)
}

prop_compose! {
    fn any_records()(fields in proptest::collection::vec(
        (
            -1000..1000_i64,
            proptest::option::of(any_bytes(20)),
            proptest::option::of(any_bytes(200)),
            proptest::collection::vec((any_bytes(10), proptest::option::of(any_bytes(10))), 0..4),
        ),
        1..20,
    )) -> Vec<Rec> {
        fields.into_iter().zip(0..).map(|((timestamp_delta, key, value, headers), offset_delta)| Rec {
            timestamp_delta, offset_delta, key, value, headers,
        }).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_records_survive_any_recompression(
        records in any_records(),
        from in proptest::sample::select(&CODECS),
        to in proptest::sample::select(&CODECS),
    ) {
        let batch = compressed(&plain(&records), from);
        let rules = RecordRules { compression: TopicCompression::Fixed(to), ..rules() };
        let validated = validate(batch, &rules).expect("sound");
        prop_assert_eq!(opened(&validated.batches), framed(&records));
        let max = records.iter().map(|r| r.timestamp_delta).max().expect("not empty");
        prop_assert_eq!(validated.max_timestamp, NOW + max);
        let first = records.iter().position(|r| r.timestamp_delta == max).map(|i| i as i32);
        prop_assert_eq!(validated.offset_of_max_timestamp, first);
        let found = first_at_or_after(&validated.batches, NOW + max, Offset(0)).expect("sound");
        prop_assert_eq!(found.map(|(_, offset)| offset.0 as i32), first);
    }

    /// Damage under a right checksum: refused or accepted, never a panic, and what is accepted can
    /// be searched.
    #[test]
    fn damaged_batches_never_panic(
        records in any_records(),
        codec in proptest::sample::select(&CODECS),
        damage in proptest::collection::vec((16..400_usize, any::<u8>()), 1..6),
        target in proptest::sample::select(&CODECS),
    ) {
        let batch = forged(&compressed(&plain(&records), codec), |bytes| {
            for (at, byte) in damage {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
        });
        let rules = RecordRules { compression: TopicCompression::Fixed(target), ..rules() };
        let _ = first_at_or_after(&batch, NOW, Offset(0));
        if let Ok(validated) = validate(batch, &rules) {
            batch::verify_crc(&validated.batches).expect("accepted");
            first_at_or_after(&validated.batches, NOW, Offset(0)).expect("accepted");
        }
    }

    #[test]
    fn garbage_inside_any_codec_never_panics(garbage in any_bytes(300), codec in 0..8_i16, count in 1..9) {
        let batch = around(&garbage, codec, count);
        let _ = validate(batch.clone(), &rules());
        let _ = first_at_or_after(&batch, NOW, Offset(0));
    }

    #[test]
    fn garbage_never_panics(garbage in any_bytes(300)) {
        let garbage = Bytes::from(garbage);
        let _ = first_at_or_after(&garbage, 0, Offset(0));
        prop_assert!(validate(garbage, &rules()).is_err());
    }
}
