//! The control: a loss made on purpose. With acks=1 both followers are stopped, the leader acknowledges
//! alone, is killed, and the followers go on without what it had. A checker that does not notice is broken.
//! With `acks=all` the same must lose nothing, unless the binary was built without the ISR check.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;

use crate::{
    cluster::{Cluster, ClusterConfig},
    producer::{self, Habits, Target},
    reader,
    recorder::Recorder,
    topic::TopicView,
};

/// More than the leader can have sent into the followers' windows and sockets while they stand still.
const RECORDS: u32 = 100;
const RECORD_BYTES: usize = 900_000;
const HEALED: Duration = Duration::from_secs(180);

/// Makes the history.
pub(crate) fn run(binary: &Path, dir: &Path, acks: &str, recorder: &Arc<Recorder>) -> anyhow::Result<()> {
    const BROKERS: u32 = 3;
    let mut cluster = Cluster::start(&ClusterConfig {
        binary: binary.to_owned(),
        dir: dir.to_owned(),
        brokers: BROKERS,
        controllers: 3,
        // Nobody is to notice that the followers stand still.
        settings: vec![
            "broker.session.timeout.ms=120000".to_owned(),
            "replica.lag.time.max.ms=120000".to_owned(),
        ],
    })?;
    let target = Target {
        bootstrap: cluster.bootstrap().to_owned(),
        topic: cluster.create_topic("chaos", 1, &[])?,
        partitions: 1,
    };
    let view = TopicView::new(&[&target])?;
    let mut habits = Habits::idempotent(Duration::from_secs(20));
    habits.properties.insert("acks", acks.to_owned());
    habits.properties.insert("enable.idempotence", "false".to_owned());
    producer::burst(&target, &habits, recorder, 10, 100)?;
    view.wait_in_sync(BROKERS, HEALED)?;

    let leader = view.leader(0).context("partition 0 has no leader")?;
    let followers: Vec<u32> = (1..=BROKERS).filter(|&broker| broker != leader).collect();
    recorder.say(&format!(
        "pause followers {followers:?}, write with acks={acks}, kill -9 leader {leader}, continue the followers"
    ));
    for &follower in &followers {
        cluster.broker(follower).pause()?;
    }
    let before = recorder.acknowledged();
    let written = producer::burst(&target, &habits, recorder, RECORDS, RECORD_BYTES);
    let acknowledged = recorder.acknowledged() - before;
    recorder.say(&format!(
        "{acknowledged} of {RECORDS} records were acknowledged meanwhile"
    ));
    cluster.broker(leader).kill()?;
    for &follower in &followers {
        cluster.broker(follower).resume()?;
    }
    // With acks=all nothing is acknowledged, and that is right: the sends of this burst are unknown.
    if acks == "1" {
        written?;
    }
    cluster.start_all()?;
    cluster.wait_ready()?;
    view.wait_in_sync(BROKERS, HEALED)?;
    // Written behind the hole, so that readers pass it.
    producer::burst(&target, &habits, recorder, RECORDS, 100)?;
    reader::read_everything::<reader::OfValues>(&target, recorder, HEALED)?;
    Ok(())
}
