//! Who decides, as this controller tells others.

use protocol::grpc::v1::ControllerAddress;
use protocol::{BrokerId, LeaderEpoch};

use crate::raft::Role;

/// Who decides, as far as this controller knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActiveView {
    /// The active controller; `None` while nobody is known.
    pub active: Option<ActiveController>,
    /// Whether it is this one.
    pub is_self: bool,
    /// The controller epoch (Raft term) that this controller knows of.
    pub epoch: LeaderEpoch,
    /// Raft has stopped for good on this controller, for this reason.
    pub failed: Option<String>,
}

/// A controller that is, or was last known to be, active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveController {
    /// Its `node.id`.
    pub node_id: BrokerId,
    /// `host:port` of its internal port.
    pub address: String,
    /// The term in which it is active.
    pub epoch: LeaderEpoch,
}

impl ActiveController {
    pub(crate) fn to_wire(&self) -> ControllerAddress {
        ControllerAddress {
            node_id: self.node_id.get(),
            address: self.address.clone(),
            epoch: self.epoch.get(),
        }
    }
}

/// The leader as the hint for others, where it is not this controller: a leader may still be claiming,
/// but it is the one to ask.
pub(super) fn known_active(role: &Role) -> Option<ActiveController> {
    if role.leading {
        return None;
    }
    role.leader.as_ref().map(|(id, address)| ActiveController {
        node_id: *id,
        address: address.clone(),
        epoch: role.epoch,
    })
}
