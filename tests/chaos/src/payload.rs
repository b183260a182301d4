//! What records carry: the value as text, and padding that makes batches of many sizes. A record with a key
//! carries its key as text, and its version as its value and, since a tombstone has none, in a header.

use chaos_checker::{Key, Process, Value, Version};
use rdkafka::message::{Header, OwnedHeaders};

const VERSION: &str = "version";

/// A value that no other process makes.
pub(crate) const fn value(process: Process, sequence: u32) -> Value {
    (process as u64) << 32 | sequence as u64
}

/// The record's bytes: the value, a blank, `padding` times a dot.
pub(crate) fn encode(value: Value, padding: usize) -> Vec<u8> {
    let mut bytes = format!("{value} ").into_bytes();
    bytes.resize(bytes.len() + padding, b'.');
    bytes
}

/// The value in a record; `None` for bytes that [`encode`] did not make.
pub(crate) fn decode(bytes: &[u8]) -> Option<Value> {
    let blank = bytes.iter().position(|&byte| byte == b' ')?;
    let (digits, padding) = bytes.split_at(blank);
    if padding[1..].iter().any(|&byte| byte != b'.') {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

/// The bytes of a record's key.
pub(crate) fn encode_key(key: Key) -> Vec<u8> {
    key.to_string().into_bytes()
}

/// The headers of a record with a key.
pub(crate) fn version_header(version: Version) -> OwnedHeaders {
    let text = version.to_string();
    OwnedHeaders::new().insert(Header {
        key: VERSION,
        value: Some(&text),
    })
}

/// What a record with a key says in all of its parts; `None` where they are not as they are made here.
pub(crate) fn decode_key<'a>(
    key: Option<&[u8]>,
    payload: Option<&[u8]>,
    mut headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) -> Option<(Key, Version)> {
    let key = str::from_utf8(key?).ok()?.parse().ok()?;
    let (VERSION_BYTES, Some(version)) = headers.next()? else {
        return None;
    };
    let version = str::from_utf8(version).ok()?.parse().ok()?;
    let whole = headers.next().is_none() && payload.is_none_or(|payload| decode(payload) == Some(version));
    whole.then_some((key, version))
}

const VERSION_BYTES: &[u8] = VERSION.as_bytes();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        for value in [0, value(1, 0), value(u32::MAX, u32::MAX)] {
            for padding in [0, 1, 500] {
                assert_eq!(decode(&encode(value, padding)), Some(value));
            }
        }
    }

    #[test]
    fn a_key_is_read_where_all_parts_of_its_record_agree() {
        let (key, value) = (encode_key(7), encode(3, 10));
        let header = |name, text| (name, Some(text));
        let version = || [header(VERSION_BYTES, &b"3"[..])].into_iter();
        assert_eq!(decode_key(Some(&key), Some(&value), version()), Some((7, 3)));
        assert_eq!(decode_key(Some(&key), None, version()), Some((7, 3)));
        for damaged in [
            decode_key(None, Some(&value), version()),
            decode_key(Some(b"x"), Some(&value), version()),
            decode_key(Some(&key), Some(&encode(4, 10)), version()),
            decode_key(Some(&key), Some(&value), version().take(0)),
            decode_key(Some(&key), Some(&value), version().chain(version())),
            decode_key(Some(&key), None, [header(&b"v"[..], &b"3"[..])].into_iter()),
        ] {
            assert_eq!(damaged, None);
        }
    }

    #[test]
    fn what_nobody_sent_is_no_value() {
        for bytes in [&b""[..], b"12", b" ", b"x .", b"12 .x", b"-1 "] {
            assert_eq!(decode(bytes), None);
        }
    }
}
