//! Raft's state machine: the cluster image, folded entry by entry and published after each.
//!
//! The image lives in memory; what is durable are snapshots and the log. A snapshot is written from a
//! clone of the image in the background, while entries go on being applied.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use metadata::ClusterImage;
use openraft::OptionalSend;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;
use prost::Message;
use protocol::grpc::v1::MetadataEntry;
use protocol::{LeaderEpoch, Offset};
use tokio::sync::watch;

use super::codec::CodecError;
use super::snapshot::{SnapshotDirectory, SnapshotFile};
use super::types::{Applied, Entry, LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// The state machine of this controller.
#[derive(Debug)]
pub(crate) struct StateMachine {
    applied: State,
    snapshots: SnapshotDirectory,
    current: Arc<Mutex<Option<(SnapshotMeta, SnapshotFile)>>>,
    published: watch::Sender<Arc<ClusterImage>>,
}

/// The image at one log id. A clone is cheap.
#[derive(Clone, Debug, Default)]
struct State {
    last: Option<LogId>,
    membership: StoredMembership,
    image: Arc<ClusterImage>,
}

impl StateMachine {
    /// Starts from the newest snapshot in the directory, where there is one. Blocking.
    pub(crate) fn open(snapshots: SnapshotDirectory) -> io::Result<Self> {
        let (applied, current) = match snapshots.newest()? {
            Some((file, meta, image)) => (
                State {
                    last: meta.last_log_id,
                    membership: meta.last_membership.clone(),
                    image: Arc::new(image),
                },
                Some((meta, file)),
            ),
            None => (State::default(), None),
        };
        let published = watch::Sender::new(Arc::clone(&applied.image));
        Ok(Self {
            applied,
            snapshots,
            current: Arc::new(Mutex::new(current)),
            published,
        })
    }

    /// The committed image, after each change.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.published.subscribe()
    }

    /// The last entry that the image contains.
    pub(crate) fn last_applied(&self) -> Option<LogId> {
        self.applied.last
    }

    fn apply_entry(&mut self, entry: &Entry) -> io::Result<()> {
        let id = entry.log_id();
        let record = match &entry.payload {
            Payload::Normal(command) => Some(
                MetadataEntry::decode(command.entry.clone())
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
            ),
            Payload::Blank => None,
            Payload::Membership(membership) => {
                self.applied.membership = StoredMembership::new(Some(id), membership.clone());
                None
            }
        };
        let (offset, epoch) = position(id)?;
        let image = self
            .applied
            .image
            .apply(offset, epoch, record.as_ref())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.applied.image = Arc::new(image);
        self.applied.last = Some(id);
        self.published.send_replace(Arc::clone(&self.applied.image));
        Ok(())
    }
}

/// A log id in the metadata log's own terms.
pub(crate) fn position(id: LogId) -> Result<(Offset, LeaderEpoch), CodecError> {
    let term = id.leader_id.term;
    let offset = i64::try_from(id.index).map_err(|_| CodecError::Index(id.index))?;
    let epoch = i32::try_from(term).map_err(|_| CodecError::Term(term))?;
    Ok((Offset(offset), LeaderEpoch(epoch)))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            self.apply_entry(&entry).inspect_err(|error| {
                tracing::error!(%error, "a committed metadata entry cannot be applied; this controller stops");
            })?;
            if let Some(responder) = responder {
                responder.send(Applied);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            state: self.applied.clone(),
            snapshots: self.snapshots.clone(),
            current: Arc::clone(&self.current),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let snapshots = self.snapshots.clone();
        let expected = meta.clone();
        let (file, image) = tokio::task::spawn_blocking(move || {
            let (found, image) = snapshot.load()?;
            if found != expected {
                let what = format!("a snapshot of {expected} was announced, {found} arrived");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            Ok((snapshots.install(&snapshot, &expected)?, image))
        })
        .await
        .map_err(io::Error::other)??;
        self.applied = State {
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
            image: Arc::new(image),
        };
        *self.current.lock() = Some((meta.clone(), file));
        self.published.send_replace(Arc::clone(&self.applied.image));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self.current.lock();
        Ok(current.as_ref().map(|(meta, file)| Snapshot {
            meta: meta.clone(),
            snapshot: file.clone(),
        }))
    }
}

/// Writes one state as a snapshot file.
#[derive(Debug)]
pub(crate) struct Builder {
    state: State,
    snapshots: SnapshotDirectory,
    current: Arc<Mutex<Option<(SnapshotMeta, SnapshotFile)>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let meta = SnapshotMeta {
            last_log_id: self.state.last,
            last_membership: self.state.membership.clone(),
        };
        let (snapshots, state, for_file) = (self.snapshots.clone(), self.state.clone(), meta.clone());
        let file = tokio::task::spawn_blocking(move || snapshots.write(&for_file, &state.image))
            .await
            .map_err(io::Error::other)??;
        let mut current = self.current.lock();
        // A snapshot that was installed meanwhile is newer: it stays the current one.
        if current
            .as_ref()
            .is_none_or(|(installed, _)| installed.last_log_id <= meta.last_log_id)
        {
            *current = Some((meta.clone(), file.clone()));
        }
        Ok(Snapshot { meta, snapshot: file })
    }
}
