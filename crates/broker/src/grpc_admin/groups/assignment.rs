//! What a consumer's assignment says, read from the bytes that the group's leader made.
//!
//! ```text
//! version i16 | topic count i32 | per topic: name length i16, name, partition count i32, partitions i32…
//! ```

use protocol::grpc::v1::AssignedTopic;

/// The protocol type whose assignments have this form.
pub(super) const CONSUMER: &str = "consumer";

/// The topics and partitions of an assignment; `None` where the bytes are something else.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<AssignedTopic>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut rest = bytes;
    let _version: [u8; 2] = take(&mut rest)?;
    let mut topics = Vec::new();
    // Counts are only believed as far as there are bytes.
    for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        let mut partitions = Vec::new();
        for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
            partitions.push(i32::from_be_bytes(take(&mut rest)?));
        }
        topics.push(AssignedTopic {
            topic: String::from_utf8_lossy(name).into_owned(),
            partitions,
        });
    }
    Some(topics)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn topics_and_partitions_are_read() {
        let bytes = [
            &[0, 1][..],
            &[0, 0, 0, 1],
            &[0, 2],
            b"ab",
            &[0, 0, 0, 2],
            &[0, 0, 0, 3],
            &[0, 0, 0, 7],
            // User data.
            &[0xff, 0xff, 0xff, 0xff],
        ]
        .concat();
        let topics = read(&bytes).expect("an assignment");
        assert_eq!(
            (topics[0].topic.as_str(), &topics[0].partitions[..]),
            ("ab", &[3, 7][..])
        );
        assert_eq!(read(&[]), Some(Vec::new()));
        assert_eq!(read(&bytes[..9]), None);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
        }
    }
}
