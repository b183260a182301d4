//! AlterConfigs (key 33), versions 0–2: replaces the whole configuration of topics, brokers and groups:
//! keys that are not named lose what was set. Deprecated in Kafka in favour of the incremental call.

use kafka_protocol::{
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, ApiKey,
        alter_configs_response::AlterConfigsResourceResponse,
    },
    protocol::StrBytes,
};
use protocol::{
    ErrorCode,
    grpc::v1::{AlterConfig, ConfigOp},
};

use crate::kafka::{
    Request,
    api::Api,
    config_resource::{self, Alteration},
};

pub(crate) const API: Api = Api::new(ApiKey::AlterConfigs, 0, 2);

pub(crate) async fn handle(request: Request, message: AlterConfigsRequest) -> AlterConfigsResponse {
    let alterations = message.resources.into_iter().map(|resource| {
        let configs = resource.configs.into_iter().map(|config| {
            if config.value.is_none() {
                return Err((ErrorCode::InvalidRequest, format!("{} has no value", config.name)));
            }
            Ok(AlterConfig {
                key: config.name.to_string(),
                op: ConfigOp::Set as i32,
                value: config.value.map(|value| value.to_string()),
            })
        });
        Alteration {
            resource_type: resource.resource_type,
            name: resource.resource_name,
            configs: configs.collect(),
        }
    });
    let results = config_resource::alter(&request, alterations.collect(), message.validate_only, true).await;
    let responses = results.into_iter().map(|result| {
        AlterConfigsResourceResponse::default()
            .with_resource_type(result.resource_type)
            .with_resource_name(StrBytes::from_string(result.name))
            .with_error_code(result.code)
            .with_error_message(result.message)
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}
