//! Asking the active controller, from any broker: finds it, follows it when it moves, and answers only
//! once this broker itself shows the result.
//!
//! A request is sent again only where that is harmless: nothing of it left this process, the controller
//! answered that it is not the active one, or repeating it changes nothing. Otherwise an answer that did
//! not come is an outcome that nobody knows, and the caller is told so.

mod error;
mod locator;

use std::error::Error as _;
use std::time::Duration;

use protocol::grpc::v1::controller_client::ControllerClient as ControllerRpc;
use protocol::grpc::v1::{
    AllocateProducerIdsReply, AllocateProducerIdsRequest, AlterConfigsReply, AlterConfigsRequest,
    AlterPartitionsReply, AlterPartitionsRequest, AssignDirectoriesReply, AssignDirectoriesRequest,
    ControllerReplyHeader, CreatePartitionsReply, CreatePartitionsRequest, CreateTopicsReply,
    CreateTopicsRequest, DeleteTopicsReply, DeleteTopicsRequest, DescribeQuorumReply, DescribeQuorumRequest,
    ElectLeadersReply, ElectLeadersRequest, UnregisterBrokerReply, UnregisterBrokerRequest,
};
use protocol::{ErrorCode, Offset};
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tracing::debug;

pub use error::ControllerError;
pub use locator::{ActiveController, ControllerLocator, LocateError};

use crate::session::ImageStore;

/// The largest message from a controller.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// The first pause before a controller is asked again; it doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// Whether a request may be sent again although the first may have been carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Twice is as good as once.
    Harmless,
    /// Twice is not once.
    Never,
}

/// Whether the caller waits until this broker shows the result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visibility {
    /// The answer is enough.
    Answer,
    /// This broker's own image has the offset that the answer names.
    OwnImage,
}

/// Replies that begin with a header.
trait Reply {
    fn header(&self) -> Option<&ControllerReplyHeader>;
}

/// Calls to the active controller. A clone is a handle to the same connections.
#[derive(Clone, Debug)]
pub struct ControllerClient {
    locator: ControllerLocator,
    images: ImageStore,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $reply:ty, $repeat:ident, $visibility:ident;)*) => {
        impl ControllerClient {
            $(
                $(#[$doc])*
                pub async fn $name(
                    &self,
                    request: $request,
                    deadline: Instant,
                ) -> Result<$reply, ControllerError> {
                    self.call(
                        request,
                        deadline,
                        Repeat::$repeat,
                        Visibility::$visibility,
                        async |mut rpc, request| {
                            rpc.$name(request).await.map(tonic::Response::into_inner)
                        },
                    )
                    .await
                }
            )*
        }

        $(impl Reply for $reply {
            fn header(&self) -> Option<&ControllerReplyHeader> {
                self.header.as_ref()
            }
        })*
    };
}

calls! {
    /// Creates topics. The deadline must leave the controller its `timeout_ms`.
    create_topics(CreateTopicsRequest) -> CreateTopicsReply, Never, OwnImage;
    /// Deletes topics.
    delete_topics(DeleteTopicsRequest) -> DeleteTopicsReply, Never, OwnImage;
    /// Adds partitions to topics.
    create_partitions(CreatePartitionsRequest) -> CreatePartitionsReply, Never, OwnImage;
    /// Sets and removes configuration keys.
    alter_configs(AlterConfigsRequest) -> AlterConfigsReply, Never, OwnImage;
    /// Elects preferred leaders, or any where unclean election is asked for.
    elect_leaders(ElectLeadersRequest) -> ElectLeadersReply, Never, OwnImage;
    /// Proposes in-sync sets. A compare-and-set: the second of two equal ones changes nothing.
    alter_partitions(AlterPartitionsRequest) -> AlterPartitionsReply, Harmless, Answer;
    /// Tells in which directories replicas lie. Saying it twice changes nothing.
    assign_directories(AssignDirectoriesRequest) -> AssignDirectoriesReply, Harmless, Answer;
    /// Takes a block of producer ids. A block whose answer was lost is never used by anybody.
    allocate_producer_ids(AllocateProducerIdsRequest) -> AllocateProducerIdsReply, Harmless, Answer;
    /// Forgets a broker that will not come back.
    unregister_broker(UnregisterBrokerRequest) -> UnregisterBrokerReply, Never, OwnImage;
    /// Describes the quorum; changes nothing.
    describe_quorum(DescribeQuorumRequest) -> DescribeQuorumReply, Harmless, Answer;
}

