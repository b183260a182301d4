//! Writes Fetch answers, versions 4–17, around record batches that are not copied.
//!
//! The codec crate would copy every batch into one buffer; here the envelope is written by hand and
//! batches stay the chunks they were read as. A test decodes each version with the codec crate.

use bytes::{BufMut, Bytes, BytesMut};
use protocol::{BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicId};

use super::{Answer, cluster_view::NodeAddress};

/// The answer for one partition.
#[derive(Clone, Debug)]
pub(crate) struct FetchedPartition {
    pub(crate) partition: PartitionIndex,
    pub(crate) error: ErrorCode,
    pub(crate) high_watermark: Option<Offset>,
    pub(crate) last_stable_offset: Option<Offset>,
    pub(crate) log_start_offset: Option<Offset>,
    /// Where the client's log parts from ours (KIP-595; sent where the client told its last epoch).
    pub(crate) diverging: Option<(LeaderEpoch, Offset)>,
    /// Who leads now, for a client that asked the wrong broker (KIP-951).
    pub(crate) current_leader: Option<(BrokerId, LeaderEpoch)>,
    pub(crate) records: Bytes,
}

impl FetchedPartition {
    /// The answer of a partition that cannot be read.
    pub(crate) fn failed(partition: PartitionIndex, error: ErrorCode) -> Self {
        Self {
            partition,
            error,
            high_watermark: None,
            last_stable_offset: None,
            log_start_offset: None,
            diverging: None,
            current_leader: None,
            records: Bytes::new(),
        }
    }
}

/// The answers for the partitions of one topic.
#[derive(Clone, Debug)]
pub(crate) struct FetchedTopic {
    /// As the client named it; empty from version 13 on.
    pub(crate) name: String,
    pub(crate) id: TopicId,
    pub(crate) partitions: Vec<FetchedPartition>,
}

/// A whole answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) error: Option<ErrorCode>,
    pub(crate) topics: Vec<FetchedTopic>,
    /// Addresses of the leaders named in `current_leader`.
    pub(crate) node_endpoints: Vec<NodeAddress>,
}

/// Collects envelope bytes and record chunks in order.
struct Writer {
    chunks: Vec<Bytes>,
    tail: BytesMut,
    flexible: bool,
}

impl Writer {
    fn records(&mut self, records: Bytes) {
        // Never null: librdkafka refuses a length of −1.
        if self.flexible {
            put_unsigned_varint(&mut self.tail, records.len() as u32 + 1);
        } else {
            self.tail.put_i32(records.len() as i32);
        }
        if !records.is_empty() {
            self.chunks.push(self.tail.split().freeze());
            self.chunks.push(records);
        }
    }

    fn array_len(&mut self, len: usize) {
        if self.flexible {
            put_unsigned_varint(&mut self.tail, len as u32 + 1);
        } else {
            self.tail.put_i32(len as i32);
        }
    }

    fn string(&mut self, text: &str) {
        if self.flexible {
            put_unsigned_varint(&mut self.tail, text.len() as u32 + 1);
        } else {
            self.tail.put_i16(text.len() as i16);
        }
        self.tail.put_slice(text.as_bytes());
    }

    /// Tagged fields, in ascending order of their tags.
    fn tags(&mut self, fields: &[(u32, BytesMut)]) {
        if !self.flexible {
            return;
        }
        put_unsigned_varint(&mut self.tail, fields.len() as u32);
        for (tag, body) in fields {
            put_unsigned_varint(&mut self.tail, *tag);
            put_unsigned_varint(&mut self.tail, body.len() as u32);
            self.tail.put_slice(body);
        }
    }
}

