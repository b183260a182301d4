//! What travels on a replication stream, as types: a follower's fetch, a leader's news, and their
//! translation from and to `proto/ottla/v1/replication.proto`. Sentinels (−1, 0) end here.

use bytes::Bytes;
use protocol::grpc::v1;
use protocol::{ErrorCode, LeaderEpoch, Offset, PartitionIndex, StreamGeneration, TopicId, TopicPartition};

use crate::exchange::{FollowerFetch, Position};

/// A follower's fetch about one partition, within one conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The partition.
    pub partition: TopicPartition,
    /// The conversation; the follower begins another by a higher one.
    pub generation: StreamGeneration,
    /// What is fetched, and thereby acknowledged.
    pub fetch: FollowerFetch,
}

/// What a leader says about one partition, within one conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The partition.
    pub partition: TopicPartition,
    /// The conversation that this belongs to; a follower drops news of another one.
    pub generation: StreamGeneration,
    /// The leader epoch in which this was said.
    pub leader_epoch: LeaderEpoch,
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// The leader's first offset.
    pub log_start: Offset,
    /// What is new.
    pub content: Content,
}

/// The body of [`News`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Only the positions are news.
    Positions,
    /// Whole batches that directly follow `previous`.
    Batches {
        /// Where the follower's log must end for them to follow directly.
        previous: Offset,
        /// Base offset of the first; above `previous` where compaction left a gap.
        base: Offset,
        /// The batches as they lie in the leader's log; never empty.
        batches: Bytes,
    },
    /// The follower's (last epoch, log end) is not in the leader's log.
    Diverged {
        /// The largest epoch of the leader's log that is not above the follower's.
        epoch: Option<LeaderEpoch>,
        /// Where it ends there; zero without an epoch.
        end_offset: Offset,
    },
    /// The conversation is over.
    Over(ErrorCode),
}

/// A message that does not say what the protocol allows. The stream ends by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A topic id that is not sixteen bytes.
    #[error("a topic id has {0} bytes instead of 16")]
    TopicId(usize),
    /// A number that cannot be negative is.
    #[error("{field} is {value}, which cannot be")]
    Negative {
        /// The field's name in the .proto file.
        field: &'static str,
        /// What it said.
        value: i64,
    },
    /// A position whose offsets contradict each other.
    #[error("durable offset {durable} and log start {log_start} do not fit the log end {log_end}")]
    Position {
        /// The claimed durable offset.
        durable: i64,
        /// The claimed log start.
        log_start: i64,
        /// The claimed log end.
        log_end: i64,
    },
}

fn partition_from(topic_id: &[u8], partition: i32) -> Result<TopicPartition, WireError> {
    let topic = TopicId::from_slice(topic_id).ok_or(WireError::TopicId(topic_id.len()))?;
    if partition < 0 {
        return Err(WireError::Negative {
            field: "partition",
            value: partition.into(),
        });
    }
    Ok(TopicPartition::new(topic, PartitionIndex(partition)))
}

fn topic_id_of(partition: TopicPartition) -> Bytes {
    Bytes::copy_from_slice(partition.topic_id.0.as_bytes())
}

fn offset_from(field: &'static str, value: i64) -> Result<Offset, WireError> {
    if value < 0 {
        Err(WireError::Negative { field, value })
    } else {
        Ok(Offset(value))
    }
}

fn leader_epoch_from(value: i32) -> Result<LeaderEpoch, WireError> {
    LeaderEpoch::from_wire(value).ok_or_else(|| WireError::Negative {
        field: "leader_epoch",
        value: value.into(),
    })
}

impl Fetch {
    /// Checks a message's form.
    pub fn from_wire(message: &v1::PartitionFetch) -> Result<Self, WireError> {
        let (end, durable, start) = (
            message.log_end_offset,
            message.durable_offset,
            message.log_start_offset,
        );
        let position = Position {
            last_epoch: LeaderEpoch::from_wire(message.last_epoch),
            log_end: offset_from("log_end_offset", end)?,
            durable: offset_from("durable_offset", durable)?,
            log_start: offset_from("log_start_offset", start)?,
        };
        if position.durable > position.log_end || position.log_start > position.log_end {
            return Err(WireError::Position {
                durable,
                log_start: start,
                log_end: end,
            });
        }
        Ok(Self {
            partition: partition_from(&message.topic_id, message.partition)?,
            generation: StreamGeneration(message.generation),
            fetch: FollowerFetch {
                leader_epoch: leader_epoch_from(message.leader_epoch)?,
                position,
            },
        })
    }

    /// The message.
    pub fn to_wire(self) -> v1::PartitionFetch {
        let position = self.fetch.position;
        v1::PartitionFetch {
            topic_id: topic_id_of(self.partition),
            partition: self.partition.partition.get(),
            leader_epoch: self.fetch.leader_epoch.get(),
            generation: self.generation.get(),
            last_epoch: LeaderEpoch::to_wire(position.last_epoch),
            log_end_offset: position.log_end.get(),
            durable_offset: position.durable.get(),
            log_start_offset: position.log_start.get(),
        }
    }
}

