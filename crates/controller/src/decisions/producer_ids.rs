//! Blocks of producer ids (KIP-98): each id is given once in the cluster's life.

use metadata::records;
use protocol::{
    BrokerEpoch, BrokerId, ProducerId,
    grpc::v1::{AllocateProducerIdsRequest, ProducerIdsRecord, metadata_record::Record},
};

use super::{BrokerError, Outcome, View};

/// How many ids a broker is given at a time.
pub const PRODUCER_ID_BLOCK: i32 = 1000;

/// Ids that now belong to one broker incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The first id.
    pub first: ProducerId,
    /// How many follow, the first included; 0 where all ids of the cluster are used up.
    pub count: i32,
}

/// Gives the sender the next block.
pub fn allocate_producer_ids(
    view: View<'_>,
    request: &AllocateProducerIdsRequest,
) -> Result<Outcome<ProducerIdBlock>, BrokerError> {
    view.incarnation(BrokerId(request.broker_id), BrokerEpoch(request.broker_epoch))?;
    let first = view.image.next_producer_id;
    let Some(next_producer_id) = first.get().checked_add(PRODUCER_ID_BLOCK.into()) else {
        return Ok(Outcome::unchanged(ProducerIdBlock { first, count: 0 }));
    };
    Ok(Outcome {
        records: vec![records::record(Record::ProducerIds(ProducerIdsRecord {
            broker_id: request.broker_id,
            broker_epoch: request.broker_epoch,
            next_producer_id,
        }))],
        reply: ProducerIdBlock {
            first,
            count: PRODUCER_ID_BLOCK,
        },
    })
}
