//! What one session's messages mean: a state machine without stream or clock.

use metadata::{ApplyError, ClusterImage, SnapshotError, SnapshotReader};
use protocol::grpc::v1::controller_message::Message;
use protocol::grpc::v1::{
    BrokerState, CommittedEntries, ControllerAddress, ControllerMessage, Registered, SnapshotChunk,
};
use protocol::{BrokerEpoch, ClusterId, ErrorCode, LeaderEpoch, Offset};

/// Why this broker cannot be part of the cluster. A person must see it; trying again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionRefused {
    /// The controller refuses the broker.
    #[error("the controller refuses this broker: {0}")]
    ByController(String),
    /// The quorum is another cluster's.
    #[error("the quorum belongs to cluster {quorum}; this broker's directories belong to cluster {own}")]
    OtherCluster {
        /// The quorum's cluster.
        quorum: ClusterId,
        /// The broker's.
        own: ClusterId,
    },
    /// An entry of the metadata log that this version cannot fold into its image.
    #[error("the metadata log cannot be followed: {0}")]
    Entry(#[from] ApplyError),
    /// A snapshot that this version cannot read.
    #[error("the metadata snapshot cannot be read: {0}")]
    Snapshot(#[from] SnapshotError),
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// The controller is not active; perhaps it knows who is.
    NotActive(Option<ControllerAddress>),
    /// A later controller exists.
    OlderController {
        found: LeaderEpoch,
        highest: LeaderEpoch,
    },
    /// The controller fenced this broker in mid-session: it registers anew.
    Fenced,
    /// Another process with this node id has a session. It may be this broker's own last run, not yet
    /// known to be dead.
    Taken(String),
    /// The stream broke, fell silent, or the controller asks to try again.
    Broken(String),
    /// For good.
    Refused(SessionRefused),
}

/// What a message asks the client to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Nothing; it was a sign of life.
    Nothing,
    /// The broker is registered.
    Registered {
        epoch: BrokerEpoch,
        cluster_id: Option<ClusterId>,
    },
    /// The image has moved on and contains what the broker must have seen.
    Image,
    /// How the broker stands.
    State(BrokerState),
}

/// The broker's memory of the metadata log: kept from session to session.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The fold of every committed entry received.
    pub(super) image: ClusterImage,
    /// The highest controller epoch obeyed.
    pub(super) highest_epoch: LeaderEpoch,
}