impl ControllerClient {
    /// Over the controllers that `locator` finds, for a broker whose own view is `images`.
    pub fn new(locator: ControllerLocator, images: ImageStore) -> Self {
        Self { locator, images }
    }

    /// Who is believed to be the active controller.
    pub fn known_active(&self) -> Option<ActiveController> {
        self.locator.known_active()
    }

    async fn call<Q: Clone, R: Reply>(
        &self,
        request: Q,
        deadline: Instant,
        repeat: Repeat,
        visibility: Visibility,
        send: impl AsyncFn(ControllerRpc<Channel>, Q) -> Result<R, tonic::Status>,
    ) -> Result<R, ControllerError> {
        let mut pause = RETRY_PAUSE;
        let mut why = String::from("the time was up before it was looked for");
        while Instant::now() < deadline {
            let active = match timeout_at(deadline, self.locator.find()).await {
                Ok(Ok(active)) => active,
                Ok(Err(error)) => {
                    why = error.to_string();
                    rest(&mut pause, deadline).await;
                    continue;
                }
                Err(_) => break,
            };
            let channel = match self.locator.channel(&active.address) {
                Ok(channel) => channel,
                Err(error) => {
                    self.locator.forget(&active);
                    why = format!("{}: {error}", active.address);
                    rest(&mut pause, deadline).await;
                    continue;
                }
            };
            let rpc = ControllerRpc::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
            match timeout_at(deadline, send(rpc, request.clone())).await {
                Err(_) => {
                    return Err(ControllerError::OutcomeUnknown(format!(
                        "controller {} did not answer in time",
                        active.id
                    )));
                }
                Ok(Err(status)) => {
                    self.locator.forget(&active);
                    debug!(controller = %active.id, %status, "call to the controller failed");
                    if repeat == Repeat::Never && !nothing_was_sent(&status) {
                        return Err(ControllerError::OutcomeUnknown(status.message().to_owned()));
                    }
                    status.message().clone_into(&mut why);
                    rest(&mut pause, deadline).await;
                }
                Ok(Ok(reply)) => match self.judge(&reply, &active)? {
                    Verdict::Done(offset) => {
                        if visibility == Visibility::OwnImage
                            && self.images.wait_for_offset(offset, deadline).await.is_err()
                        {
                            return Err(ControllerError::NotSeenYet);
                        }
                        return Ok(reply);
                    }
                    Verdict::AskAgain => {
                        why = format!("controller {} is no longer active", active.id);
                        rest(&mut pause, deadline).await;
                    }
                },
            }
        }
        Err(ControllerError::Unreachable(why))
    }

    /// Reads the header of a reply: done at an offset, refused, or not the active controller.
    fn judge(&self, reply: &impl Reply, asked: &ActiveController) -> Result<Verdict, ControllerError> {
        let header = reply
            .header()
            .ok_or_else(|| ControllerError::Malformed(String::from("a reply without a header")))?;
        let error = header.error.clone().unwrap_or_default();
        let code = i16::try_from(error.code)
            .ok()
            .and_then(ErrorCode::from_code)
            .unwrap_or(ErrorCode::UnknownServerError);
        match code {
            ErrorCode::None => Ok(Verdict::Done(Offset(header.committed_offset))),
            ErrorCode::NotController => {
                self.locator.forget(asked);
                if let Some(active) = &header.active {
                    self.locator.learn(active);
                }
                Ok(Verdict::AskAgain)
            }
            code => Err(ControllerError::Refused {
                code,
                message: error.message,
            }),
        }
    }
}

enum Verdict {
    Done(Offset),
    AskAgain,
}

/// Whether the failure was to connect, so that the controller never saw the request.
fn nothing_was_sent(status: &tonic::Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

async fn rest(pause: &mut Duration, deadline: Instant) {
    tokio::time::sleep_until(deadline.min(Instant::now() + *pause)).await;
    *pause = (*pause * 2).min(RETRY_PAUSE_MAX);
}
