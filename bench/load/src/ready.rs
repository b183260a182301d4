//! From the start of a cluster's processes to its first acknowledgement, as a client sees it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use serde_json::{Value, json};

use crate::{client, clock, topics};

const TOPIC: &str = "ottla-bench-ready";
const LOOK: Duration = Duration::from_millis(5);

/// Waits for a metadata answer that names all brokers, then for a record that every replica has acknowledged.
/// Milliseconds are counted from `since` (seconds since 1970).
pub(crate) fn wait(bootstrap: &str, brokers: usize, since: f64, patience: Duration) -> anyhow::Result<Value> {
    let deadline = Instant::now() + patience;
    let config = client::eager(bootstrap);

    let consumer: BaseConsumer = config.create()?;
    until(deadline, "all brokers in a metadata answer", || {
        let metadata = consumer.fetch_metadata(None, Duration::from_millis(200))?;
        let known = metadata.brokers().len();
        anyhow::ensure!(known == brokers, "{known} of {brokers} brokers");
        Ok(())
    })?;
    let all_brokers = (clock::now() - since) * 1000.0;

    let durable = ["min.insync.replicas=2".to_owned(), "flush.messages=1".to_owned()];
    until(deadline, "a topic on all brokers", || {
        topics::try_create(&config, TOPIC, 1, brokers as i32, &durable)
    })?;
    let producer: BaseProducer = client::eager(bootstrap).set("acks", "all").create()?;
    producer
        .send(BaseRecord::<(), _>::to(TOPIC).payload("first"))
        .map_err(|(error, _)| error)?;
    producer
        .flush(deadline.saturating_duration_since(Instant::now()))
        .context("no acknowledgement")?;
    let first_acknowledgement = (clock::now() - since) * 1000.0;
    topics::delete(bootstrap, TOPIC)?;
    Ok(json!({"all_brokers_ms": all_brokers, "first_acknowledgement_ms": first_acknowledgement}))
}

/// Tries until it works; the last failure tells why it never did.
fn until(
    deadline: Instant,
    what: &str,
    mut attempt: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => bail!("waited in vain for {what}: {error:#}"),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}
