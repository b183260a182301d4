//! What is judged at once, and what beside the async workers.

use futures::FutureExt;

use super::{
    super::{validate::validate_briefly, validator::Validator},
    codecs::zeros,
    *,
};

/// One sound record of so many bytes and a little more.
fn large(size: usize) -> Bytes {
    around(&zeros(size), 0, 1)
}

#[test]
fn what_is_small_is_judged_at_once() {
    for codec in CODECS {
        let batch = compressed(&plain(&three()), codec);
        let judged = validate_briefly(&batch, &rules()).expect("small");
        assert_eq!(judged, validate(batch, &rules()));
        let damaged = forged(&compressed(&plain(&three()), codec), |b| b[60] = 9);
        let judged = validate_briefly(&damaged, &rules()).expect("small");
        assert_eq!(judged, validate(damaged, &rules()));
    }
    assert!(validate_briefly(&large(100_000), &rules()).is_some());
}

#[test]
fn what_is_large_or_opens_to_much_or_is_compressed_anew_is_not() {
    assert!(validate_briefly(&large(1 << 20), &rules()).is_none());
    for codec in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
        let batch = compressed(&large(1 << 20), codec);
        assert!(batch.len() < 20_000, "{}", batch.len());
        assert!(validate_briefly(&batch, &rules()).is_none(), "{codec:?}");
    }
    let anew = |codec| RecordRules {
        compression: TopicCompression::Fixed(codec),
        ..rules()
    };
    assert!(validate_briefly(&plain(&three()), &anew(Compression::Lz4)).is_none());
    assert!(validate_briefly(&plain(&three()), &anew(Compression::None)).is_some());
}

#[tokio::test]
async fn a_bomb_is_opened_on_another_thread() {
    let bomb = compressed(&large(20 << 20), Compression::Zstd);
    let validator = Validator::new();
    // A busy machine may let the other thread end before this one looks.
    let elsewhere = || validator.validate(bomb.clone(), rules()).now_or_never().is_none();
    assert!((0..50).any(|_| elsewhere()), "on this thread");
    assert_eq!(
        validator.validate(bomb.clone(), rules()).await,
        validate(bomb, &rules())
    );
    let small = plain(&three());
    tokio::select! {
        biased;
        judged = validator.validate(small.clone(), rules()) => assert_eq!(judged, validate(small, &rules())),
        () = std::future::ready(()) => panic!("a small batch is judged at once"),
    }
}
