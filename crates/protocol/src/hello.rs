//! The greeting that every internal conversation begins with, and whether a peer's greeting fits.

use crate::{
    BrokerId, ClusterId, DirectoryId, INTERNAL_PROTOCOL_VERSION, IncarnationId, grpc::v1::InternalHello,
};

/// Foreign text ends up in logs: no more than so many of its characters do.
const FOREIGN_TEXT: usize = 64;

/// Who this process is, as it tells its peers.
#[derive(Clone, Copy, Debug)]
pub struct LocalNode<'a> {
    /// Its cluster; a broker that has never met its quorum has none yet.
    pub cluster_id: Option<&'a ClusterId>,
    /// Its `node.id`.
    pub node_id: BrokerId,
    /// The directory that holds its identity.
    pub directory_id: DirectoryId,
    /// This run of the process.
    pub incarnation: IncarnationId,
}

/// What in a peer's greeting does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloMismatch {
    /// Another version of the internal conversation.
    #[error(
        "node {peer} speaks version {found} of the internal protocol; this node speaks {INTERNAL_PROTOCOL_VERSION}"
    )]
    ProtocolVersion {
        /// The peer.
        peer: BrokerId,
        /// Its version.
        found: u32,
    },
    /// A node of another cluster.
    #[error("node {peer} belongs to cluster {found}; this node belongs to cluster {own}")]
    Cluster {
        /// The peer.
        peer: BrokerId,
        /// Its cluster, as it names it: shortened and escaped.
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

/// `FAILED_PRECONDITION` with the sentence that names the difference (`common.proto`).
impl From<HelloMismatch> for tonic::Status {
    fn from(mismatch: HelloMismatch) -> Self {
        Self::failed_precondition(mismatch.to_string())
    }
}

impl LocalNode<'_> {
    /// The greeting for a peer; `expected` is whom this node believes to reach.
    pub fn hello(&self, expected: Option<BrokerId>) -> InternalHello {
        InternalHello {
            cluster_id: self
                .cluster_id
                .map_or_else(String::new, |id| id.as_str().to_owned()),
            node_id: self.node_id.get(),
            directory_id: self.directory_id.to_vec().into(),
            incarnation_id: self.incarnation.to_vec().into(),
            protocol_version: INTERNAL_PROTOCOL_VERSION,
            expected_node_id: expected.map_or(-1, BrokerId::get),
        }
    }

    /// Checks a peer's greeting. A peer, or a node, that does not know its cluster yet fits any.
    pub fn check(&self, hello: &InternalHello) -> Result<(), HelloMismatch> {
        let peer = BrokerId(hello.node_id);
        if hello.protocol_version != INTERNAL_PROTOCOL_VERSION {
            return Err(HelloMismatch::ProtocolVersion {
                peer,
                found: hello.protocol_version,
            });
        }
        if let Some(own) = self.cluster_id
            && !hello.cluster_id.is_empty()
            && hello.cluster_id != own.as_str()
        {
            return Err(HelloMismatch::Cluster {
                peer,
                found: hello
                    .cluster_id
                    .chars()
                    .take(FOREIGN_TEXT)
                    .flat_map(char::escape_default)
                    .collect(),
                own: own.clone(),
            });
        }
        if hello.expected_node_id >= 0 && hello.expected_node_id != self.node_id.get() {
            return Err(HelloMismatch::WrongNode {
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

    fn node(id: i32, cluster: Option<&ClusterId>) -> LocalNode<'_> {
        LocalNode {
            cluster_id: cluster,
            node_id: BrokerId(id),
            directory_id: DirectoryId::random(),
            incarnation: IncarnationId::random(),
        }
    }

    fn cluster(id: &str) -> ClusterId {
        ClusterId::new(id).expect("a cluster id")
    }

    #[test]
    fn a_peer_of_the_cluster_fits() {
        let ours = cluster("ours");
        let me = node(1, Some(&ours));
        let peer = node(2, Some(&ours));
        assert_eq!(me.check(&peer.hello(Some(BrokerId(1)))), Ok(()));
        assert_eq!(
            me.check(&peer.hello(None)),
            Ok(()),
            "it does not know whom it reaches"
        );
    }

    #[test]
    fn who_has_no_cluster_yet_fits_any() {
        let ours = cluster("ours");
        assert_eq!(node(1, Some(&ours)).check(&node(2, None).hello(None)), Ok(()));
        assert_eq!(node(1, None).check(&node(2, Some(&ours)).hello(None)), Ok(()));
    }

    #[test]
    fn a_stranger_is_refused_by_name() {
        let (ours, theirs) = (cluster("ours"), cluster("theirs"));
        let refused = node(1, Some(&ours)).check(&node(2, Some(&theirs)).hello(None));
        assert_eq!(
            refused.expect_err("another cluster").to_string(),
            "node 2 belongs to cluster theirs; this node belongs to cluster ours"
        );
    }

    #[test]
    fn a_peer_that_looks_for_another_node_is_told_who_this_is() {
        let ours = cluster("ours");
        let refused = node(1, Some(&ours)).check(&node(2, Some(&ours)).hello(Some(BrokerId(7))));
        assert_eq!(
            refused.expect_err("another node").to_string(),
            "node 2 expected to reach node 7; this is node 1"
        );
    }

    #[test]
    fn another_version_is_refused_before_anything_else() {
        let (ours, theirs) = (cluster("ours"), cluster("theirs"));
        let mut hello = node(2, Some(&theirs)).hello(None);
        hello.protocol_version += 1;
        let refused = node(1, Some(&ours)).check(&hello);
        assert_eq!(
            refused,
            Err(HelloMismatch::ProtocolVersion {
                peer: BrokerId(2),
                found: INTERNAL_PROTOCOL_VERSION + 1,
            })
        );
    }

    #[test]
    fn foreign_text_is_shortened_and_escaped() {
        let ours = cluster("ours");
        let mut hello = node(2, None).hello(None);
        hello.cluster_id = format!("\u{1b}[2J{}", "x".repeat(10_000));
        let Err(HelloMismatch::Cluster { found, .. }) = node(1, Some(&ours)).check(&hello) else {
            panic!("another cluster");
        };
        assert!(found.starts_with("\\u{1b}[2J") && found.len() < 100, "{found}");
    }
}
