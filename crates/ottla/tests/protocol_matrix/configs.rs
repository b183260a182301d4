//! DescribeConfigs, AlterConfigs and IncrementalAlterConfigs.

use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, alter_configs_request,
    describe_configs_request::DescribeConfigsResource, describe_configs_response::DescribeConfigsResult,
    incremental_alter_configs_request as incremental,
};
use protocol::ErrorCode;

use crate::{
    ground::topic,
    support::{Client, DevNode, text},
};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// `config_source` of a topic's own value, and of Kafka's default.
const SET_FOR_TOPIC: i8 = 1;
const DEFAULT: i8 = 5;

pub(crate) fn describe_configs(node: &DevNode, version: i16) {
    let topic = topic(node, &format!("describe-configs-{version}"));
    let mut client = node.client();
    let all = describe(&mut client, version, TOPIC, &topic.name, None);
    assert_eq!(all.error_code, 0, "{:?}", all.error_message);
    assert_eq!(
        (all.resource_type, all.resource_name.as_str()),
        (TOPIC, topic.name.as_str())
    );
    assert!(all.configs.len() > 15, "{} keys", all.configs.len());
    let limit = all
        .configs
        .iter()
        .find(|config| config.name.as_str() == "max.message.bytes")
        .unwrap();
    assert_eq!(
        (limit.value.as_deref(), limit.config_source),
        (Some("1048588"), DEFAULT)
    );
    assert!(!limit.is_sensitive && !limit.read_only);
    assert!(!limit.synonyms.is_empty(), "synonyms were asked for");
    if version >= 3 {
        const INT: i8 = 3;
        assert_eq!(limit.config_type, INT);
        assert!(limit.documentation.as_ref().is_some_and(|doc| !doc.is_empty()));
    }
    let keys = ["retention.ms", "no.such.key"];
    let some = describe(&mut client, version, TOPIC, &topic.name, Some(&keys));
    assert_eq!(some.configs.len(), 1);

    let broker = describe(&mut client, version, BROKER, "1", None);
    assert_eq!(broker.error_code, 0, "{:?}", broker.error_message);
    assert!(!broker.configs.is_empty());
    let default = describe(&mut client, version, BROKER, "", None);
    assert_eq!(default.error_code, 0, "{:?}", default.error_message);
    let unknown = describe(&mut client, version, TOPIC, "not-there", None);
    assert_eq!(unknown.error_code, ErrorCode::UnknownTopicOrPartition.code());
    let nonsense = describe(&mut client, version, 99, "x", None);
    assert_eq!(nonsense.error_code, ErrorCode::InvalidRequest.code());
}

fn describe(
    client: &mut Client,
    version: i16,
    resource_type: i8,
    name: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let request = DescribeConfigsRequest::default()
        .with_include_synonyms(true)
        .with_include_documentation(version >= 3)
        .with_resources(vec![
            DescribeConfigsResource::default()
                .with_resource_type(resource_type)
                .with_resource_name(text(name))
                .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect())),
        ]);
    client.call(version, &request).results.remove(0)
}

/// A topic's value and where it comes from.
fn value(client: &mut Client, topic: &str, key: &str) -> (String, i8) {
    let config = describe(client, 4, TOPIC, topic, Some(&[key])).configs.remove(0);
    (config.value.unwrap().to_string(), config.config_source)
}

pub(crate) fn alter_configs(node: &DevNode, version: i16) {
    let topic = topic(node, &format!("alter-configs-{version}"));
    let mut client = node.client();
    let alter = |client: &mut Client, key: &str, value: Option<&str>, validate_only| {
        let resource = alter_configs_request::AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(&topic.name))
            .with_configs(vec![
                alter_configs_request::AlterableConfig::default()
                    .with_name(text(key))
                    .with_value(value.map(text)),
            ]);
        let request = AlterConfigsRequest::default()
            .with_resources(vec![resource])
            .with_validate_only(validate_only);
        let answer = client.call(version, &request).responses.remove(0);
        assert_eq!(
            (answer.resource_type, answer.resource_name.as_str()),
            (TOPIC, topic.name.as_str())
        );
        answer.error_code
    };
    assert_eq!(alter(&mut client, "retention.ms", Some("5000"), true), 0);
    assert_eq!(
        value(&mut client, &topic.name, "retention.ms").1,
        DEFAULT,
        "only validated"
    );
    assert_eq!(alter(&mut client, "retention.ms", Some("5000"), false), 0);
    assert_eq!(
        value(&mut client, &topic.name, "retention.ms"),
        ("5000".to_owned(), SET_FOR_TOPIC)
    );
    // The old call replaces all: what is not named goes back to its default.
    assert_eq!(alter(&mut client, "segment.bytes", Some("2000000"), false), 0);
    assert_eq!(value(&mut client, &topic.name, "retention.ms").1, DEFAULT);
    assert_eq!(value(&mut client, &topic.name, "segment.bytes").1, SET_FOR_TOPIC);
    for (key, bad) in [("segment.bytes", "many"), ("no.such.key", "1")] {
        assert_eq!(
            alter(&mut client, key, Some(bad), false),
            ErrorCode::InvalidConfig.code(),
            "{key}={bad}"
        );
    }
}

pub(crate) fn incremental_alter_configs(node: &DevNode, version: i16) {
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    const APPEND: i8 = 2;
    const SUBTRACT: i8 = 3;
    let topic = topic(node, &format!("incremental-alter-configs-{version}"));
    let mut client = node.client();
    let alter = |client: &mut Client, key: &str, operation: i8, value: Option<&str>| {
        let resource = incremental::AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(&topic.name))
            .with_configs(vec![
                incremental::AlterableConfig::default()
                    .with_name(text(key))
                    .with_config_operation(operation)
                    .with_value(value.map(text)),
            ]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = client.call(version, &request).responses.remove(0);
        assert_eq!(
            (answer.resource_type, answer.resource_name.as_str()),
            (TOPIC, topic.name.as_str())
        );
        answer.error_code
    };
    assert_eq!(alter(&mut client, "retention.ms", SET, Some("5000")), 0);
    assert_eq!(alter(&mut client, "segment.bytes", SET, Some("2000000")), 0);
    assert_eq!(
        value(&mut client, &topic.name, "retention.ms"),
        ("5000".to_owned(), SET_FOR_TOPIC),
        "the other call changed nothing else"
    );
    assert_eq!(alter(&mut client, "retention.ms", DELETE, None), 0);
    assert_eq!(value(&mut client, &topic.name, "retention.ms").1, DEFAULT);
    assert_eq!(alter(&mut client, "cleanup.policy", APPEND, Some("compact")), 0);
    assert_eq!(
        value(&mut client, &topic.name, "cleanup.policy").0,
        "delete,compact"
    );
    assert_eq!(alter(&mut client, "cleanup.policy", SUBTRACT, Some("delete")), 0);
    assert_eq!(value(&mut client, &topic.name, "cleanup.policy").0, "compact");
    for (key, operation, bad) in [
        ("retention.ms", SET, Some("soon")),
        ("no.such.key", SET, Some("1")),
        ("retention.ms", APPEND, Some("1")),
    ] {
        assert_eq!(
            alter(&mut client, key, operation, bad),
            ErrorCode::InvalidConfig.code(),
            "{key} {bad:?}"
        );
    }
    for (operation, bad) in [(SET, None), (99, Some("1"))] {
        assert_eq!(
            alter(&mut client, "retention.ms", operation, bad),
            ErrorCode::InvalidRequest.code()
        );
    }
}
