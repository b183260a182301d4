//! Record batches as producers send them.

use bytes::Bytes;
use protocol::batch::{BatchBuilder, BatchHeader, Batches};

/// One uncompressed batch with a record per value.
pub(crate) fn batch(values: &[&[u8]]) -> Bytes {
    batch_with(&BatchBuilder::default(), values)
}

/// The same with a header of the test's choice.
pub(crate) fn batch_with(header: &BatchBuilder, values: &[&[u8]]) -> Bytes {
    let records: Vec<_> = values.iter().map(|value| (None, Some(*value))).collect();
    header.build_records(&records).into()
}

/// The batches of a fetch answer: each header, and the batch as it lies there.
pub(crate) fn records_of(records: &Bytes) -> Vec<(BatchHeader, Bytes)> {
    Batches::new(records.clone())
        .map(|batch| batch.expect("a fetch answers whole batches"))
        .collect()
}
