//! EventuallyWriteIsAcceptedOrRejected: once faults end, no write waits for ever. A leader answers or
//! gives up everything it has taken; an idempotent producer gets through with everything it wants to
//! write.

use crate::broker::Broker;
use crate::producers::Producer;

/// Which write still waits, in a sentence; `None` where none does.
pub(crate) fn waiting(brokers: &[Broker], producers: &[Producer]) -> Option<String> {
    for broker in brokers {
        for (tp, replica) in broker.process.iter().flat_map(|process| &process.replicas) {
            if !replica.waiting.is_empty() {
                let waiting = replica.waiting.len();
                return Some(format!("{waiting} writes to {tp} wait at broker {}", broker.id));
            }
        }
    }
    let late = producers
        .iter()
        .find(|producer| !producer.unanswered.is_empty())?;
    let tp = late.tp;
    Some(format!("a producer waits at {tp} for {:?}", late.unanswered))
}
