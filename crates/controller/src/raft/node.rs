//! One controller's Raft, started over its directory: proposing, following who leads, reading what is
//! committed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use metadata::ClusterImage;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use openraft::raft::ClientWriteResult;
use openraft::{Config, Instant as _, ServerState, SnapshotPolicy};
use prost::Message;
use protocol::grpc::v1::MetadataEntry;
use protocol::grpc::v1::raft_server::RaftServer;
use protocol::{BrokerId, LeaderEpoch, Offset};
use tokio::sync::watch;

use super::committed_log::CommittedLog;
use super::log_store::{LogStore, LogStoreError};
use super::network::{MAX_MESSAGE, Network};
use super::service::RaftService;
use super::snapshot::SnapshotDirectory;
use super::state_machine::{StateMachine, position};
use super::types::{Command, LogId, Raft, Responder, TypeConfig, Voter};
use crate::identity::NodeIdentity;

/// Name of the metadata log's directory within the log directory.
const LOG_NAME: &str = "__cluster_metadata-0";

/// Raft's timings and bounds.
#[derive(Clone, Debug)]
pub struct RaftSettings {
    /// Between two signs of life of a leader. Default 150 ms.
    pub heartbeat: Duration,
    /// A follower that hears nothing campaigns no earlier than this. Default 500 ms.
    pub election_min: Duration,
    /// … and no later than this. Default 1000 ms.
    pub election_max: Duration,
    /// Entries from one snapshot to the next. Default 5000.
    pub snapshot_every: u64,
    /// Entries that stay in the log although a snapshot contains them, for followers and brokers that
    /// lag a little. Default 1000.
    pub keep_entries: u64,
}

impl Default for RaftSettings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_secs(1),
            snapshot_every: 5000,
            keep_entries: 1000,
        }
    }
}

/// Why a controller's Raft could not be started.
#[derive(Debug, thiserror::Error)]
pub enum RaftStartError {
    /// The timings contradict each other.
    #[error("Raft timings: {0}")]
    Settings(#[from] openraft::ConfigError),
    /// The directory cannot be used.
    #[error("{0}")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What the log was cut to begins after what the snapshot contains.
    #[error(
        "{directory} has lost entries of the metadata log: {what}; remove this controller from the \
         quorum and add it again with an empty directory",
        directory = directory.display()
    )]
    Lost {
        /// The directory.
        directory: PathBuf,
        /// What is missing.
        what: String,
    },
    /// This controller is not one of the voters.
    #[error("controller {0} is not in controller.quorum.voters")]
    NotAVoter(BrokerId),
    /// Raft did not start.
    #[error("Raft: {0}")]
    Raft(String),
}

impl From<LogStoreError> for RaftStartError {
    fn from(error: LogStoreError) -> Self {
        Self::Storage(Box::new(error))
    }
}

/// Where an entry lies in the metadata log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogPosition {
    pub(crate) offset: Offset,
    pub(crate) epoch: LeaderEpoch,
}

/// This controller's part in the quorum, as it knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Role {
    /// The Raft term.
    pub(crate) epoch: LeaderEpoch,
    /// Whether this controller leads in that term.
    pub(crate) leading: bool,
    /// Who leads, where it is known, and its address.
    pub(crate) leader: Option<(BrokerId, String)>,
    /// False where a leader has not heard from a majority for longer than an election takes: another
    /// one may lead by now.
    pub(crate) quorum_answers: bool,
    /// Raft has stopped for good, on a failed disk or an entry that cannot be applied.
    pub(crate) failed: Option<String>,
}

/// How a proposal ended without being applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProposalError {
    /// It never reached the log.
    NotLeader,
    /// Leadership was lost while it was in flight: it may be committed, or not.
    Unknown,
}

/// A proposal in flight: resolves when its entry is applied here.
pub(crate) struct Proposal {
    result: Option<openraft::alias::OneshotReceiverOf<TypeConfig, ClientWriteResult<TypeConfig>>>,
}

impl Future for Proposal {
    type Output = Result<LogPosition, ProposalError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(result) = &mut self.result else {
            return Poll::Ready(Err(ProposalError::NotLeader));
        };
        Pin::new(result).poll(cx).map(|result| match result {
            Ok(Ok(written)) => match position(written.log_id) {
                Ok((offset, epoch)) => Ok(LogPosition { offset, epoch }),
                Err(_) => Err(ProposalError::Unknown),
            },
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Err(ProposalError::NotLeader),
            Ok(Err(_)) | Err(_) => Err(ProposalError::Unknown),
        })
    }
}

/// One controller's Raft.
#[derive(Clone)]
pub(crate) struct RaftNode {
    raft: Raft,
    store: LogStore,
    images: watch::Receiver<Arc<ClusterImage>>,
    service: RaftService,
    quorum_timeout: Duration,
    own: u64,
}

