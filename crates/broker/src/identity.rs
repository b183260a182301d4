//! Who this process is, as every internal conversation begins; and whether a peer's greeting fits.

use std::sync::OnceLock;

use protocol::grpc::v1::InternalHello;
use protocol::hello::{HelloMismatch, LocalNode};
use protocol::{BrokerId, ClusterId, DirectoryId, IncarnationId};

/// The identity of one run of one node.
#[derive(Debug)]
pub struct NodeIdentity {
    node_id: BrokerId,
    directory_id: DirectoryId,
    incarnation: IncarnationId,
    cluster_id: OnceLock<ClusterId>,
}

impl NodeIdentity {
    /// The identity of this run. A broker that has never met its quorum has no cluster yet.
    pub fn new(
        node_id: BrokerId,
        directory_id: DirectoryId,
        incarnation: IncarnationId,
        cluster_id: Option<ClusterId>,
    ) -> Self {
        Self {
            node_id,
            directory_id,
            incarnation,
            cluster_id: cluster_id.map_or_else(OnceLock::new, OnceLock::from),
        }
    }

    /// The node.
    pub fn node_id(&self) -> BrokerId {
        self.node_id
    }

    /// The run.
    pub fn incarnation(&self) -> IncarnationId {
        self.incarnation
    }

    /// The cluster, once it is known.
    pub fn cluster_id(&self) -> Option<&ClusterId> {
        self.cluster_id.get()
    }

    /// Takes on the quorum's cluster id. False where this node belongs to another cluster.
    pub fn join_cluster(&self, cluster_id: ClusterId) -> bool {
        *self.cluster_id.get_or_init(|| cluster_id.clone()) == cluster_id
    }

    /// The greeting for a peer; `expected` is whom this node believes to reach.
    pub fn hello(&self, expected: Option<BrokerId>) -> InternalHello {
        self.local().hello(expected)
    }

    /// Checks a peer's greeting. A peer, or a node, that does not know its cluster yet fits any.
    pub fn check(&self, hello: &InternalHello) -> Result<(), HelloMismatch> {
        self.local().check(hello)
    }

    fn local(&self) -> LocalNode<'_> {
        LocalNode {
            cluster_id: self.cluster_id(),
            node_id: self.node_id,
            directory_id: self.directory_id,
            incarnation: self.incarnation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: i32) -> NodeIdentity {
        NodeIdentity::new(BrokerId(id), DirectoryId::random(), IncarnationId::random(), None)
    }

    #[test]
    fn a_cluster_is_joined_once_and_strangers_are_refused_from_then_on() {
        let (me, stranger) = (node(1), node(2));
        assert!(stranger.join_cluster(ClusterId::new("b").unwrap()));
        assert_eq!(me.check(&stranger.hello(None)), Ok(()));
        assert!(me.join_cluster(ClusterId::new("a").unwrap()));
        assert!(me.join_cluster(ClusterId::new("a").unwrap()));
        assert!(!me.join_cluster(ClusterId::new("b").unwrap()));
        assert_eq!(me.hello(None).cluster_id, "a");
        assert!(matches!(
            me.check(&stranger.hello(None)),
            Err(HelloMismatch::Cluster { .. })
        ));
    }
}
