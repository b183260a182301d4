//! What a protobuf message will take in memory, told from its bytes before anything is decoded.
//!
//! An empty element of a repeated field is two bytes on the wire and may be a hundred in memory. Everything
//! else of a message is about as large as its bytes. So elements are counted, at any depth, in one pass that
//! allocates nothing.

/// A message whose footprint can be told. Implemented for every message at build time.
pub trait Bounded {
    /// Bytes of memory that the elements of one such message may take; `None` where it comes from a node of
    /// the cluster.
    const BOUND: Option<usize>;
    /// The fields with elements, or with elements inside.
    const PARTS: &'static [Part];
}

/// A field that is repeated, or a message.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The field's number.
    pub number: u32,
    /// Bytes of memory that one element takes; 0 for a single message, which is a part of its own message.
    pub element: usize,
    /// Whether one occurrence may hold many numbers.
    pub packed: bool,
    /// The same of the field's own message.
    pub parts: &'static [Self],
}

/// Fields of one message that are [`Part`]s, at most.
const MOST_PARTS: usize = 16;

/// Bytes of memory that the elements of `message` take once it is decoded, with the room that vectors have for
/// more of them. Of bytes that are no message, what stands before the fault is counted, as it is decoded.
pub fn footprint(mut message: &[u8], parts: &[Part]) -> usize {
    // A constant of the build: no message has more.
    assert!(
        parts.len() <= MOST_PARTS,
        "a message has more than {MOST_PARTS} parts"
    );
    let mut elements = [0_usize; MOST_PARTS];
    let mut inside = 0_usize;
    while let Some((number, value)) = next_field(&mut message) {
        let Some(at) = parts.iter().position(|part| part.number == number) else {
            continue;
        };
        let part = &parts[at];
        inside = inside.saturating_add(footprint(value, part.parts));
        // A number takes a byte at least. Twice as many: a list that comes in pieces, in one message after the
        // other, is one list in the end and has more room than they had each.
        elements[at] += if part.packed { 2 * value.len().max(1) } else { 1 };
    }
    let own = parts.iter().zip(elements);
    own.map(|(part, count)| capacity(count).saturating_mul(part.element))
        .fold(inside, usize::saturating_add)
}

/// The capacity of a vector to which so many elements were added one by one.
fn capacity(count: usize) -> usize {
    match count {
        0 => 0,
        count => count.next_power_of_two().max(4),
    }
}

