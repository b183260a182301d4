//! DescribeCluster (key 60), versions 0–2: the brokers, with fenced ones on request. The controllers'
//! endpoints (endpoint type 2) are not reachable by Kafka clients and are refused, as a Kafka broker does.

use kafka_protocol::{
    messages::{
        ApiKey, BrokerId as WireBrokerId, DescribeClusterRequest, DescribeClusterResponse,
        describe_cluster_response::DescribeClusterBroker,
    },
    protocol::StrBytes,
};
use protocol::ErrorCode;

use crate::kafka::{Request, admin, api::Api, authorized_operations, cluster_view};

pub(crate) const API: Api = Api::new(ApiKey::DescribeCluster, 0, 2);

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) async fn handle(request: Request, message: DescribeClusterRequest) -> DescribeClusterResponse {
    let endpoint_type = if request.version >= 1 {
        message.endpoint_type
    } else {
        BROKERS
    };
    if endpoint_type != BROKERS {
        let (code, text) = if endpoint_type == CONTROLLERS {
            admin::refusal(
                ErrorCode::MismatchedEndpointType,
                "this is a broker: ask for endpoint type 1",
            )
        } else {
            admin::refusal(
                ErrorCode::UnsupportedEndpointType,
                format!("endpoint type {endpoint_type} is unknown"),
            )
        };
        return DescribeClusterResponse::default()
            .with_error_code(code)
            .with_error_message(text);
    }
    let image = request.broker.images.current();
    let with_fenced = request.version >= 2 && message.include_fenced_brokers;
    let brokers = image
        .brokers
        .values()
        .filter(|broker| with_fenced || !broker.fenced)
        .filter_map(|broker| {
            let node = cluster_view::address(broker, &request.listener)?;
            Some(
                DescribeClusterBroker::default()
                    .with_broker_id(WireBrokerId(node.id.get()))
                    .with_host(StrBytes::from_string(node.host))
                    .with_port(i32::from(node.port))
                    .with_rack(node.rack.map(StrBytes::from_string))
                    .with_is_fenced(request.version >= 2 && broker.fenced),
            )
        })
        .collect();
    let operations = authorized_operations::when(
        message.include_cluster_authorized_operations,
        authorized_operations::ALL_OF_CLUSTER,
    );
    let controller =
        cluster_view::stand_in_controller(&image, &request.listener, request.broker.config.node_id);
    DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(
            image
                .cluster_id
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
        ))
        .with_controller_id(WireBrokerId(controller.map_or(-1, protocol::BrokerId::get)))
        .with_brokers(brokers)
        .with_cluster_authorized_operations(operations)
}