impl RaftNode {
    /// Starts Raft over `log_dir`, among `voters`. A quorum that never was is founded: every voter may
    /// do that, because all found the same one.
    pub(crate) async fn start(
        identity: Arc<NodeIdentity>,
        log_dir: &Path,
        voters: &[(BrokerId, String)],
        settings: &RaftSettings,
    ) -> Result<Self, RaftStartError> {
        let own = identity.node_id.get() as u64;
        if !voters.iter().any(|(id, _)| *id == identity.node_id) {
            return Err(RaftStartError::NotAVoter(identity.node_id));
        }
        let config = config(settings)?;
        let directory = log_dir.join(LOG_NAME);
        let (store, machine) = tokio::task::spawn_blocking({
            let directory = directory.clone();
            move || open(&directory)
        })
        .await
        .map_err(|error| RaftStartError::Raft(error.to_string()))??;
        let images = machine.watch();
        let network = Network::new(Arc::clone(&identity));
        let raft = Raft::new(own, Arc::new(config), network, store.clone(), machine)
            .await
            .map_err(|error| RaftStartError::Raft(error.to_string()))?;
        let service = RaftService::new(identity, raft.clone(), SnapshotDirectory::new(directory));
        let node = Self {
            raft,
            store,
            images,
            service,
            quorum_timeout: settings.election_max * 2,
            own,
        };
        node.found(voters).await?;
        Ok(node)
    }

    async fn found(&self, voters: &[(BrokerId, String)]) -> Result<(), RaftStartError> {
        let members: BTreeMap<u64, Voter> = voters
            .iter()
            .map(|(id, address)| {
                let voter = Voter {
                    address: address.clone(),
                    ..Voter::default()
                };
                (id.get() as u64, voter)
            })
            .collect();
        match self.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                let membership = self.raft.metrics().borrow_watched().membership_config.clone();
                let voters: BTreeSet<u64> = membership.membership().voter_ids().collect();
                if voters == BTreeSet::from([self.own]) {
                    // Nobody else could lead: there is nothing to wait for.
                    let elected = self.raft.trigger().elect(false).await;
                    elected.map_err(|error| RaftStartError::Raft(error.to_string()))?;
                }
                Ok(())
            }
            Err(error) => Err(RaftStartError::Raft(error.to_string())),
        }
    }

    /// Proposes an entry, if this controller leads in exactly this term. Proposals reach the log in the
    /// order of these calls.
    pub(crate) async fn propose(&self, epoch: LeaderEpoch, entry: &MetadataEntry) -> Proposal {
        let command = Command {
            timestamp_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(-1, |since| since.as_millis() as i64),
            entry: Bytes::from(entry.encode_to_vec()),
        };
        let term = epoch.get() as u64;
        let (responder, result) = Responder::complete_only();
        let leader = openraft::alias::CommittedLeaderIdOf::<TypeConfig>::new(term);
        let sent = self
            .raft
            .write(command)
            .with_leader(leader)
            .responder(responder)
            .await;
        Proposal {
            result: sent.is_ok().then_some(result),
        }
    }

    /// The committed image, after each change.
    pub(crate) fn images(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.images.clone()
    }

    /// This controller's part in the quorum, now.
    pub(crate) fn role(&self) -> Role {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let leading = metrics.state == ServerState::Leader;
        let leader = metrics.current_leader.map(|id| {
            let node = metrics.membership_config.membership().get_node(&id);
            let address = node.map(|node| node.address.clone()).unwrap_or_default();
            (BrokerId(id as i32), address)
        });
        let alone = metrics.membership_config.membership().voter_ids().count() <= 1;
        let quorum_answers = alone
            || metrics
                .last_quorum_acked
                .as_ref()
                .is_some_and(|acked| acked.elapsed() < self.quorum_timeout);
        Role {
            epoch: LeaderEpoch(i32::try_from(metrics.current_term).unwrap_or(i32::MAX)),
            leading,
            leader,
            quorum_answers,
            failed: metrics.running_state.err().map(|error| error.to_string()),
        }
    }

    /// Resolves at the next change of anything that [`RaftNode::role`] tells.
    pub(crate) fn role_changes(&self) -> RoleChanges {
        RoleChanges {
            metrics: self.raft.metrics(),
        }
    }

    /// How each member of the quorum stands.
    pub(crate) fn quorum(&self) -> QuorumView {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let members = membership
            .nodes()
            .map(|(id, node)| {
                let own = *id == self.own;
                let matched = metrics.replication.as_ref().and_then(|all| all.get(id)).copied();
                let log_end = if own {
                    metrics.last_log_index.map(|index| index as i64 + 1)
                } else {
                    matched.flatten().map(|id| id.index as i64 + 1)
                };
                let heard = metrics
                    .heartbeat
                    .as_ref()
                    .and_then(|all| all.get(id))
                    .copied()
                    .flatten();
                ReplicaView {
                    node_id: BrokerId(*id as i32),
                    address: node.address.clone(),
                    directory_id: node.directory_id,
                    voter: voters.contains(id),
                    log_end: Offset(log_end.unwrap_or(-1)),
                    last_seen: if own {
                        Some(Duration::ZERO)
                    } else {
                        heard.map(|at| at.elapsed())
                    },
                }
            })
            .collect();
        QuorumView {
            leader: metrics.current_leader.map(|id| BrokerId(id as i32)),
            epoch: LeaderEpoch(i32::try_from(metrics.current_term).unwrap_or(i32::MAX)),
            log_end: Offset(metrics.last_log_index.map_or(0, |index| index as i64 + 1)),
            committed: Offset(metrics.local_committed.map_or(-1, |id| id.index as i64)),
            members,
        }
    }

    /// Committed entries for brokers.
    pub(crate) fn committed(&self) -> CommittedLog {
        CommittedLog::new(self.store.clone())
    }

    /// The service that other controllers call.
    pub(crate) fn service(&self) -> RaftServer<RaftService> {
        RaftServer::new(self.service.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// Stops Raft and closes its log.
    pub(crate) async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(?error, "Raft did not stop cleanly");
        }
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "the metadata log did not close cleanly");
        }
    }
}

