//! What records carry: the value as text, and padding that makes batches of many sizes.

use chaos_checker::{Process, Value};

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
    fn what_nobody_sent_is_no_value() {
        for bytes in [&b""[..], b"12", b" ", b"x .", b"12 .x", b"-1 "] {
            assert_eq!(decode(bytes), None);
        }
    }
}
