//! `key=value` lines, for the small identity files of a log directory.
//!
//! Values are ids and numbers, so Java's escapes and continuation lines have no place here; a line
//! that is neither a comment nor `key=value` makes the file malformed.

use std::collections::BTreeMap;

/// The pairs of a properties text; `None` when a line is malformed or a key is there twice.
pub(crate) fn parse(bytes: &[u8]) -> Option<BTreeMap<&str, &str>> {
    let mut pairs = BTreeMap::new();
    for line in str::from_utf8(bytes).ok()?.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let (key, value) = line.split_once('=')?;
        if pairs.insert(key.trim(), value.trim()).is_some() {
            return None;
        }
    }
    Some(pairs)
}

/// The text of `pairs`, in their order.
pub(crate) fn render(pairs: &[(&str, String)]) -> String {
    pairs.iter().fold(String::new(), |text, (key, value)| {
        text + key + "=" + value + "\n"
    })
}
