//! The topics that a consumer's metadata names, in the embedded consumer protocol.
//!
//! A subscription begins with a version and the list of topics in every version that there is or
//! will be; what follows is between the members.

use std::{collections::BTreeSet, sync::Arc};

/// The protocol type of groups that consume; of others the coordinator understands nothing.
pub(in super::super) const CONSUMER: &str = "consumer";

/// Adds the topics of one subscription; `None` when it cannot be read.
pub(super) fn add_topics(subscription: &[u8], topics: &mut BTreeSet<Arc<str>>) -> Option<()> {
    let (version, rest) = subscription.split_first_chunk()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk()?;
    for _ in 0..i32::from_be_bytes(*count) {
        let (len, after) = rest.split_first_chunk()?;
        let len = usize::try_from(i16::from_be_bytes(*len)).ok()?;
        let (topic, after) = after.split_at_checked(len)?;
        topics.insert(Arc::from(std::str::from_utf8(topic).ok()?));
        rest = after;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_from_any_version_and_never_beyond_the_bytes() {
        let whole = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xffanything";
        let mut topics = BTreeSet::new();
        assert_eq!(add_topics(whole, &mut topics), Some(()));
        assert_eq!(topics, BTreeSet::from(["a".into(), "bc".into()]));
        for end in 0..13 {
            assert_eq!(add_topics(&whole[..end], &mut BTreeSet::new()), None, "{end}");
        }
        assert_eq!(add_topics(b"\xff\xff\0\0\0\0", &mut BTreeSet::new()), None);
        assert_eq!(
            add_topics(b"\0\0\x7f\xff\xff\xff\0\0", &mut BTreeSet::new()),
            None
        );
        assert_eq!(
            add_topics(b"\0\0\0\0\0\x01\0\x01\xff", &mut BTreeSet::new()),
            None
        );
    }
}
