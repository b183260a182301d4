//! ConsistentRead: whatever a leader or a follower serves, zombies too, is the committed history.

use protocol::{Offset, TopicPartition};

use crate::broker::Broker;
use crate::context::Context;

/// A consumer reads at this broker.
pub(crate) fn read(broker: &Broker, tp: TopicPartition, from: usize, context: &mut Context) {
    let replica = broker
        .process
        .as_ref()
        .and_then(|process| process.replicas.get(&tp));
    let (Some(replica), Some(log)) = (replica, broker.disk.logs.get(&tp)) else {
        return;
    };
    let Ok(upper) = replica
        .state
        .check_read(Offset(from as i64), None, true, log.view(false))
    else {
        return;
    };
    context.checker.counts.reads += 1;
    let range = from..(upper.0 as usize).max(from);
    let served = log.records.get(range.clone()).map(<[_]>::to_vec);
    let committed = context
        .checker
        .history(tp)
        .committed
        .get(range)
        .map(<[_]>::to_vec);
    if served != committed {
        let what = format!(
            "{tp} from {from} to {upper} at broker {}: {served:?}, {committed:?}",
            broker.id
        );
        context.checker.fail("ConsistentRead", what);
    }
}