/// Wakes whoever follows a [`Role`].
pub(crate) struct RoleChanges {
    metrics: openraft::alias::WatchReceiverOf<TypeConfig, openraft::RaftMetrics<TypeConfig>>,
}

impl RoleChanges {
    /// Waits for a change; false when Raft is gone. Cancelling it loses nothing.
    pub(crate) async fn changed(&mut self) -> bool {
        self.metrics.changed().await.is_ok()
    }
}

/// The quorum as its leader sees it.
#[derive(Clone, Debug)]
pub(crate) struct QuorumView {
    pub(crate) leader: Option<BrokerId>,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) log_end: Offset,
    pub(crate) committed: Offset,
    pub(crate) members: Vec<ReplicaView>,
}

/// One member of the quorum.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaView {
    pub(crate) node_id: BrokerId,
    pub(crate) address: String,
    pub(crate) directory_id: protocol::DirectoryId,
    pub(crate) voter: bool,
    pub(crate) log_end: Offset,
    /// How long ago it last answered.
    pub(crate) last_seen: Option<Duration>,
}

/// What openraft must be told (ms) so that a follower campaigns between `election_min` and `election_max` after
/// it last heard of a leader. openraft samples a time from its own bounds *after* a lease that is as long as
/// its upper bound: half of each here, and the sum lies between the mean of the two and the upper one.
///
/// No safety rests on it: who may lead is decided by votes, and who may decide by the claim.
fn openraft_election(settings: &RaftSettings) -> Range<u64> {
    let half = |time: Duration| time.as_millis() as u64 / 2;
    half(settings.election_min)..half(settings.election_max)
}

fn config(settings: &RaftSettings) -> Result<Config, RaftStartError> {
    let election = openraft_election(settings);
    let config = Config {
        cluster_name: "__cluster_metadata".to_owned(),
        heartbeat_interval: settings.heartbeat.as_millis() as u64,
        election_timeout_min: election.start,
        election_timeout_max: election.end,
        // The limit of one whole snapshot transfer.
        install_snapshot_timeout: 60_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_every),
        replication_lag_threshold: settings.snapshot_every.saturating_add(settings.keep_entries) * 2,
        max_in_snapshot_log_to_keep: settings.keep_entries,
        enable_pre_vote: Some(true),
        // A restarted leader was away: somebody else may have decided meanwhile.
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        backoff: "50ms 100ms 200ms ...500ms".to_owned(),
        ..Config::default()
    };
    Ok(config.validate()?)
}

/// Opens log and snapshots and checks that together they are whole. Blocking.
fn open(directory: &Path) -> Result<(LogStore, StateMachine), RaftStartError> {
    let started = Instant::now();
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64);
    let store = LogStore::open(directory, now_ms)?;
    let machine = StateMachine::open(SnapshotDirectory::new(directory.to_owned()))
        .map_err(|error| RaftStartError::Storage(Box::new(error)))?;
    let applied = machine.last_applied();
    let (last, committed) = store.pointers();
    let index = |id: Option<LogId>| id.map(|id| id.index);
    let lost = |what: String| RaftStartError::Lost {
        directory: directory.to_owned(),
        what,
    };
    if index(store.purged()) > index(applied) {
        return Err(lost(format!(
            "the log was purged up to {:?}, the newest whole snapshot ends at {:?}",
            index(store.purged()),
            index(applied)
        )));
    }
    if index(committed) > index(last).max(index(applied)) {
        return Err(lost(format!(
            "entries up to {:?} were committed, the log ends at {:?}",
            index(committed),
            index(last)
        )));
    }
    tracing::info!(
        directory = %directory.display(),
        snapshot = ?index(applied),
        last = ?index(last),
        elapsed_ms = started.elapsed().as_millis() as u64,
        "metadata log opened"
    );
    Ok((store, machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_and_sampled_time_together_stay_within_the_settings() {
        let settings = RaftSettings::default();
        let config = config(&settings).expect("openraft takes them");
        let lease = config.election_timeout_max;
        let (min, max) = (
            settings.election_min.as_millis(),
            settings.election_max.as_millis(),
        );
        assert!(u128::from(lease + config.election_timeout_min) >= min);
        assert!(u128::from(lease + config.election_timeout_max) <= max);
    }
}
