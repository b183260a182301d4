//! Who this process is, as every internal conversation begins; and whether a peer's greeting fits.

use std::sync::OnceLock;

use protocol::grpc::v1::InternalHello;
use protocol::{BrokerId, ClusterId, DirectoryId, INTERNAL_PROTOCOL_VERSION, IncarnationId};

/// The identity of one run of one node.
#[derive(Debug)]
pub struct NodeIdentity {
    node_id: BrokerId,
    directory_id: DirectoryId,
    incarnation: IncarnationId,
    cluster_id: OnceLock<ClusterId>,
}

/// A peer that this node must not talk to, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloRefused {
    /// Another version of the internal conversation.
    #[error("node {peer} speaks version {found} of the internal protocol; this node speaks {supported}")]
    ProtocolVersion {
        /// The peer.
        peer: BrokerId,
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// A node of another cluster.
    #[error("node {peer} belongs to cluster {found}; this node belongs to cluster {own}")]
    Cluster {
        /// The peer.
        peer: BrokerId,
        /// Its cluster, as it names it.
        found: String,
        /// Ours.
        own: ClusterId,
    },
    /// The peer wanted to reach somebody else.
    #[error("node {peer} expected to reach node {expected}; this is node {own}")]
    WrongNode {
        /// The peer.
        peer: BrokerId,
        /// Whom it expected here.
        expected: BrokerId,
        /// Who we are.
        own: BrokerId,
    },
}

impl From<HelloRefused> for tonic::Status {
    fn from(refused: HelloRefused) -> Self {
        Self::failed_precondition(refused.to_string())
    }
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
        InternalHello {
            cluster_id: self
                .cluster_id()
                .map_or_else(String::new, |id| id.as_str().to_owned()),
            node_id: self.node_id.get(),
            directory_id: self.directory_id.to_vec().into(),
            incarnation_id: self.incarnation.to_vec().into(),
            protocol_version: INTERNAL_PROTOCOL_VERSION,
            expected_node_id: expected.map_or(-1, BrokerId::get),
        }
    }

    /// Checks a peer's greeting. A peer, or a node, that does not know its cluster yet fits any.
    pub fn check(&self, hello: &InternalHello) -> Result<(), HelloRefused> {
        let peer = BrokerId(hello.node_id);
        if hello.protocol_version != INTERNAL_PROTOCOL_VERSION {
            return Err(HelloRefused::ProtocolVersion {
                peer,
                found: hello.protocol_version,
                supported: INTERNAL_PROTOCOL_VERSION,
            });
        }
        if let Some(own) = self.cluster_id()
            && !hello.cluster_id.is_empty()
            && hello.cluster_id != own.as_str()
        {
            return Err(HelloRefused::Cluster {
                peer,
                // Foreign text ends up in logs: bounded and escaped.
                found: hello
                    .cluster_id
                    .chars()
                    .take(64)
                    .flat_map(char::escape_default)
                    .collect(),
                own: own.clone(),
            });
        }
        if hello.expected_node_id >= 0 && hello.expected_node_id != self.node_id.get() {
            return Err(HelloRefused::WrongNode {
                peer,
                expected: BrokerId(hello.expected_node_id),
                own: self.node_id,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: i32, cluster: Option<&str>) -> NodeIdentity {
        NodeIdentity::new(
            BrokerId(id),
            DirectoryId::random(),
            IncarnationId::random(),
            cluster.map(|id| ClusterId::new(id).unwrap()),
        )
    }

    #[test]
    fn strangers_are_refused_by_name() {
        let me = node(1, Some("ours"));
        assert_eq!(me.check(&node(2, Some("ours")).hello(Some(BrokerId(1)))), Ok(()));
        assert_eq!(me.check(&node(2, None).hello(None)), Ok(()));
        let refused = me.check(&node(2, Some("theirs")).hello(None)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "node 2 belongs to cluster theirs; this node belongs to cluster ours"
        );
        assert!(matches!(
            me.check(&node(2, Some("ours")).hello(Some(BrokerId(7)))),
            Err(HelloRefused::WrongNode { .. })
        ));
        let mut hello = node(2, Some("ours")).hello(None);
        hello.protocol_version += 1;
        assert!(matches!(
            me.check(&hello),
            Err(HelloRefused::ProtocolVersion { .. })
        ));
    }

    #[test]
    fn a_cluster_is_joined_once() {
        let me = node(1, None);
        assert!(me.join_cluster(ClusterId::new("a").unwrap()));
        assert!(me.join_cluster(ClusterId::new("a").unwrap()));
        assert!(!me.join_cluster(ClusterId::new("b").unwrap()));
        assert_eq!(me.hello(None).cluster_id, "a");
    }
}
