//! Configuration resources as Kafka numbers them, and changes to them by way of the controller.

use std::collections::BTreeMap;

use kafka_protocol::protocol::StrBytes;
use metadata::ConfigResource;
use protocol::{
    BrokerId, ErrorCode, TopicName,
    grpc::v1::{AlterConfig, AlterConfigsRequest, AlterConfigsResource, ConfigResourceType},
};

use super::{Request, admin};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;

/// Reads Kafka's (type, name) pair; an empty broker name is the cluster-wide default.
pub(crate) fn parse(resource_type: i8, name: &str) -> Result<ConfigResource, (ErrorCode, String)> {
    match (resource_type, name) {
        (TOPIC, name) => TopicName::new(name)
            .map(ConfigResource::Topic)
            .map_err(|error| (ErrorCode::InvalidTopicException, error.to_string())),
        (BROKER, "") => Ok(ConfigResource::ClusterDefault),
        (BROKER, id) => id
            .parse()
            .map(|id| ConfigResource::Broker(BrokerId(id)))
            .map_err(|_| (ErrorCode::InvalidRequest, format!("{id:?} is not a broker id"))),
        (GROUP, "") => Err((
            ErrorCode::InvalidRequest,
            "the resource names no group".to_owned(),
        )),
        (GROUP, id) => Ok(ConfigResource::Group(id.to_owned())),
        (other, _) => Err((
            ErrorCode::InvalidRequest,
            format!(
                "configuration resource type {other} is not served: 2 is a topic, 4 a broker, 32 a group"
            ),
        )),
    }
}

/// What a request wants of one resource; an item that is wrong in itself refuses the whole resource.
#[derive(Debug)]
pub(crate) struct Alteration {
    pub(crate) resource_type: i8,
    pub(crate) name: StrBytes,
    pub(crate) configs: Result<Vec<AlterConfig>, (ErrorCode, String)>,
}

/// What became of one resource.
#[derive(Debug)]
pub(crate) struct Altered {
    pub(crate) resource_type: i8,
    pub(crate) name: String,
    pub(crate) code: i16,
    pub(crate) message: Option<StrBytes>,
}

/// Sends the alterations that make sense to the controller. Results are in the request's order.
pub(crate) async fn alter(
    request: &Request,
    alterations: Vec<Alteration>,
    validate_only: bool,
    replace_all: bool,
) -> Vec<Altered> {
    let mut resources = Vec::new();
    let mut named: BTreeMap<(i8, String), usize> = BTreeMap::new();
    for alteration in &alterations {
        let key = (alteration.resource_type, alteration.name.to_string());
        *named.entry(key).or_default() += 1;
    }
    let mut results: Vec<Altered> = alterations
        .into_iter()
        .map(|alteration| {
            let name = alteration.name.to_string();
            let wanted = if named[&(alteration.resource_type, name.clone())] > 1 {
                Err((
                    ErrorCode::InvalidRequest,
                    format!("{name} is named more than once"),
                ))
            } else if alteration.resource_type == TOPIC && name.is_empty() {
                // Only brokers have a default that stands for all of them.
                Err((
                    ErrorCode::InvalidRequest,
                    "the resource names no topic".to_owned(),
                ))
            } else {
                parse(alteration.resource_type, &name).and(alteration.configs)
            };
            let (code, message) = match wanted {
                Ok(configs) => {
                    let kind = match alteration.resource_type {
                        TOPIC => ConfigResourceType::Topic,
                        GROUP => ConfigResourceType::Group,
                        _ => ConfigResourceType::Broker,
                    };
                    resources.push(AlterConfigsResource {
                        resource_type: kind as i32,
                        resource_name: name.clone(),
                        configs,
                    });
                    // Until the controller has said otherwise.
                    admin::refusal(
                        ErrorCode::RequestTimedOut,
                        "the controller did not answer for this resource",
                    )
                }
                Err((code, message)) => admin::refusal(code, message),
            };
            Altered {
                resource_type: alteration.resource_type,
                name,
                code,
                message,
            }
        })
        .collect();
    if resources.is_empty() {
        return results;
    }
    let (_, deadline) = admin::deadline(30_000);
    let alter = AlterConfigsRequest {
        resources: resources.clone(),
        validate_only,
        replace_all,
    };
    let answered: Vec<(i32, String, (i16, Option<StrBytes>))> =
        match request.broker.controller.alter_configs(alter, deadline).await {
            Ok(reply) => reply
                .resources
                .into_iter()
                .map(|result| {
                    (
                        result.resource_type,
                        result.resource_name,
                        admin::outcome(result.error),
                    )
                })
                .collect(),
            Err(error) => resources
                .into_iter()
                .map(|resource| {
                    (
                        resource.resource_type,
                        resource.resource_name,
                        admin::failure(&error),
                    )
                })
                .collect(),
        };
    for (kind, name, (code, message)) in answered {
        let same = |result: &&mut Altered| i32::from(result.resource_type) == kind && result.name == name;
        if let Some(result) = results.iter_mut().find(same) {
            result.code = code;
            result.message = message;
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_read_as_kafka_numbers_them() {
        assert_eq!(parse(BROKER, ""), Ok(ConfigResource::ClusterDefault));
        assert_eq!(parse(BROKER, "3"), Ok(ConfigResource::Broker(BrokerId(3))));
        assert!(matches!(parse(TOPIC, "t"), Ok(ConfigResource::Topic(_))));
        assert_eq!(parse(GROUP, "g"), Ok(ConfigResource::Group("g".to_owned())));
        for (kind, name) in [(GROUP, ""), (TOPIC, "a/b"), (BROKER, "x"), (8, "logger"), (0, "")] {
            assert!(parse(kind, name).is_err(), "{kind} {name}");
        }
    }
}
