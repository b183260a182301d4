//! Does to the cluster what the schedule says.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    cluster::{Cluster, Node},
    recorder::Recorder,
    schedule::{Fault, Victim},
    topic::TopicView,
};

/// A wiped disk takes one of the copies for good: the others must be whole before.
const WHOLE: Duration = Duration::from_secs(180);

/// Strikes, and undoes what is to be undone. An error is the cluster's misbehaviour, told as it is.
pub(crate) fn inject(
    cluster: &mut Cluster,
    fault: &Fault,
    view: &TopicView,
    replicas: u32,
    recorder: &Recorder,
) -> anyhow::Result<()> {
    match fault {
        Fault::Kill { victims, down_ms } => {
            let victims = resolve(victims.iter().copied(), view, recorder);
            for &victim in &victims {
                node(cluster, victim).kill()?;
            }
            wait(*down_ms);
            for &victim in &victims {
                node(cluster, victim).start()?;
            }
        }
        Fault::Pause { victims, for_ms } => {
            let victims = resolve(victims.iter().copied(), view, recorder);
            for &victim in &victims {
                node(cluster, victim).pause()?;
            }
            wait(*for_ms);
            for &victim in &victims {
                node(cluster, victim).resume()?;
            }
        }
        Fault::PauseAndKill {
            paused,
            killed,
            for_ms,
        } => {
            let paused = resolve([*paused], view, recorder);
            let killed = resolve([*killed], view, recorder);
            for &victim in &paused {
                node(cluster, victim).pause()?;
            }
            wait(for_ms / 3);
            for &victim in killed.difference(&paused) {
                node(cluster, victim).kill()?;
            }
            wait(for_ms / 3);
            for &victim in killed.difference(&paused) {
                node(cluster, victim).start()?;
            }
            wait(for_ms - for_ms / 3 * 2);
            for &victim in &paused {
                node(cluster, victim).resume()?;
            }
        }
        Fault::Wipe { broker, down_ms } => {
            view.wait_in_sync(replicas, WHOLE)?;
            for victim in resolve([*broker], view, recorder) {
                node(cluster, victim).kill()?;
                node(cluster, victim).wipe()?;
                wait(*down_ms);
                node(cluster, victim).start()?;
            }
        }
        Fault::RollingRestart { victims } => {
            for &victim in victims {
                // One after the other: the next goes when the last is back.
                node(cluster, victim).stop()?;
                node(cluster, victim).start()?;
                cluster.wait_ready()?;
            }
        }
    }
    Ok(())
}

/// Says which nodes are meant. A partition without a leader has nobody to strike.
fn resolve(
    victims: impl IntoIterator<Item = Victim>,
    view: &TopicView,
    recorder: &Recorder,
) -> BTreeSet<Victim> {
    victims
        .into_iter()
        .filter_map(|victim| match victim {
            Victim::LeaderOf(partition) => {
                let leader = view.leader(partition).map(Victim::Broker);
                let name = leader.map_or_else(|| "nobody".to_owned(), |leader| leader.to_string());
                recorder.say(&format!("  the leader of partition {partition} is {name}"));
                leader
            }
            named => Some(named),
        })
        .collect()
}

fn node(cluster: &mut Cluster, victim: Victim) -> &mut Node {
    match victim {
        Victim::Broker(number) => cluster.broker(number),
        Victim::Controller(number) => cluster.controller(number),
        Victim::LeaderOf(_) => unreachable!("resolve() leaves named nodes only"),
    }
}

/// The schedule's own time, not a wait for something.
fn wait(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}
