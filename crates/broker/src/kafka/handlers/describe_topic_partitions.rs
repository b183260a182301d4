//! DescribeTopicPartitions (key 75), version 0 (KIP-966): topics and their partitions, page by page, with
//! the replicas that may lead without loss although they have left the ISR.
//!
//! Topics are described in the order of their names, and none is created by being asked for. A page ends
//! after `max.request.partition.size.limit` partitions, or fewer where the client says so; its cursor
//! names the partition that the next page begins with. The "last known leaders" that an election could
//! fall back on are never named: such an election is an operator's command here.

use kafka_protocol::{
    messages::{
        ApiKey, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName as WireTopicName,
        describe_topic_partitions_response::{
            Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
        },
    },
    protocol::StrBytes,
};
use metadata::{ClusterImage, PartitionRegistration, Topic};
use protocol::{ErrorCode, PartitionIndex, TopicName};

use crate::kafka::{Request, api::Api, authorized_operations, cluster_view};

pub(crate) const API: Api = Api::new(ApiKey::DescribeTopicPartitions, 0, 0);

pub(crate) async fn handle(
    request: Request,
    message: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = request.broker.images.current();
    let most = request.broker.config.max_partitions_described;
    let limit = page_size(message.response_partition_limit, most);
    describe(&image, &request.listener, &message, limit)
}

/// How many partitions a page has at most: at least one, as in Kafka. A page of none would end where it
/// began, and a client that follows its cursor would never come to an end.
fn page_size(asked: i32, most: usize) -> usize {
    usize::try_from(asked).unwrap_or(0).min(most).max(1)
}

/// Where a page begins: a topic, and a partition of it.
struct Start<'a> {
    topic: &'a str,
    partition: PartitionIndex,
}

fn describe(
    image: &ClusterImage,
    listener: &str,
    message: &DescribeTopicPartitionsRequest,
    limit: usize,
) -> DescribeTopicPartitionsResponse {
    let mut names: Vec<&str> = message.topics.iter().map(|topic| topic.name.as_str()).collect();
    let every_topic = names.is_empty();
    if every_topic {
        names = image.topics.values().map(|topic| topic.name.as_str()).collect();
    }
    let start = message.cursor.as_ref().map(|cursor| Start {
        topic: cursor.topic_name.as_str(),
        partition: PartitionIndex(cursor.partition_index.max(0)),
    });
    if let Some(start) = &start {
        // A page may begin in the middle of a topic that has been deleted since the page before.
        names.retain(|name| *name >= start.topic);
        if message
            .cursor
            .as_ref()
            .is_some_and(|cursor| cursor.partition_index < 0)
        {
            return refused(names, start.topic);
        }
    }
    names.sort_unstable();
    names.dedup();

    let mut room = limit;
    let mut page = DescribeTopicPartitionsResponse::default();
    for name in names {
        if room == 0 {
            page.next_cursor = Some(cursor(name, PartitionIndex(0)));
            break;
        }
        let topic = match look_up(image, name) {
            Ok(topic) => topic,
            // Deleted between two pages: not worth an error, as nobody asked for it by name.
            Err(_) if every_topic => continue,
            Err(error) => {
                page.topics.push(absent(name, error));
                continue;
            }
        };
        let from = start
            .as_ref()
            .filter(|start| start.topic == name)
            .map_or(PartitionIndex(0), |start| start.partition);
        let described: Vec<_> = topic
            .partitions
            .range(from..)
            .take(room)
            .map(|(index, partition)| describe_partition(image, listener, *index, partition))
            .collect();
        let next = topic.partitions.range(from..).nth(described.len());
        room -= described.len();
        page.topics.push(describe_topic(topic, described));
        if let Some((next, _)) = next {
            page.next_cursor = Some(cursor(name, *next));
            break;
        }
    }
    page
}

fn look_up<'a>(image: &'a ClusterImage, name: &str) -> Result<&'a Topic, ErrorCode> {
    TopicName::new(name).map_err(|_| ErrorCode::InvalidTopicException)?;
    let topic = image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok(topic)
}

fn describe_topic(
    topic: &Topic,
    partitions: Vec<DescribeTopicPartitionsResponsePartition>,
) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(wire_name(topic.name.as_str())))
        .with_topic_id(topic.id.0)
        .with_is_internal(topic.name.is_internal())
        .with_partitions(partitions)
        .with_topic_authorized_operations(authorized_operations::ALL_OF_TOPIC)
}

fn describe_partition(
    image: &ClusterImage,
    listener: &str,
    index: PartitionIndex,
    partition: &PartitionRegistration,
) -> DescribeTopicPartitionsResponsePartition {
    let seen = cluster_view::partition(image, listener, partition);
    DescribeTopicPartitionsResponsePartition::default()
        .with_error_code(seen.leader.err().map_or(0, ErrorCode::code))
        .with_partition_index(index.get())
        .with_leader_id(seen.wire_leader())
        .with_leader_epoch(partition.leader_epoch.get())
        .with_replica_nodes(cluster_view::wire_ids(&partition.replicas))
        .with_isr_nodes(cluster_view::wire_ids(&partition.isr))
        .with_eligible_leader_replicas(Some(cluster_view::wire_ids(&partition.elr)))
        .with_last_known_elr(Some(Vec::new()))
        .with_offline_replicas(cluster_view::wire_ids(&seen.offline_replicas))
}

fn absent(name: &str, error: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(wire_name(name)))
}

/// A cursor of a negative partition: nothing can be described from there. The answer has no error of its
/// own, so every topic, at least the cursor's, carries it.
fn refused(names: Vec<&str>, cursor_topic: &str) -> DescribeTopicPartitionsResponse {
    let names = if names.is_empty() {
        vec![cursor_topic]
    } else {
        names
    };
    let topics = names
        .into_iter()
        .map(|name| absent(name, ErrorCode::InvalidRequest))
        .collect();
    DescribeTopicPartitionsResponse::default().with_topics(topics)
}

