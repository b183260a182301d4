//! AcksOneTail: a record that its leader alone had acknowledged (`acks=1`) may be lost in a failover, and
//! only so: another leader came, and what is lost of an epoch is its tail.

use metadata::ClusterImage;

use crate::broker::Broker;
use crate::checker::Checker;

/// Compares what was acknowledged with the healed cluster.
pub(crate) fn tails(brokers: &[Broker], truth: &ClusterImage, checker: &mut Checker) {
    let mut broken = None;
    for (&tp, history) in &checker.histories {
        let log = brokers.iter().find_map(|broker| broker.disk.logs.get(&tp));
        let (Some(_), Some(log)) = (truth.partition(tp), log) else {
            continue;
        };
        let last_epoch = history.leaders.last_key_value().map(|(&epoch, _)| epoch);
        let mut lost_from = None;
        for (&(epoch, at), &value) in &history.by_leader {
            let there = log.records.get(at.0 as usize).map(|record| record.value);
            match (there == Some(value), lost_from) {
                (true, Some((lost_in, first))) if lost_in == epoch => {
                    broken = Some(format!("{tp} epoch {epoch}: offset {first} is lost, {at} is not"));
                }
                (true, _) => {}
                (false, _) if last_epoch == Some(epoch) => {
                    broken = Some(format!(
                        "{tp} offset {at} is lost and epoch {epoch} had no successor"
                    ));
                }
                (false, _) => lost_from = Some((epoch, at)),
            }
        }
    }
    if let Some(what) = broken {
        checker.fail("AcksOneTail", what);
    }
}
