//! What the fuzz target `record_batch` starts from.

use std::{fs, path::Path};

use super::*;

/// Every codec under every topic compression, and some that are refused. `OTTLA_WRITE_SEEDS=1`
/// writes them. Compressors change from release to release: only that the seeds are there is
/// checked.
#[test]
fn seeds_of_the_fuzzer_are_there() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/record_batch");
    let keyed = [rec(0, Some(b"a"), None), rec(1, Some(b"b"), Some(b"value"))];
    let mut seeds = Vec::new();
    for codec in CODECS {
        let batch = compressed(&plain(&three()), codec);
        for (choice, rules) in [(0, "uncompressed"), (3, "lz4"), (4, "zstd"), (7, "producer")] {
            seeds.push((format!("{codec:?}-to-{rules}"), choice, batch.clone()));
        }
        seeds.push((
            format!("{codec:?}-compacted"),
            0b1111,
            compressed(&plain(&keyed), codec),
        ));
        seeds.push((format!("{codec:?}-log-append-time"), 0b1_0111, batch.clone()));
        seeds.push((format!("{codec:?}-header-only"), 0b10_0001, batch));
    }
    let raw_snappy = snap::raw::Encoder::new()
        .compress_vec(&framed(&three()))
        .expect("small");
    seeds.push(("Snappy-raw".to_owned(), 7, around(&raw_snappy, 2, 3)));
    seeds.push(("no-records".to_owned(), 7, around(&[], 0, 0)));
    seeds.push((
        "two-batches".to_owned(),
        7,
        [&plain(&keyed)[..], &plain(&keyed)].concat().into(),
    ));
    for (name, choice, batch) in seeds {
        let path = corpus.join(name);
        if std::env::var_os("OTTLA_WRITE_SEEDS").is_some() {
            fs::write(&path, [&[choice], &batch[..]].concat()).expect("the corpus can be written");
        }
        assert!(path.is_file(), "{}", path.display());
    }
}
