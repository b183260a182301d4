//! The client's settings that all commands share.

use std::time::Duration;

use rdkafka::ClientConfig;

/// One question to a broker.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

pub(crate) fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "ottla-bench")
        .set("socket.nagle.disable", "true");
    config
}

/// A client that looks for brokers eagerly: with librdkafka's own pauses, a cluster that starts in
/// milliseconds would be measured by them.
pub(crate) fn eager(bootstrap: &str) -> ClientConfig {
    let mut config = config(bootstrap);
    config
        .set("reconnect.backoff.ms", "2")
        .set("reconnect.backoff.max.ms", "20")
        .set("retry.backoff.ms", "5")
        .set("retry.backoff.max.ms", "20")
        .set("topic.metadata.refresh.fast.interval.ms", "10");
    config
}