/// Encodes the answer for `version`.
pub(crate) fn encode(correlation_id: i32, version: i16, fetched: Fetched) -> Answer {
    let flexible = version >= 12;
    let mut out = Writer {
        chunks: Vec::new(),
        tail: BytesMut::with_capacity(256),
        flexible,
    };
    out.tail.put_i32(0);
    out.tail.put_i32(correlation_id);
    out.tags(&[]);
    out.tail.put_i32(0); // throttle time
    if version >= 7 {
        out.tail.put_i16(fetched.error.unwrap_or(ErrorCode::None).code());
        out.tail.put_i32(0); // session id: sessions are declined
    }
    out.array_len(fetched.topics.len());
    for topic in fetched.topics {
        if version >= 13 {
            out.tail.put_slice(topic.id.0.as_bytes());
        } else {
            out.string(&topic.name);
        }
        out.array_len(topic.partitions.len());
        for partition in topic.partitions {
            encode_partition(&mut out, version, partition);
        }
        out.tags(&[]);
    }
    if version >= 16 && !fetched.node_endpoints.is_empty() {
        let mut body = BytesMut::new();
        put_unsigned_varint(&mut body, fetched.node_endpoints.len() as u32 + 1);
        for node in &fetched.node_endpoints {
            body.put_i32(node.id.get());
            put_unsigned_varint(&mut body, node.host.len() as u32 + 1);
            body.put_slice(node.host.as_bytes());
            body.put_i32(i32::from(node.port));
            match &node.rack {
                Some(rack) => {
                    put_unsigned_varint(&mut body, rack.len() as u32 + 1);
                    body.put_slice(rack.as_bytes());
                }
                None => put_unsigned_varint(&mut body, 0),
            }
            put_unsigned_varint(&mut body, 0);
        }
        out.tags(&[(0, body)]);
    } else {
        out.tags(&[]);
    }
    let Writer { mut chunks, tail, .. } = out;
    chunks.push(tail.freeze());
    let length: usize = chunks.iter().map(Bytes::len).sum::<usize>() - 4;
    let mut first = BytesMut::from(&chunks[0][..]);
    first[..4].copy_from_slice(&(length as i32).to_be_bytes());
    chunks[0] = first.freeze();
    Answer { chunks, close: false }
}

fn encode_partition(out: &mut Writer, version: i16, partition: FetchedPartition) {
    let offset = |offset: Option<Offset>| offset.map_or(-1, Offset::get);
    out.tail.put_i32(partition.partition.get());
    out.tail.put_i16(partition.error.code());
    out.tail.put_i64(offset(partition.high_watermark));
    out.tail.put_i64(offset(partition.last_stable_offset));
    if version >= 5 {
        out.tail.put_i64(offset(partition.log_start_offset));
    }
    out.array_len(0); // aborted transactions
    if version >= 11 {
        out.tail.put_i32(-1); // preferred read replica
    }
    out.records(partition.records);
    let mut tags = Vec::new();
    if let Some((epoch, end)) = partition.diverging {
        let mut body = BytesMut::new();
        body.put_i32(epoch.get());
        body.put_i64(end.get());
        put_unsigned_varint(&mut body, 0);
        tags.push((0, body));
    }
    if let Some((leader, epoch)) = partition.current_leader {
        let mut body = BytesMut::new();
        body.put_i32(leader.get());
        body.put_i32(epoch.get());
        put_unsigned_varint(&mut body, 0);
        tags.push((1, body));
    }
    out.tags(&tags);
}

fn put_unsigned_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value as u8) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{messages::FetchResponse, protocol::Decodable};

    use super::*;

    #[test]
    fn every_version_decodes_to_what_was_meant() {
        for version in 4..=17 {
            let mut partition = FetchedPartition::failed(PartitionIndex(3), ErrorCode::NotLeaderOrFollower);
            partition.current_leader = Some((BrokerId(2), LeaderEpoch(9)));
            partition.diverging = Some((LeaderEpoch(1), Offset(5)));
            let mut good = FetchedPartition::failed(PartitionIndex(4), ErrorCode::None);
            good.high_watermark = Some(Offset(10));
            good.records = Bytes::from_static(b"batches");
            let fetched = Fetched {
                error: None,
                topics: vec![FetchedTopic {
                    name: "t".to_owned(),
                    id: TopicId(uuid::Uuid::from_u128(7)),
                    partitions: vec![partition, good],
                }],
                node_endpoints: vec![NodeAddress {
                    id: BrokerId(2),
                    host: "h".to_owned(),
                    port: 9092,
                    rack: Some("r".to_owned()),
                }],
            };
            let answer = encode(77, version, fetched);
            let mut bytes: Bytes = answer.chunks.concat().into();
            assert_eq!(
                i32::from_be_bytes(bytes[..4].try_into().expect("four")) as usize,
                bytes.len() - 4
            );
            let header = if version >= 12 { 9 } else { 8 };
            bytes = bytes.slice(header..);
            let decoded = FetchResponse::decode(&mut bytes, version).expect("decodes");
            assert!(bytes.is_empty(), "version {version} leaves bytes");
            let topic = &decoded.responses[0];
            if version >= 13 {
                assert_eq!(topic.topic_id.as_u128(), 7);
            } else {
                assert_eq!(topic.topic.as_str(), "t");
            }
            assert_eq!(topic.partitions[0].error_code, 6);
            assert_eq!(topic.partitions[1].high_watermark, 10);
            assert_eq!(topic.partitions[1].records.as_deref(), Some(&b"batches"[..]));
            if version >= 12 {
                assert_eq!(topic.partitions[0].current_leader.leader_epoch, 9);
                assert_eq!(topic.partitions[0].diverging_epoch.end_offset, 5);
            }
            if version >= 16 {
                assert_eq!(decoded.node_endpoints[0].port, 9092);
            }
        }
    }
}
