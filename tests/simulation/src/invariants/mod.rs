//! What must hold, one rule a file; names are the literature's where it has one (the TLA+ models of KIP-101 to
//! KIP-966). Those below [`poll`] are looked at after every event, the others as they say.

mod accepted_or_rejected;
mod acks_one;
mod consistent_read;
mod high_watermark;
mod idempotence;
mod leader_candidates;
mod leader_completeness;
mod log_matching;
mod metadata_log;
mod min_isr_recovery;
mod recovery;
mod replication_quorum;

use crate::world::World;

pub(crate) use accepted_or_rejected::waiting;
pub(crate) use acks_one::tails;
pub(crate) use consistent_read::read;
pub(crate) use recovery::{lost, missing};

/// Polls all of them. One leader for each epoch is checked where a replica begins to lead.
pub(crate) fn poll(world: &mut World) {
    let World {
        brokers,
        actives,
        images,
        truth,
        context,
        ..
    } = world;
    let checker = &mut context.checker;
    log_matching::poll(brokers, checker);
    high_watermark::poll(brokers, checker);
    idempotence::poll(checker);
    leader_candidates::poll(brokers, truth, checker);
    leader_completeness::poll(brokers, truth, checker);
    metadata_log::poll(brokers, actives, images, checker);
    min_isr_recovery::poll(brokers, truth, checker);
    replication_quorum::poll(brokers, truth, checker);
}
