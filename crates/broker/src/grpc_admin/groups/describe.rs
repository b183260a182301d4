//! One group as its coordinator sees it, of whichever protocol, with the ends of the partitions that it reads.

use std::collections::BTreeMap;

use kafka_protocol::messages::GroupId as WireGroupId;
use kafka_protocol::messages::describe_groups_response::DescribedGroupMember;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::protocol::StrBytes;
use protocol::ErrorCode;
use protocol::grpc::v1::admin_client::AdminClient;
use protocol::grpc::v1::offset_query::At;
use protocol::grpc::v1::{
    DescribeGroupRequest, DescribeGroupResponse, GroupMember, GroupOffset, LatestOffset, OffsetQuery,
};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::call::{Effect, GroupAnswer as _, GroupCall};
use super::{assignment, consumer, kafka_error};
use crate::coordinator::group::{GroupReply, GroupRequest};
use crate::grpc_admin::{AdminService, peer};

/// Describes a group.
pub(super) struct Describe(pub(super) DescribeGroupRequest);

impl GroupCall for Describe {
    type Answer = DescribeGroupResponse;

    fn group(&self) -> &str {
        &self.0.group_id
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    async fn here(&self, service: &AdminService) -> DescribeGroupResponse {
        service.describe_group_here(self.group()).await
    }

    async fn there(&self, mut coordinator: AdminClient<Channel>) -> Result<DescribeGroupResponse, Status> {
        let reply = coordinator.describe_group(peer::passed_on(self.0.clone())).await;
        reply.map(Response::into_inner)
    }
}

/// What is committed for one partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Committed {
    pub(super) offset: i64,
    pub(super) metadata: String,
}

/// Committed offsets by topic and partition.
pub(super) type CommittedOffsets = BTreeMap<(String, i32), Committed>;

impl AdminService {
    async fn describe_group_here(&self, group: &str) -> DescribeGroupResponse {
        let failed = |code: i16| {
            let error = kafka_error(code, group).unwrap_or_default();
            DescribeGroupResponse::failed(error)
        };
        let mut described = match self.describe_by_protocol(group).await {
            Ok(described) => described,
            Err(code) => return failed(code),
        };
        let committed = match self.committed_offsets(group).await {
            Ok(committed) => committed,
            Err(code) => return failed(code),
        };
        described.offsets = self.with_ends(committed, &described.members).await;
        group.clone_into(&mut described.group_id);
        described.coordinator = self.broker.config.node_id.get();
        described
    }

    /// The group and its members; the error is Kafka's code. A group answers to its own protocol alone.
    pub(super) async fn describe_by_protocol(&self, group: &str) -> Result<DescribeGroupResponse, i16> {
        let id = WireGroupId(StrBytes::from_string(group.to_owned()));
        match self
            .ask_group(1, GroupRequest::DescribeConsumer(id.clone()))
            .await
        {
            GroupReply::DescribeConsumer(described) if described.error_code == 0 => {
                return Ok(consumer::described(described));
            }
            GroupReply::DescribeConsumer(described)
                if described.error_code == ErrorCode::GroupIdNotFound.code() => {}
            GroupReply::DescribeConsumer(described) => return Err(described.error_code),
            _ => return Err(ErrorCode::UnknownServerError.code()),
        }
        let described = match self.ask_group(6, GroupRequest::Describe(id)).await {
            GroupReply::Describe(described) if described.error_code == 0 => described,
            GroupReply::Describe(described) => return Err(described.error_code),
            _ => return Err(ErrorCode::UnknownServerError.code()),
        };
        let consumers = &*described.protocol_type == assignment::CONSUMER;
        let members = described.members.iter().map(|found| member(found, consumers));
        Ok(DescribeGroupResponse {
            state: described.group_state.to_string(),
            protocol_type: described.protocol_type.to_string(),
            protocol: described.protocol_data.to_string(),
            members: members.collect(),
            group_type: consumer::CLASSIC.to_owned(),
            ..DescribeGroupResponse::default()
        })
    }

    /// Everything that the group has committed; the error is Kafka's code.
    pub(super) async fn committed_offsets(&self, group: &str) -> Result<CommittedOffsets, i16> {
        let fetch = OffsetFetchRequestGroup::default()
            .with_group_id(WireGroupId(StrBytes::from_string(group.to_owned())))
            .with_member_epoch(-1)
            .with_topics(None);
        let request = GroupRequest::FetchOffsets {
            group: fetch,
            require_stable: false,
        };
        let fetched = match self.ask_group(9, request).await {
            GroupReply::FetchOffsets(fetched) if fetched.error_code == 0 => fetched,
            GroupReply::FetchOffsets(fetched) => return Err(fetched.error_code),
            _ => return Err(ErrorCode::UnknownServerError.code()),
        };
        let mut committed = CommittedOffsets::new();
        for topic in fetched.topics {
            for partition in topic
                .partitions
                .into_iter()
                .filter(|partition| partition.committed_offset >= 0)
            {
                let metadata = partition.metadata.map(|text| text.to_string());
                committed.insert(
                    (topic.name.to_string(), partition.partition_index),
                    Committed {
                        offset: partition.committed_offset,
                        metadata: metadata.unwrap_or_default(),
                    },
                );
            }
        }
        Ok(committed)
    }

    /// What is committed or assigned, each with the end of its partition and what lies between.
    async fn with_ends(&self, committed: CommittedOffsets, members: &[GroupMember]) -> Vec<GroupOffset> {
        let mut offsets: BTreeMap<(String, i32), GroupOffset> = committed
            .into_iter()
            .map(|((topic, partition), committed)| {
                let offset = GroupOffset {
                    topic: topic.clone(),
                    partition,
                    committed_offset: Some(committed.offset),
                    metadata: committed.metadata,
                    ..GroupOffset::default()
                };
                ((topic, partition), offset)
            })
            .collect();
        for member in members {
            for topic in &member.assignment {
                for &partition in &topic.partitions {
                    let offset = offsets
                        .entry((topic.topic.clone(), partition))
                        .or_insert_with(|| GroupOffset {
                            topic: topic.topic.clone(),
                            partition,
                            ..GroupOffset::default()
                        });
                    offset.member_id.clone_from(&member.member_id);
                }
            }
        }
        let mut offsets: Vec<GroupOffset> = offsets.into_values().collect();
        let queries = offsets
            .iter()
            .map(|offset| OffsetQuery {
                topic: offset.topic.clone(),
                partition: offset.partition,
                at: Some(At::Latest(LatestOffset {})),
            })
            .collect();
        let ends = self.find_offsets(queries, false).await;
        for (offset, end) in offsets.iter_mut().zip(ends) {
            offset.end_offset = end.offset;
            offset.lag = end
                .offset
                .zip(offset.committed_offset)
                .map(|(end, committed)| (end - committed).max(0));
        }
        offsets
    }
}

fn member(found: &DescribedGroupMember, consumer: bool) -> GroupMember {
    let assignment = if consumer {
        assignment::read(&found.member_assignment).unwrap_or_default()
    } else {
        Vec::new()
    };
    GroupMember {
        member_id: found.member_id.to_string(),
        instance_id: found
            .group_instance_id
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        client_id: found.client_id.to_string(),
        client_host: found.client_host.to_string(),
        assignment,
        ..GroupMember::default()
    }
}
