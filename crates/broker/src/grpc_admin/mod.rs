//! The public administration service (`proto/ottla/v1/admin.proto`), on the client port of every broker.
//!
//! Questions are answered from this broker's image; changes are forwarded to the active controller and
//! answered once this broker itself shows the result.

mod convert;
mod describe;
mod groups;
mod list_offsets;
mod peer;

use std::{collections::HashSet, time::Duration};

use metadata::{ConfigResource, configs};
use protocol::{
    BrokerId, ErrorCode, TopicName,
    grpc::v1::{
        AddPartitionsRequest, AddPartitionsResponse, AdminAlterConfigsRequest, AdminAlterConfigsResponse,
        AdminConfigScope, AdminCreateTopicsRequest, AdminCreateTopicsResponse, AdminDeleteGroupsRequest,
        AdminDeleteGroupsResponse, AdminDeleteTopicsRequest, AdminDeleteTopicsResponse,
        AdminElectLeadersRequest, AdminElectLeadersResponse, AdminElection, AdminListOffsetsRequest,
        AdminListOffsetsResponse, AdminUnregisterBrokerRequest, AdminUnregisterBrokerResponse, AlterConfig,
        AlterConfigsRequest, AlterConfigsResource, ConfigDescription, ConfigOp, ConfigResourceType,
        CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest,
        DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse, DescribeGroupRequest,
        DescribeGroupResponse, DescribeQuorumRequest, DescribeTopicsRequest, DescribeTopicsResponse,
        ElectLeadersRequest, KafkaError, ListBrokersRequest, ListBrokersResponse, ListGroupsRequest,
        ListGroupsResponse, ListTopicsRequest, ListTopicsResponse, NewPartitions, PartitionRef,
        ResetGroupOffsetsRequest, ResetGroupOffsetsResponse, ShutdownBrokerRequest, ShutdownBrokerResponse,
        TopicRef, UnregisterBrokerRequest, admin_server::Admin,
    },
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::{
    context::BrokerContext,
    controller_client::ControllerError,
    shutdown::{NodeShutdown, ShutdownError},
};

/// How long a change may take where the caller does not say.
const DEFAULT_TIMEOUT_MS: u32 = 30_000;
/// However patient the caller, no call takes longer.
const LONGEST_TIMEOUT_MS: u32 = 300_000;
/// A little more than the controller is given, so that its own "timed out" arrives.
const MARGIN: Duration = Duration::from_millis(500);
/// How long a question to the controller, or to another broker, may take.
const QUESTION: Duration = Duration::from_secs(5);

/// The service.
#[derive(Clone, Debug)]
pub struct AdminService {
    broker: BrokerContext,
    shutdown: NodeShutdown,
}

impl AdminService {
    /// Over a broker; `shutdown` ends brokers, this one and others.
    pub fn new(broker: BrokerContext, shutdown: NodeShutdown) -> Self {
        Self { broker, shutdown }
    }
}

/// The timeout that the controller is told, and when the call itself ends.
fn patience(asked: Option<u32>) -> (u32, Instant) {
    let timeout_ms = asked.unwrap_or(DEFAULT_TIMEOUT_MS).min(LONGEST_TIMEOUT_MS);
    (
        timeout_ms,
        Instant::now() + Duration::from_millis(timeout_ms.into()) + MARGIN,
    )
}

/// A call that brought no reply, as a gRPC status.
fn status(error: &ControllerError) -> Status {
    let sentence = error.to_string();
    match error {
        ControllerError::Unreachable(_) => Status::unavailable(sentence),
        ControllerError::OutcomeUnknown(_) | ControllerError::NotSeenYet => {
            Status::deadline_exceeded(sentence)
        }
        ControllerError::Refused { code, .. } => Status::failed_precondition(format!("{code}: {sentence}")),
        ControllerError::Malformed(_) => Status::internal(sentence),
    }
}

fn refused(code: ErrorCode, message: impl Into<String>) -> KafkaError {
    KafkaError {
        code: code.code().into(),
        message: message.into(),
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn describe_cluster(
        &self,
        _: Request<DescribeClusterRequest>,
    ) -> Result<Response<DescribeClusterResponse>, Status> {
        let quorum = self
            .broker
            .controller
            .describe_quorum(DescribeQuorumRequest {}, Instant::now() + QUESTION)
            .await
            .map_err(|error| status(&error))?;
        Ok(Response::new(describe::cluster(
            &self.broker.images.current(),
            quorum,
        )))
    }

    async fn admin_create_topics(
        &self,
        request: Request<AdminCreateTopicsRequest>,
    ) -> Result<Response<AdminCreateTopicsResponse>, Status> {
        let request = request.into_inner();
        let (timeout_ms, deadline) = patience(request.timeout_ms);
        let create = CreateTopicsRequest {
            topics: request.topics.into_iter().map(convert::new_topic).collect(),
            validate_only: request.validate_only,
            timeout_ms,
            auto_create: false,
        };
        let reply = self
            .broker
            .controller
            .create_topics(create, deadline)
            .await
            .map_err(|error| status(&error))?;
        let topics = reply.topics.into_iter().map(convert::created_topic).collect();
        Ok(Response::new(AdminCreateTopicsResponse { topics }))
    }

    async fn list_topics(
        &self,
        request: Request<ListTopicsRequest>,
    ) -> Result<Response<ListTopicsResponse>, Status> {
        let image = self.broker.images.current();
        Ok(Response::new(describe::topics(
            &image,
            request.into_inner().include_internal,
        )))
    }

    async fn describe_topics(
        &self,
        request: Request<DescribeTopicsRequest>,
    ) -> Result<Response<DescribeTopicsResponse>, Status> {
        let image = self.broker.images.current();
        let names = request.into_inner().names;
        let topics = if names.is_empty() {
            image
                .topics
                .values()
                .map(|topic| describe::topic(&image, topic))
                .collect()
        } else {
            // Once each: a description may be a megabyte, and a name is a few bytes.
            let mut seen = HashSet::new();
            names
                .into_iter()
                .filter(|name| seen.insert(name.clone()))
                .map(|name| describe::named_topic(&image, name))
                .collect()
        };
        Ok(Response::new(DescribeTopicsResponse { topics }))
    }

    async fn admin_delete_topics(
        &self,
        request: Request<AdminDeleteTopicsRequest>,
    ) -> Result<Response<AdminDeleteTopicsResponse>, Status> {
        let request = request.into_inner();
        let (timeout_ms, deadline) = patience(request.timeout_ms);
        let topics = request
            .names
            .into_iter()
            .map(|name| TopicRef {
                name,
                ..TopicRef::default()
            })
            .collect();
        let reply = self
            .broker
            .controller
            .delete_topics(DeleteTopicsRequest { topics, timeout_ms }, deadline)
            .await
            .map_err(|error| status(&error))?;
        let topics = reply.topics.into_iter().map(convert::deleted_topic).collect();
        Ok(Response::new(AdminDeleteTopicsResponse { topics }))
    }

    async fn add_partitions(
        &self,
        request: Request<AddPartitionsRequest>,
    ) -> Result<Response<AddPartitionsResponse>, Status> {
        let request = request.into_inner();
        let (timeout_ms, deadline) = patience(request.timeout_ms);
        let topics = vec![NewPartitions {
            name: request.topic,
            count: request.total_count,
            assignments: Vec::new(),
        }];
        let create = CreatePartitionsRequest {
            topics,
            validate_only: request.validate_only,
            timeout_ms,
        };
        let reply = self
            .broker
            .controller
            .create_partitions(create, deadline)
            .await
            .map_err(|error| status(&error))?;
        let error = reply.topics.into_iter().next().and_then(|topic| topic.error);
        Ok(Response::new(AddPartitionsResponse { error }))
    }

    async fn describe_configs(
        &self,
        request: Request<DescribeConfigsRequest>,
    ) -> Result<Response<DescribeConfigsResponse>, Status> {
        let request = request.into_inner();
        let image = self.broker.images.current();
        let (_, _, resource) = match config_resource(request.scope, &request.name) {
            Ok(resource) => resource,
            Err(error) => {
                return Ok(Response::new(DescribeConfigsResponse {
                    error: Some(error),
                    configs: Vec::new(),
                }));
            }
        };
        let me = self.broker.config.node_id;
        match &resource {
            ConfigResource::Topic(name) if image.topic(name.as_str()).is_none() => {
                let error = refused(
                    ErrorCode::UnknownTopicOrPartition,
                    format!("topic {name} does not exist"),
                );
                return Ok(Response::new(DescribeConfigsResponse {
                    error: Some(error),
                    configs: Vec::new(),
                }));
            }
            // Only a broker knows its own static values.
            ConfigResource::Broker(id) if *id != me => {
                let mut admin = self
                    .shutdown
                    .admin_of(&image, *id, QUESTION)
                    .await
                    .map_err(ShutdownError::into_status)?;
                return admin.describe_configs(request).await;
            }
            _ => {}
        }
        let configs = configs::describe(&image, &resource, &self.broker.config.node_defaults)
            .into_iter()
            .map(|config| ConfigDescription {
                name: config.name.to_owned(),
                value: config.value.unwrap_or_default(),
                source: convert::config_source(config.source).to_owned(),
                read_only: config.read_only,
                documentation: config.doc.to_owned(),
            })
            .collect();
        Ok(Response::new(DescribeConfigsResponse { error: None, configs }))
    }

    async fn admin_alter_configs(
        &self,
        request: Request<AdminAlterConfigsRequest>,
    ) -> Result<Response<AdminAlterConfigsResponse>, Status> {
        let request = request.into_inner();
        let (kind, name, _) = match config_resource(request.scope, &request.name) {
            Ok(resource) => resource,
            Err(error) => return Ok(Response::new(AdminAlterConfigsResponse { error: Some(error) })),
        };
        let set = request.set.into_iter().map(|(key, value)| AlterConfig {
            key,
            op: ConfigOp::Set as i32,
            value: Some(value),
        });
        let delete = request.delete.into_iter().map(|key| AlterConfig {
            key,
            op: ConfigOp::Delete as i32,
            value: None,
        });
        let resource = AlterConfigsResource {
            resource_type: kind as i32,
            resource_name: name,
            configs: set.chain(delete).collect(),
        };
        let alter = AlterConfigsRequest {
            resources: vec![resource],
            validate_only: request.validate_only,
            replace_all: false,
        };
        let (_, deadline) = patience(None);
        let reply = self
            .broker
            .controller
            .alter_configs(alter, deadline)
            .await
            .map_err(|error| status(&error))?;
        let error = reply
            .resources
            .into_iter()
            .next()
            .and_then(|resource| resource.error);
        Ok(Response::new(AdminAlterConfigsResponse { error }))
    }

    async fn admin_elect_leaders(
        &self,
        request: Request<AdminElectLeadersRequest>,
    ) -> Result<Response<AdminElectLeadersResponse>, Status> {
        let request = request.into_inner();
        let image = self.broker.images.current();
        let partitions: Vec<i32> = if request.topic.is_empty() {
            Vec::new()
        } else if request.partitions.is_empty() {
            let topic = image
                .topic(&request.topic)
                .ok_or_else(|| Status::not_found(format!("topic {} does not exist", request.topic)))?;
            topic.partitions.keys().map(|partition| partition.get()).collect()
        } else {
            request.partitions
        };
        let partitions = partitions
            .into_iter()
            .map(|partition| PartitionRef {
                name: request.topic.clone(),
                partition,
                ..PartitionRef::default()
            })
            .collect();
        let (_, deadline) = patience(None);
        let elect = ElectLeadersRequest {
            unclean: request.unclean,
            partitions,
        };
        let reply = self
            .broker
            .controller
            .elect_leaders(elect, deadline)
            .await
            .map_err(|error| status(&error))?;
        let elections = reply.partitions.into_iter().map(|result| {
            let partition = result.partition.unwrap_or_default();
            AdminElection {
                topic: partition.name,
                partition: partition.partition,
                error: result.error,
            }
        });
        Ok(Response::new(AdminElectLeadersResponse {
            elections: elections.collect(),
        }))
    }

    async fn list_brokers(
        &self,
        _: Request<ListBrokersRequest>,
    ) -> Result<Response<ListBrokersResponse>, Status> {
        let brokers = describe::brokers(&self.broker.images.current());
        Ok(Response::new(ListBrokersResponse { brokers }))
    }

    async fn shutdown_broker(
        &self,
        request: Request<ShutdownBrokerRequest>,
    ) -> Result<Response<ShutdownBrokerResponse>, Status> {
        let id = BrokerId(request.into_inner().broker_id);
        let image = self.broker.images.current();
        self.shutdown
            .end(&image, id)
            .await
            .map_err(ShutdownError::into_status)?;
        Ok(Response::new(ShutdownBrokerResponse {}))
    }

    async fn admin_unregister_broker(
        &self,
        request: Request<AdminUnregisterBrokerRequest>,
    ) -> Result<Response<AdminUnregisterBrokerResponse>, Status> {
        let unregister = UnregisterBrokerRequest {
            broker_id: request.into_inner().broker_id,
        };
        let (_, deadline) = patience(None);
        let error = match self
            .broker
            .controller
            .unregister_broker(unregister, deadline)
            .await
        {
            Ok(_) => None,
            Err(ControllerError::Refused { code, message }) => Some(refused(code, message)),
            Err(error) => return Err(status(&error)),
        };
        Ok(Response::new(AdminUnregisterBrokerResponse { error }))
    }

    async fn list_groups(
        &self,
        request: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsResponse>, Status> {
        let passed_on = peer::is_passed_on(&request);
        let groups = self.list_all_groups(request.into_inner(), passed_on).await?;
        Ok(Response::new(groups))
    }

    async fn describe_group(
        &self,
        request: Request<DescribeGroupRequest>,
    ) -> Result<Response<DescribeGroupResponse>, Status> {
        let passed_on = peer::is_passed_on(&request);
        let group = self.describe_one_group(request.into_inner(), passed_on).await;
        Ok(Response::new(group))
    }

    async fn admin_delete_groups(
        &self,
        request: Request<AdminDeleteGroupsRequest>,
    ) -> Result<Response<AdminDeleteGroupsResponse>, Status> {
        let passed_on = peer::is_passed_on(&request);
        let deleted = self.delete_groups(request.into_inner(), passed_on).await;
        Ok(Response::new(deleted))
    }

    async fn reset_group_offsets(
        &self,
        request: Request<ResetGroupOffsetsRequest>,
    ) -> Result<Response<ResetGroupOffsetsResponse>, Status> {
        let passed_on = peer::is_passed_on(&request);
        let reset = self.reset_offsets_of_group(request.into_inner(), passed_on).await;
        Ok(Response::new(reset))
    }

    async fn admin_list_offsets(
        &self,
        request: Request<AdminListOffsetsRequest>,
    ) -> Result<Response<AdminListOffsetsResponse>, Status> {
        let passed_on = peer::is_passed_on(&request);
        let answers = self.find_offsets(request.into_inner().queries, passed_on).await;
        Ok(Response::new(AdminListOffsetsResponse { answers }))
    }
}

/// Reads a scope and a name; the error is for the answer.
fn config_resource(
    scope: i32,
    name: &str,
) -> Result<(ConfigResourceType, String, ConfigResource), KafkaError> {
    let invalid = |message: String| refused(ErrorCode::InvalidRequest, message);
    match AdminConfigScope::try_from(scope) {
        Ok(AdminConfigScope::Topic) => TopicName::new(name)
            .map(|topic| {
                (
                    ConfigResourceType::Topic,
                    name.to_owned(),
                    ConfigResource::Topic(topic),
                )
            })
            .map_err(|error| refused(ErrorCode::InvalidTopicException, error.to_string())),
        Ok(AdminConfigScope::Broker) => name
            .parse()
            .map(|id| {
                (
                    ConfigResourceType::Broker,
                    name.to_owned(),
                    ConfigResource::Broker(BrokerId(id)),
                )
            })
            .map_err(|_| invalid(format!("{name:?} is not a broker id"))),
        Ok(AdminConfigScope::Cluster) if name.is_empty() => Ok((
            ConfigResourceType::Broker,
            String::new(),
            ConfigResource::ClusterDefault,
        )),
        Ok(AdminConfigScope::Cluster) => Err(invalid(format!(
            "the cluster-wide default has no name, found {name:?}"
        ))),
        Ok(AdminConfigScope::Group) if name.is_empty() => Err(invalid("a group's id is empty".to_owned())),
        Ok(AdminConfigScope::Group) => Ok((
            ConfigResourceType::Group,
            name.to_owned(),
            ConfigResource::Group(name.to_owned()),
        )),
        Ok(AdminConfigScope::Unspecified) | Err(_) => Err(invalid(format!(
            "configuration scope {scope} is unknown: 1 topic, 2 broker, 3 cluster, 4 group"
        ))),
    }
}
