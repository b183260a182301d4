//! What must hold after every step; one rule a file.

mod consistent_read;
mod high_watermark;
mod leader_candidates;
mod log_matching;
mod recovery;

use metadata::ClusterImage;

use crate::broker::Broker;
use crate::checker::Checker;

pub(crate) use consistent_read::read;
pub(crate) use recovery::{lost, missing};

/// Polls all of them. One leader for each epoch is checked where a replica begins to lead.
pub(crate) fn poll(brokers: &mut [Broker], truth: &ClusterImage, checker: &mut Checker) {
    log_matching::poll(brokers, checker);
    high_watermark::poll(brokers, checker);
    leader_candidates::poll(brokers, truth, checker);
}
