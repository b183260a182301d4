//! Walks the records of an uncompressed batch body.

use protocol::batch::get_varint;

/// One record, its bytes borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) header_keys: Vec<&'a [u8]>,
}

/// A walk that ends at the first byte that is no record.
#[derive(Clone, Debug)]
pub(super) struct Records<'a> {
    rest: &'a [u8],
    damaged: bool,
}

impl<'a> Records<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            damaged: false,
        }
    }

    /// Whether the walk ended before the bytes did.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.damaged || self.rest.is_empty() {
            return None;
        }
        let record = record(&mut self.rest);
        self.damaged = record.is_err();
        record.ok()
    }
}

/// The bytes are no record.
struct Malformed;

fn record<'a>(bytes: &mut &'a [u8]) -> Result<Record<'a>, Malformed> {
    let mut body = part(bytes)?.ok_or(Malformed)?;
    let body = &mut body;
    take(body, 1)?;
    let record = Record {
        timestamp_delta: varint(body)?,
        offset_delta: varint(body)?,
        key: part(body)?,
        value: part(body)?,
        header_keys: header_keys(body)?,
    };
    if body.is_empty() {
        Ok(record)
    } else {
        Err(Malformed)
    }
}

fn header_keys<'a>(bytes: &mut &'a [u8]) -> Result<Vec<&'a [u8]>, Malformed> {
    let count = varint(bytes)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        keys.push(part(bytes)?.ok_or(Malformed)?);
        part(bytes)?;
    }
    Ok(keys)
}

fn varint(bytes: &mut &[u8]) -> Result<i64, Malformed> {
    let (value, taken) = get_varint(bytes).ok_or(Malformed)?;
    *bytes = &bytes[taken..];
    Ok(value)
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    let (head, rest) = bytes.split_at_checked(len).ok_or(Malformed)?;
    *bytes = rest;
    Ok(head)
}

/// Bytes with their length in front; a negative length stands for null.
fn part<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    match usize::try_from(varint(bytes)?) {
        Ok(len) => take(bytes, len).map(Some),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn foreign_bytes_end_the_walk_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Records::new(&bytes).count() <= bytes.len());
        }
    }
}