fn cursor(topic: &str, partition: PartitionIndex) -> Cursor {
    Cursor::default()
        .with_topic_name(wire_name(topic))
        .with_partition_index(partition.get())
}

fn wire_name(name: &str) -> WireTopicName {
    WireTopicName(StrBytes::from_string(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kafka_protocol::messages::describe_topic_partitions_request::{Cursor as AskedCursor, TopicRequest};
    use protocol::TopicId;

    use super::*;

    /// Topics of these sizes, without leaders.
    fn image(topics: &[(&str, i32)]) -> ClusterImage {
        let partition = Arc::new(PartitionRegistration {
            replicas: Vec::new(),
            directories: Vec::new(),
            isr: Vec::new(),
            elr: Vec::new(),
            leader: None,
            leader_epoch: 0.into(),
            partition_epoch: 0.into(),
            adding: Vec::new(),
            removing: Vec::new(),
        });
        let mut image = ClusterImage::default();
        for (name, size) in topics {
            let topic = Topic {
                id: TopicId::random(),
                name: TopicName::new(name).expect("a valid name"),
                partitions: (0..*size)
                    .map(|index| (PartitionIndex(index), Arc::clone(&partition)))
                    .collect(),
            };
            image.topic_ids.insert(topic.name.clone(), topic.id);
            image.topics.insert(topic.id, Arc::new(topic));
        }
        image
    }

    fn asked(topics: &[&str], cursor: Option<(&str, i32)>) -> DescribeTopicPartitionsRequest {
        let topics = topics
            .iter()
            .map(|name| TopicRequest::default().with_name(wire_name(name)));
        DescribeTopicPartitionsRequest::default()
            .with_topics(topics.collect())
            .with_cursor(cursor.map(|(topic, partition)| {
                AskedCursor::default()
                    .with_topic_name(wire_name(topic))
                    .with_partition_index(partition)
            }))
    }

    /// Topic, error and partitions, in order; and the cursor.
    type Page = (Vec<(String, i16, Vec<i32>)>, Option<(String, i32)>);

    fn page(image: &ClusterImage, message: &DescribeTopicPartitionsRequest, limit: usize) -> Page {
        let answer = describe(image, "PLAINTEXT", message, limit);
        let topics = answer.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| partition.partition_index);
            let name = topic.name.unwrap_or_default().to_string();
            (name, topic.error_code, partitions.collect())
        });
        let next = answer
            .next_cursor
            .map(|next| (next.topic_name.to_string(), next.partition_index));
        (topics.collect(), next)
    }

    #[test]
    fn pages_follow_one_another_over_topics_in_order_of_name() {
        let image = image(&[("b", 3), ("a", 2), ("c", 1)]);
        let (first, next) = page(&image, &asked(&[], None), 3);
        assert_eq!(
            first,
            [
                (String::from("a"), 0, vec![0, 1]),
                (String::from("b"), 0, vec![0])
            ]
        );
        assert_eq!(next, Some((String::from("b"), 1)));
        let (second, next) = page(&image, &asked(&[], Some(("b", 1))), 2);
        assert_eq!(second, [(String::from("b"), 0, vec![1, 2])]);
        assert_eq!(
            next,
            Some((String::from("c"), 0)),
            "the next topic, from its beginning"
        );
        let (third, next) = page(&image, &asked(&[], Some(("c", 0))), 2);
        assert_eq!((third, next), (vec![(String::from("c"), 0, vec![0])], None));
    }

    #[test]
    fn a_page_has_at_least_one_partition_and_at_most_as_many_as_the_broker_allows() {
        let sizes = [i32::MIN, -1, 0, 1, 2, 3, i32::MAX].map(|asked| page_size(asked, 2));
        assert_eq!(sizes, [1, 1, 1, 1, 2, 2, 2]);
        assert_eq!(page_size(5, 0), 1);
        // Whoever asks for nothing gets to the end all the same.
        let image = image(&[("a", 2), ("b", 1)]);
        let (mut pages, mut next) = (0, Some((String::from("a"), 0)));
        while let Some((topic, partition)) = next {
            let limit = page_size(0, 2000);
            (_, next) = page(&image, &asked(&[], Some((&topic, partition))), limit);
            pages += 1;
            assert!(pages <= 3, "{next:?}");
        }
        assert_eq!(pages, 3);
    }

    #[test]
    fn a_topic_that_is_gone_is_an_error_where_it_was_asked_for_by_name() {
        let image = image(&[("a", 1)]);
        let (topics, next) = page(&image, &asked(&["b", "a", "a", "x/y"], None), 10);
        let missing = ErrorCode::UnknownTopicOrPartition.code();
        let invalid = ErrorCode::InvalidTopicException.code();
        assert_eq!(
            topics,
            [
                (String::from("a"), 0, vec![0]),
                (String::from("b"), missing, vec![]),
                (String::from("x/y"), invalid, vec![])
            ]
        );
        assert_eq!(next, None);
        // The cursor's topic was deleted between two pages: the next topic begins at its first partition.
        let (topics, _) = page(&image, &asked(&[], Some(("Z", 5))), 10);
        assert_eq!(topics, [(String::from("a"), 0, vec![0])]);
    }

    #[test]
    fn a_cursor_before_the_first_partition_is_refused() {
        let (topics, next) = page(&image(&[("a", 1)]), &asked(&["a"], Some(("a", -1))), 10);
        assert_eq!(
            topics,
            [(String::from("a"), ErrorCode::InvalidRequest.code(), vec![])]
        );
        assert_eq!(next, None);
    }
}