/// One session, from the register message on.
#[derive(Debug)]
pub(super) struct Conversation<'a> {
    memory: &'a mut Memory,
    registered: Option<(BrokerEpoch, Offset)>,
    snapshot: Option<SnapshotReader>,
    was_unfenced: bool,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(memory: &'a mut Memory) -> Self {
        Self {
            memory,
            registered: None,
            snapshot: None,
            was_unfenced: false,
        }
    }

    /// The broker epoch, once registered.
    pub(super) fn epoch(&self) -> Option<BrokerEpoch> {
        self.registered.map(|(epoch, _)| epoch)
    }

    /// The image as received, once it contains this session's registration: before, it describes an
    /// earlier run.
    pub(super) fn ready_image(&self) -> Option<(BrokerEpoch, &ClusterImage)> {
        let (epoch, catch_up_to) = self.registered?;
        let image = &self.memory.image;
        (image.offset >= Some(catch_up_to)).then_some((epoch, image))
    }

    /// Takes the next message.
    pub(super) fn on_message(&mut self, message: ControllerMessage) -> Result<Step, SessionEnd> {
        let found = LeaderEpoch(message.controller_epoch);
        let highest = self.memory.highest_epoch;
        let not_active = matches!(message.message, Some(Message::NotActive(_)));
        // Who is not active may say so in any epoch; everything else must come from the latest controller.
        if found < highest && !not_active {
            return Err(SessionEnd::OlderController { found, highest });
        }
        match message.message {
            None => Ok(Step::Nothing),
            Some(Message::NotActive(hint)) => Err(SessionEnd::NotActive(hint.active_controller)),
            Some(Message::Refused(error)) => {
                let code = i16::try_from(error.code).ok().and_then(ErrorCode::from_code);
                Err(match code {
                    Some(ErrorCode::DuplicateBrokerRegistration) => SessionEnd::Taken(error.message),
                    Some(code) if code.is_retriable() => SessionEnd::Broken(error.message),
                    _ => SessionEnd::Refused(SessionRefused::ByController(error.message)),
                })
            }
            Some(message) => {
                self.memory.highest_epoch = found;
                match message {
                    Message::Registered(registered) => self.on_registered(registered),
                    Message::Snapshot(chunk) => self.on_snapshot(chunk),
                    Message::Entries(entries) => self.on_entries(entries),
                    Message::State(state) => self.on_state(state),
                    Message::NotActive(_) | Message::Refused(_) => Ok(Step::Nothing),
                }
            }
        }
    }

    fn on_registered(&mut self, registered: Registered) -> Result<Step, SessionEnd> {
        let epoch = BrokerEpoch(registered.broker_epoch);
        self.registered = Some((epoch, Offset(registered.catch_up_to)));
        let cluster_id = match registered.controller {
            Some(hello) if !hello.cluster_id.is_empty() => Some(
                ClusterId::new(hello.cluster_id)
                    .map_err(|error| SessionEnd::Broken(format!("the controller's greeting: {error}")))?,
            ),
            _ => None,
        };
        Ok(Step::Registered { epoch, cluster_id })
    }

    fn on_snapshot(&mut self, chunk: SnapshotChunk) -> Result<Step, SessionEnd> {
        if let Some(header) = &chunk.header {
            let reader = SnapshotReader::new(header).map_err(|error| SessionEnd::Refused(error.into()))?;
            self.snapshot = Some(reader);
        }
        let Some(reader) = &mut self.snapshot else {
            return Err(SessionEnd::Broken(String::from("a snapshot without its header")));
        };
        if let Some(entry) = &chunk.entry {
            reader
                .entry(entry)
                .map_err(|error| SessionEnd::Refused(error.into()))?;
        }
        if !chunk.last {
            return Ok(Step::Nothing);
        }
        let image = self
            .snapshot
            .take()
            .map(SnapshotReader::finish)
            .unwrap_or_default();
        if image.offset < self.memory.image.offset {
            return Err(SessionEnd::Broken(format!(
                "a snapshot at {:?}, older than this broker's image at {:?}",
                image.offset, self.memory.image.offset
            )));
        }
        self.memory.image = image;
        Ok(self.image_step())
    }

    fn on_entries(&mut self, entries: CommittedEntries) -> Result<Step, SessionEnd> {
        for committed in entries.entries {
            let offset = Offset(committed.offset);
            let expected = self.memory.image.offset.map_or(Offset::ZERO, Offset::next);
            if offset < expected {
                continue;
            }
            if offset > expected {
                return Err(SessionEnd::Broken(format!(
                    "metadata entry {offset} came where {expected} was expected"
                )));
            }
            self.memory.image = self
                .memory
                .image
                .apply(offset, LeaderEpoch(committed.epoch), committed.entry.as_ref())
                .map_err(|error| SessionEnd::Refused(error.into()))?;
        }
        Ok(self.image_step())
    }

    fn on_state(&mut self, state: BrokerState) -> Result<Step, SessionEnd> {
        if state.fenced && self.was_unfenced && !state.may_shut_down {
            return Err(SessionEnd::Fenced);
        }
        self.was_unfenced |= !state.fenced;
        Ok(Step::State(state))
    }

    fn image_step(&self) -> Step {
        match self.ready_image() {
            Some(_) => Step::Image,
            None => Step::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::grpc::v1::{CommittedEntry, KafkaError, NotActive};

    use super::*;

    fn message(epoch: i32, message: Message) -> ControllerMessage {
        ControllerMessage {
            controller_epoch: epoch,
            message: Some(message),
        }
    }

    fn registered(catch_up_to: i64) -> Message {
        Message::Registered(Registered {
            broker_epoch: 7,
            catch_up_to,
            controller: None,
        })
    }

    fn entries(offsets: impl IntoIterator<Item = i64>) -> Message {
        Message::Entries(CommittedEntries {
            entries: offsets
                .into_iter()
                .map(|offset| CommittedEntry {
                    offset,
                    epoch: 1,
                    entry: None,
                })
                .collect(),
        })
    }

    fn state(fenced: bool) -> Message {
        Message::State(BrokerState {
            fenced,
            ..BrokerState::default()
        })
    }

    #[test]
    fn images_show_once_they_contain_the_registration() {
        let mut memory = Memory::default();
        let mut session = Conversation::new(&mut memory);
        assert_eq!(
            session.on_message(message(1, registered(2))),
            Ok(Step::Registered {
                epoch: BrokerEpoch(7),
                cluster_id: None
            })
        );
        assert_eq!(session.on_message(message(1, entries(0..2))), Ok(Step::Nothing));
        assert_eq!(session.on_message(message(1, entries([1, 2]))), Ok(Step::Image));
        let (epoch, image) = session.ready_image().unwrap();
        assert_eq!((epoch, image.offset), (BrokerEpoch(7), Some(Offset(2))));
    }

    #[test]
    fn a_gap_in_the_log_ends_the_session() {
        let mut memory = Memory::default();
        let mut session = Conversation::new(&mut memory);
        let end = session.on_message(message(1, entries([1])));
        assert!(matches!(end, Err(SessionEnd::Broken(_))), "{end:?}");
        assert_eq!(memory.image.offset, None);
    }

    #[test]
    fn an_older_controller_is_not_obeyed() {
        let mut memory = Memory::default();
        let mut session = Conversation::new(&mut memory);
        assert!(session.on_message(message(5, registered(0))).is_ok());
        let mut later = Conversation::new(&mut memory);
        assert_eq!(
            later.on_message(message(4, registered(0))),
            Err(SessionEnd::OlderController {
                found: LeaderEpoch(4),
                highest: LeaderEpoch(5)
            })
        );
        let hint = NotActive {
            active_controller: None,
        };
        assert_eq!(
            later.on_message(message(4, Message::NotActive(hint))),
            Err(SessionEnd::NotActive(None))
        );
    }

    #[test]
    fn fencing_counts_only_after_unfencing() {
        let mut memory = Memory::default();
        let mut session = Conversation::new(&mut memory);
        assert!(session.on_message(message(1, registered(0))).is_ok());
        assert!(session.on_message(message(1, state(true))).is_ok());
        assert!(session.on_message(message(1, state(false))).is_ok());
        assert_eq!(
            session.on_message(message(1, state(true))),
            Err(SessionEnd::Fenced)
        );
    }

    #[test]
    fn a_refusal_is_final_unless_the_code_says_retry() {
        let refused = |code: ErrorCode| {
            let error = KafkaError {
                code: i32::from(code.code()),
                message: String::from("no"),
            };
            Conversation::new(&mut Memory::default()).on_message(message(1, Message::Refused(error)))
        };
        assert_eq!(
            refused(ErrorCode::InconsistentClusterId),
            Err(SessionEnd::Refused(SessionRefused::ByController(String::from(
                "no"
            ))))
        );
        assert_eq!(
            refused(ErrorCode::RequestTimedOut),
            Err(SessionEnd::Broken(String::from("no")))
        );
    }
}