impl News {
    /// Checks a message's form. What it carries as batches is not looked into here.
    pub fn from_wire(message: v1::PartitionData) -> Result<Self, WireError> {
        let content = if message.error != 0 {
            let code = i16::try_from(message.error).ok().and_then(ErrorCode::from_code);
            Content::Over(code.unwrap_or(ErrorCode::UnknownServerError))
        } else if let Some(diverged) = message.diverged {
            let epoch = LeaderEpoch::from_wire(diverged.epoch);
            let end_offset = match epoch {
                Some(_) => offset_from("diverged.end_offset", diverged.end_offset)?,
                None => Offset::ZERO,
            };
            Content::Diverged { epoch, end_offset }
        } else if message.batches.is_empty() {
            Content::Positions
        } else {
            Content::Batches {
                previous: offset_from("previous_offset", message.previous_offset)?,
                base: offset_from("base_offset", message.base_offset)?,
                batches: message.batches,
            }
        };
        Ok(Self {
            partition: partition_from(&message.topic_id, message.partition)?,
            generation: StreamGeneration(message.generation),
            leader_epoch: leader_epoch_from(message.leader_epoch)?,
            high_watermark: offset_from("high_watermark", message.high_watermark)?,
            log_start: offset_from("log_start_offset", message.log_start_offset)?,
            content,
        })
    }

    /// The message.
    pub fn into_wire(self) -> v1::PartitionData {
        let mut message = v1::PartitionData {
            topic_id: topic_id_of(self.partition),
            partition: self.partition.partition.get(),
            leader_epoch: self.leader_epoch.get(),
            generation: self.generation.get(),
            high_watermark: self.high_watermark.get(),
            log_start_offset: self.log_start.get(),
            ..Default::default()
        };
        match self.content {
            Content::Positions => {}
            Content::Batches {
                previous,
                base,
                batches,
            } => {
                message.previous_offset = previous.get();
                message.base_offset = base.get();
                message.batches = batches;
            }
            Content::Diverged { epoch, end_offset } => {
                message.diverged = Some(v1::Diverged {
                    epoch: LeaderEpoch::to_wire(epoch),
                    end_offset: epoch.map_or(-1, |_| end_offset.get()),
                });
            }
            Content::Over(code) => message.error = code.code().into(),
        }
        message
    }

    /// Bytes of batches: what counts against a follower's credit.
    pub fn batch_bytes(&self) -> usize {
        match &self.content {
            Content::Batches { batches, .. } => batches.len(),
            _ => 0,
        }
    }
}

/// Names a partition in a message.
pub fn partition_to_wire(partition: TopicPartition) -> v1::StreamPartition {
    v1::StreamPartition {
        topic_id: topic_id_of(partition),
        partition: partition.partition.get(),
    }
}

/// Reads a partition's name from a message.
pub fn partition_from_wire(message: &v1::StreamPartition) -> Result<TopicPartition, WireError> {
    partition_from(&message.topic_id, message.partition)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn partition() -> impl Strategy<Value = TopicPartition> {
        (any::<u128>(), 0..i32::MAX)
            .prop_map(|(id, p)| TopicPartition::new(TopicId(Uuid::from_u128(id)), PartitionIndex(p)))
    }

    fn epoch() -> impl Strategy<Value = Option<LeaderEpoch>> {
        prop::option::of((0..i32::MAX).prop_map(LeaderEpoch))
    }

    fn content() -> impl Strategy<Value = Content> {
        prop_oneof![
            Just(Content::Positions),
            (
                0..i64::MAX,
                0..i64::MAX,
                prop::collection::vec(any::<u8>(), 1..20)
            )
                .prop_map(|(previous, base, batches)| Content::Batches {
                    previous: Offset(previous),
                    base: Offset(base),
                    batches: batches.into(),
                }),
            (epoch(), 0..i64::MAX).prop_map(|(epoch, end)| Content::Diverged {
                epoch,
                end_offset: Offset(if epoch.is_some() { end } else { 0 }),
            }),
            prop::sample::select(ErrorCode::ALL)
                .prop_filter("no error is no end", |code| !code.is_none())
                .prop_map(Content::Over),
        ]
    }

    proptest! {
        #[test]
        fn news_round_trip(
            partition in partition(), content in content(), generation: u64,
            epoch in 0..i32::MAX, high_watermark in 0..i64::MAX, log_start in 0..i64::MAX,
        ) {
            let news = News {
                partition, content,
                generation: StreamGeneration(generation),
                leader_epoch: LeaderEpoch(epoch),
                high_watermark: Offset(high_watermark),
                log_start: Offset(log_start),
            };
            prop_assert_eq!(News::from_wire(news.clone().into_wire()), Ok(news));
        }

        #[test]
        fn fetches_round_trip_or_are_refused(
            partition in partition(), generation: u64, epoch in 0..i32::MAX, last_epoch in epoch(),
            end in 0..1000_i64, durable in 0..1000_i64, start in 0..1000_i64,
        ) {
            let fetch = Fetch {
                partition,
                generation: StreamGeneration(generation),
                fetch: FollowerFetch {
                    leader_epoch: LeaderEpoch(epoch),
                    position: Position {
                        last_epoch,
                        log_end: Offset(end),
                        durable: Offset(durable),
                        log_start: Offset(start),
                    },
                },
            };
            let read = Fetch::from_wire(&fetch.to_wire());
            if durable > end || start > end {
                prop_assert!(read.is_err(), "a contradiction was believed");
            } else {
                prop_assert_eq!(read, Ok(fetch));
            }
        }
    }

    #[test]
    fn malformed_messages_are_refused() {
        let fetch = v1::PartitionFetch::default();
        assert_eq!(Fetch::from_wire(&fetch), Err(WireError::TopicId(0)));
        let news = v1::PartitionData {
            topic_id: vec![0; 16].into(),
            high_watermark: -1,
            ..Default::default()
        };
        assert_eq!(
            News::from_wire(news),
            Err(WireError::Negative {
                field: "high_watermark",
                value: -1
            })
        );
    }
}
