//! Who this controller is, as every internal conversation begins; and whether a peer's greeting fits.

use protocol::grpc::v1::InternalHello;
use protocol::hello::{HelloMismatch, LocalNode};
use protocol::{BrokerId, ClusterId, DirectoryId, IncarnationId};

/// The identity of one run of one controller.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    /// The cluster it was formatted for.
    pub cluster_id: ClusterId,
    /// Its `node.id`.
    pub node_id: BrokerId,
    /// The directory that holds its vote and its log.
    pub directory_id: DirectoryId,
    /// This run of the process.
    pub incarnation: IncarnationId,
}

/// A peer that this controller must not talk to, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloRefused {
    /// The message came without a greeting.
    #[error("the message carries no hello: an internal conversation begins with one")]
    Missing,
    /// The greeting does not fit.
    #[error(transparent)]
    Mismatch(#[from] HelloMismatch),
    /// A node that claims this controller's own id.
    #[error(
        "node {0} presents this controller's own node.id; node.id is unique over brokers and controllers"
    )]
    OwnId(BrokerId),
    /// One of the ids is not sixteen bytes.
    #[error("node {0} presents an id that is not 16 bytes long")]
    MalformedId(BrokerId),
}

impl From<HelloRefused> for tonic::Status {
    fn from(refused: HelloRefused) -> Self {
        Self::failed_precondition(refused.to_string())
    }
}

/// A peer whose greeting fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its `node.id`.
    pub node_id: BrokerId,
    /// Its directory.
    pub directory_id: DirectoryId,
    /// Its run.
    pub incarnation: IncarnationId,
}

impl NodeIdentity {
    /// The greeting for a peer; `expected` is whom this controller believes to reach.
    pub fn hello(&self, expected: Option<BrokerId>) -> InternalHello {
        self.local().hello(expected)
    }

    /// Checks a greeting that arrived. A broker that has never met its quorum names no cluster yet.
    pub fn check(&self, hello: Option<&InternalHello>) -> Result<Peer, HelloRefused> {
        let hello = hello.ok_or(HelloRefused::Missing)?;
        self.local().check(hello)?;
        let peer = BrokerId(hello.node_id);
        Ok(Peer {
            node_id: peer,
            directory_id: DirectoryId::from_slice(&hello.directory_id)
                .ok_or(HelloRefused::MalformedId(peer))?,
            incarnation: IncarnationId::from_slice(&hello.incarnation_id)
                .ok_or(HelloRefused::MalformedId(peer))?,
        })
    }

    /// Like [`NodeIdentity::check`], for peers that are other nodes for certain.
    pub fn check_other(&self, hello: Option<&InternalHello>) -> Result<Peer, HelloRefused> {
        let peer = self.check(hello)?;
        if peer.node_id == self.node_id && peer.incarnation != self.incarnation {
            return Err(HelloRefused::OwnId(peer.node_id));
        }
        Ok(peer)
    }

    fn local(&self) -> LocalNode<'_> {
        LocalNode {
            cluster_id: Some(&self.cluster_id),
            node_id: self.node_id,
            directory_id: self.directory_id,
            incarnation: self.incarnation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: i32, cluster: &str) -> NodeIdentity {
        NodeIdentity {
            cluster_id: ClusterId::new(cluster).unwrap(),
            node_id: BrokerId(id),
            directory_id: DirectoryId::random(),
            incarnation: IncarnationId::random(),
        }
    }

    #[test]
    fn strangers_are_refused_by_name() {
        let me = node(101, "ours");
        let friend = node(102, "ours");
        assert!(me.check_other(Some(&friend.hello(Some(BrokerId(101))))).is_ok());
        assert_eq!(me.check(None), Err(HelloRefused::Missing));
        assert!(matches!(
            me.check(Some(&node(102, "theirs").hello(None))),
            Err(HelloRefused::Mismatch(HelloMismatch::Cluster { .. }))
        ));
        assert!(matches!(
            me.check_other(Some(&node(101, "ours").hello(None))),
            Err(HelloRefused::OwnId(_))
        ));
        let mut short = friend.hello(None);
        short.directory_id = vec![1, 2, 3].into();
        assert!(matches!(
            me.check(Some(&short)),
            Err(HelloRefused::MalformedId(_))
        ));
    }

    #[test]
    fn a_broker_without_a_cluster_yet_fits() {
        let mut hello = node(1, "any").hello(None);
        hello.cluster_id.clear();
        assert!(node(101, "ours").check(Some(&hello)).is_ok());
    }
}