/// The next field's number, and its payload where it has a length. `None` at the end, and at bytes that are no
/// field.
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u32, &'a [u8])> {
    let key = varint(rest)?;
    let number = (key >> 3) as u32;
    let payload = match key & 7 {
        0 => {
            varint(rest)?;
            &[]
        }
        1 => {
            rest.split_off(..8)?;
            &[]
        }
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            rest.split_off(..length)?
        }
        // A group, which no message here has, is passed over by the decoder. Its fields are taken for the
        // message's own: more is counted, never less.
        3 | 4 => &[],
        5 => {
            rest.split_off(..4)?;
            &[]
        }
        _ => return None,
    };
    Some((number, payload))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift.min(63);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::grpc::v1::{
        AdminCreateTopicsRequest, AdminNewTopic, AdminReplicas, AssignedTopic, CommitRequest,
        CommittedRequest, FetchPartition, FetchRequest, NewRecord, OffsetToCommit, ProduceRequest,
        RecordHeader, ResetGroupOffsetsRequest, fetch_partition::Start,
    };

    /// What the elements of a decoded message really take.
    trait Taken: Message + Default + Bounded + std::fmt::Debug {
        fn taken(&self) -> usize;
    }

    impl Taken for ProduceRequest {
        fn taken(&self) -> usize {
            let headers = self.records.iter().map(|record| record.headers.capacity());
            self.records.capacity() * size_of::<NewRecord>()
                + headers.sum::<usize>() * size_of::<RecordHeader>()
        }
    }

    impl Taken for CommitRequest {
        fn taken(&self) -> usize {
            self.offsets.capacity() * size_of::<OffsetToCommit>()
        }
    }

    impl Taken for CommittedRequest {
        fn taken(&self) -> usize {
            let partitions = self.topics.iter().map(|topic| topic.partitions.capacity());
            self.topics.capacity() * size_of::<AssignedTopic>() + partitions.sum::<usize>() * size_of::<i32>()
        }
    }

    impl Taken for FetchRequest {
        fn taken(&self) -> usize {
            self.partitions.capacity() * size_of::<FetchPartition>()
        }
    }

    impl Taken for AdminCreateTopicsRequest {
        fn taken(&self) -> usize {
            let of_topic = |topic: &AdminNewTopic| {
                let replicas = topic.assignments.values();
                let replicas: usize = replicas.map(|replicas| replicas.broker_ids.capacity()).sum();
                topic.assignments.capacity() * size_of::<(i32, AdminReplicas)>()
                    + topic.configs.capacity() * size_of::<(String, String)>()
                    + replicas * size_of::<i32>()
            };
            self.topics.capacity() * size_of::<AdminNewTopic>()
                + self.topics.iter().map(of_topic).sum::<usize>()
        }
    }

    fn told<M: Bounded>(bytes: &[u8]) -> usize {
        footprint(bytes, M::PARTS)
    }

    /// Whatever the bytes are: if they decode, no more is taken than was told.
    fn holds_for<M: Taken>(bytes: &[u8]) -> Result<(), TestCaseError> {
        let told = told::<M>(bytes);
        if let Ok(message) = M::decode(Bytes::copy_from_slice(bytes)) {
            prop_assert!(
                message.taken() <= told,
                "{} > {told}: {message:?}",
                message.taken()
            );
        }
        Ok(())
    }

    fn holds_for_all(bytes: &[u8]) -> Result<(), TestCaseError> {
        holds_for::<ProduceRequest>(bytes)?;
        holds_for::<CommitRequest>(bytes)?;
        holds_for::<CommittedRequest>(bytes)?;
        holds_for::<FetchRequest>(bytes)?;
        holds_for::<AdminCreateTopicsRequest>(bytes)
    }

    fn produced(shape: &[(u8, u16)]) -> ProduceRequest {
        let record = |&(headers, bytes): &(u8, u16)| NewRecord {
            key: (bytes % 3 == 0).then(Bytes::new),
            value: Some(vec![0xff; usize::from(bytes)].into()),
            headers: vec![RecordHeader::default(); headers.into()],
            timestamp_ms: (bytes % 2 == 0).then_some(-1),
            partition: None,
        };
        ProduceRequest {
            topic: "t".to_owned(),
            records: shape.iter().map(record).collect(),
            timeout_ms: Some(u32::MAX),
            ..ProduceRequest::default()
        }
    }

    /// Pieces of messages: fields of all kinds with lengths that fit, or do not.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = (0..12_u8, 0..8_u8, prop::collection::vec(any::<u8>(), 0..6));
        prop::collection::vec(piece, 0..40).prop_map(|pieces| {
            let mut bytes = Vec::new();
            for (number, wire, payload) in pieces {
                bytes.push(number << 3 | wire);
                if wire == 2 {
                    bytes.push(payload.len() as u8);
                }
                bytes.extend(payload);
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn nothing_takes_more_than_was_told(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            holds_for_all(&bytes)?;
        }

        #[test]
        fn nor_do_fields_in_any_order(bytes in pieces()) {
            holds_for_all(&bytes)?;
            // The same as records, as headers, and as a group that is not known.
            for prefix in [&[0x12][..], &[0x1a]] {
                let mut inside = prefix.to_vec();
                prost::encode_length_delimiter(bytes.len(), &mut inside).expect("a vector grows");
                inside.extend(&bytes);
                holds_for_all(&inside)?;
            }
            holds_for_all(&[&[0x7b][..], &bytes, &[0x7c]].concat())?;
        }

        #[test]
        fn what_is_told_of_records_is_exact(shape in prop::collection::vec((0..20_u8, 0..9_u16), 0..12)) {
            let bytes = produced(&shape).encode_to_vec();
            let decoded = ProduceRequest::decode(&bytes[..]).expect("it was encoded");
            prop_assert_eq!(told::<ProduceRequest>(&bytes), decoded.taken());
            // A message that breaks off has no more.
            for end in 0..bytes.len() {
                prop_assert!(told::<ProduceRequest>(&bytes[..end]) <= decoded.taken());
            }
        }
    }

    #[test]
    fn what_is_small_on_the_wire_is_counted_as_what_it_becomes() {
        let empty_records = [0x12, 0].repeat(1 << 20);
        assert_eq!(
            told::<ProduceRequest>(&empty_records),
            (1 << 20) * size_of::<NewRecord>()
        );
        let names = [0x12, 0].repeat(1000);
        let request = ResetGroupOffsetsRequest::PARTS;
        assert!(footprint(&names, request) >= 1000 * size_of::<AssignedTopic>());
        assert_eq!(told::<ProduceRequest>(&[0x0a; 100]), 0, "one long name");
    }

    #[test]
    fn maps_and_numbers_count_as_well() {
        let topic = |n: i32| AdminNewTopic {
            name: n.to_string(),
            assignments: (0..n)
                .map(|partition| {
                    (
                        partition,
                        AdminReplicas {
                            broker_ids: (0..n).collect(),
                        },
                    )
                })
                .collect(),
            configs: (0..n).map(|key| (key.to_string(), String::new())).collect(),
            ..AdminNewTopic::default()
        };
        let request = AdminCreateTopicsRequest {
            topics: (0..70).map(topic).collect(),
            ..AdminCreateTopicsRequest::default()
        };
        holds_for_all(&request.encode_to_vec()).expect("it holds");
        let fetch = FetchRequest {
            partitions: vec![
                FetchPartition {
                    partition: 1,
                    start: Some(Start::Offset(7)),
                };
                100
            ],
            ..FetchRequest::default()
        };
        holds_for_all(&fetch.encode_to_vec()).expect("it holds");
        let committed = CommittedRequest {
            group_id: "g".to_owned(),
            topics: vec![
                AssignedTopic {
                    topic: "t".to_owned(),
                    partitions: (0..1000).collect()
                };
                9
            ],
        };
        holds_for_all(&committed.encode_to_vec()).expect("it holds");
    }
}
