//! DescribeConfigs (key 32), versions 1–4: what holds for a topic, a broker or a group, and where it
//! comes from.
//!
//! Topics, groups and the cluster-wide default are described by any broker from its image and its own static
//! configuration; a broker's own static values are known to that broker alone, as in Kafka.

use ::metadata::{ConfigResource, configs};
use kafka_protocol::{
    messages::{
        ApiKey, DescribeConfigsRequest, DescribeConfigsResponse,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{
            DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
        },
    },
    protocol::StrBytes,
};
use protocol::ErrorCode;

use crate::kafka::{Request, admin, api::Api, config_resource};

pub(crate) const API: Api = Api::new(ApiKey::DescribeConfigs, 1, 4);

pub(crate) async fn handle(request: Request, message: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let (synonyms, documentation) = (
        message.include_synonyms,
        message.include_documentation && request.version >= 3,
    );
    let results = message.resources.into_iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match describe(&request, &resource, synonyms, documentation) {
            Ok(configs) => result.with_configs(configs),
            Err((code, message)) => {
                let (code, text) = admin::refusal(code, message);
                result.with_error_code(code).with_error_message(text)
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(
    request: &Request,
    wanted: &DescribeConfigsResource,
    synonyms: bool,
    documentation: bool,
) -> Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, String)> {
    let resource = config_resource::parse(wanted.resource_type, &wanted.resource_name)?;
    let image = request.broker.images.current();
    match &resource {
        ConfigResource::Topic(name) if image.topic(name.as_str()).is_none() => {
            return Err((
                ErrorCode::UnknownTopicOrPartition,
                format!("topic {name} does not exist"),
            ));
        }
        ConfigResource::Broker(id) if *id != request.broker.config.node_id => {
            return Err((
                ErrorCode::InvalidRequest,
                format!(
                    "this is broker {}: ask broker {id} for its own configuration",
                    request.broker.config.node_id
                ),
            ));
        }
        _ => {}
    }
    // No keys and an empty list of keys both mean all of them.
    let keys = wanted.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
    Ok(
        configs::describe(&image, &resource, &request.broker.config.node_defaults)
            .into_iter()
            .filter(|config| keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == config.name)))
            .map(|config| {
                let mut result = DescribeConfigsResourceResult::default()
                    .with_name(StrBytes::from_static_str(config.name))
                    .with_value(config.value.clone().map(StrBytes::from_string))
                    .with_read_only(config.read_only)
                    .with_config_source(config.source as i8)
                    .with_is_sensitive(config.sensitive);
                if synonyms {
                    let synonyms = config.synonyms.iter().map(|synonym| {
                        DescribeConfigsSynonym::default()
                            .with_name(StrBytes::from_static_str(synonym.name))
                            .with_value(Some(StrBytes::from_string(synonym.value.clone())))
                            .with_source(synonym.source as i8)
                    });
                    result = result.with_synonyms(synonyms.collect());
                }
                if request.version >= 3 {
                    result = result.with_config_type(config.kind as i8);
                }
                result.with_documentation(documentation.then(|| StrBytes::from_static_str(config.doc)))
            })
            .collect(),
    )
}
