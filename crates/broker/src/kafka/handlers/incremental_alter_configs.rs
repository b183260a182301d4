//! IncrementalAlterConfigs (key 44), versions 0–1: sets, deletes, appends to and subtracts from
//! configuration keys of topics, brokers and groups (KIP-339). Forwarded to the active controller.

use kafka_protocol::{
    messages::{
        ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        incremental_alter_configs_response::AlterConfigsResourceResponse,
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

pub(crate) const API: Api = Api::new(ApiKey::IncrementalAlterConfigs, 0, 1);

pub(crate) async fn handle(
    request: Request,
    message: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let alterations = message.resources.into_iter().map(|resource| {
        let configs = resource
            .configs
            .into_iter()
            .map(|config| {
                let op = match config.config_operation {
                    0 => ConfigOp::Set,
                    1 => ConfigOp::Delete,
                    2 => ConfigOp::Append,
                    3 => ConfigOp::Subtract,
                    other => {
                        return Err((
                            ErrorCode::InvalidRequest,
                            format!("configuration operation {other} is unknown"),
                        ));
                    }
                };
                if config.value.is_none() && op != ConfigOp::Delete {
                    return Err((ErrorCode::InvalidRequest, format!("{} has no value", config.name)));
                }
                Ok(AlterConfig {
                    key: config.name.to_string(),
                    op: op as i32,
                    value: config.value.map(|value| value.to_string()),
                })
            })
            .collect();
        Alteration {
            resource_type: resource.resource_type,
            name: resource.resource_name,
            configs,
        }
    });
    let results = config_resource::alter(&request, alterations.collect(), message.validate_only, false).await;
    let responses = results.into_iter().map(|result| {
        AlterConfigsResourceResponse::default()
            .with_resource_type(result.resource_type)
            .with_resource_name(StrBytes::from_string(result.name))
            .with_error_code(result.code)
            .with_error_message(result.message)
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}
