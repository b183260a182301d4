//! ReplicationQuorumSuperset: a leader that is not deposed and may commit counts, in its maximal ISR,
//! everybody whom the controller may elect. Else it could commit what a candidate lacks.

use metadata::ClusterImage;

use crate::broker::Broker;
use crate::checker::Checker;

pub(super) fn poll(brokers: &[Broker], truth: &ClusterImage, checker: &mut Checker) {
    for broker in brokers {
        let Some(process) = &broker.process else { continue };
        for (&tp, replica) in &process.replicas {
            let (Ok(leader), Some(known)) = (replica.state.leader(), truth.partition(tp)) else {
                continue;
            };
            if leader.epoch() != known.leader_epoch || leader.is_under_min_isr() {
                continue;
            }
            let counted: Vec<_> = leader.isr().maximal().collect();
            let candidates = known.isr.iter().chain(&known.elr);
            if let Some(left_out) = candidates.copied().find(|id| !counted.contains(id)) {
                let what = format!(
                    "{tp}: leader {} counts {counted:?}, not {left_out}: {known:?}",
                    broker.id
                );
                checker.fail("ReplicationQuorumSuperset", what);
            }
        }
    }
}
