//! Calls that a group's coordinator answers: it is looked for, asked, and asked again as long as that does no
//! harm. Who asked and got no answer does not know whether it was done, and says so.

use std::future::Future;
use std::time::Duration;

use protocol::ErrorCode;
use protocol::grpc::v1::admin_client::AdminClient;
use protocol::grpc::v1::{AdminGroupResult, DescribeGroupResponse, KafkaError, ResetGroupOffsetsResponse};
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

use super::PAUSE;
use crate::grpc_admin::{AdminService, refused};

/// How long a coordinator is looked for, and waited for while it loads.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a coordinator that was found has for its answer. More than it takes: it asks leaders for offsets
/// (at most five seconds) and waits for its own record (`offsets.commit.timeout.ms`, five seconds). One that
/// hangs is given up much earlier, for its silence.
const ANSWER: Duration = Duration::from_secs(30);

/// Answers that may carry an error of the whole call.
pub(super) trait GroupAnswer: Default {
    fn error(&self) -> Option<&KafkaError>;
    fn failed(error: KafkaError) -> Self;
}

macro_rules! group_answers {
    ($($answer:ty),*) => {$(
        impl GroupAnswer for $answer {
            fn error(&self) -> Option<&KafkaError> {
                self.error.as_ref()
            }

            fn failed(error: KafkaError) -> Self {
                Self { error: Some(error), ..Self::default() }
            }
        }
    )*};
}

group_answers!(DescribeGroupResponse, ResetGroupOffsetsResponse, AdminGroupResult);

/// What a call does to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// The same, however often it is done.
    Repeatable,
    /// More, each time that it is done.
    Once,
}

/// One call about one group.
pub(super) trait GroupCall {
    /// What it is answered.
    type Answer: GroupAnswer;
    /// An error that, after an attempt that was not answered, says that this attempt did it.
    const DONE_BEFORE: Option<ErrorCode> = None;

    /// The group.
    fn group(&self) -> &str;

    /// What it does.
    fn effect(&self) -> Effect;

    /// Done by this broker as the coordinator. `REQUEST_TIMED_OUT`: it may have been done.
    fn here(&self, service: &AdminService) -> impl Future<Output = Self::Answer> + Send;

    /// Passed on to the coordinator. An error: it may have been done.
    fn there(
        &self,
        coordinator: AdminClient<Channel>,
    ) -> impl Future<Output = Result<Self::Answer, Status>> + Send;
}

impl AdminService {
    /// Has the group's coordinator answer; with `passed_on` this broker is it, or nobody answers.
    pub(super) async fn at_coordinator<C: GroupCall>(&self, call: C, passed_on: bool) -> C::Answer {
        let deadline = Instant::now() + PATIENCE;
        let mut search = Search::new(call.effect(), C::DONE_BEFORE);
        loop {
            let answer = self.attempt(&call, passed_on).await;
            let last = passed_on || Instant::now() >= deadline;
            if let Some(answer) = search.judge(answer, last) {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt<C: GroupCall>(&self, call: &C, passed_on: bool) -> C::Answer {
        let group = call.group();
        let id = match self.broker.groups.locate(group).await {
            Ok(id) if id == self.broker.config.node_id => return call.here(self).await,
            Ok(_) if passed_on => {
                let why = "this broker does not coordinate the group";
                return C::Answer::failed(refused(ErrorCode::NotCoordinator, why));
            }
            Ok(id) => id,
            Err((code, why)) => return C::Answer::failed(refused(code, why)),
        };
        let unavailable = |status: &Status| refused(ErrorCode::CoordinatorNotAvailable, status.message());
        let coordinator = match self.peer(id, ANSWER).await {
            Ok(coordinator) => coordinator,
            Err(status) => return C::Answer::failed(unavailable(&status)),
        };
        call.there(coordinator).await.unwrap_or_else(|status| {
            C::Answer::failed(match call.effect() {
                Effect::None => unavailable(&status),
                Effect::Repeatable | Effect::Once => {
                    let silent = format!("broker {id} did not answer ({})", status.message());
                    may_have_been_done(group, &silent)
                }
            })
        })
    }
}

/// The error of a call whose outcome is not known, and why it is not.
pub(super) fn may_have_been_done(group: &str, why: &str) -> KafkaError {
    let sentence = format!("{why}: it may have been done; look at group {group} before you ask again");
    refused(ErrorCode::RequestTimedOut, sentence)
}

/// Why it is not known whether a coordinator wrote what it was to write, going by the code that it answered:
/// its record may be in the log, and be found by the next coordinator.
pub(super) fn lost_its_group(code: i16) -> Option<&'static str> {
    match ErrorCode::from_code(code)? {
        ErrorCode::NotCoordinator => Some("the group got another coordinator meanwhile"),
        ErrorCode::CoordinatorNotAvailable => Some("the coordinator could not write it, or not in time"),
        _ => None,
    }
}

/// The attempts at one call.
#[derive(Debug)]
struct Search {
    effect: Effect,
    done_before: Option<ErrorCode>,
    /// Of an attempt that may have done it.
    unknown: Option<KafkaError>,
}

impl Search {
    fn new(effect: Effect, done_before: Option<ErrorCode>) -> Self {
        Self {
            effect,
            done_before,
            unknown: None,
        }
    }

    /// What the call is answered after an attempt that brought this; `None`: another attempt is made, as
    /// long as this was not to be the `last`.
    fn judge<A: GroupAnswer>(&mut self, answer: A, last: bool) -> Option<A> {
        let Some(error) = answer.error().filter(|error| error.code != 0) else {
            return Some(answer);
        };
        let code = i16::try_from(error.code).ok().and_then(ErrorCode::from_code);
        let asks_again = match code {
            Some(
                ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::CoordinatorNotAvailable
                | ErrorCode::NotCoordinator,
            ) => true,
            Some(ErrorCode::RequestTimedOut) => {
                self.unknown = Some(error.clone());
                self.effect == Effect::Repeatable
            }
            _ => false,
        };
        if asks_again && !last {
            return None;
        }
        match self.unknown.take() {
            // What was done is not found any more: by an attempt of this call, or by somebody else.
            Some(_) if code.is_some() && code == self.done_before => Some(A::default()),
            Some(unknown) => Some(A::failed(unknown)),
            None => Some(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: ErrorCode) -> AdminGroupResult {
        AdminGroupResult::failed(refused(code, code.name()))
    }

    fn code(answer: Option<AdminGroupResult>) -> Option<i16> {
        let error = answer?.error.unwrap_or_default();
        Some(error.code as i16)
    }

    fn after(effect: Effect, answers: &[ErrorCode], last: bool) -> Option<i16> {
        let mut search = Search::new(effect, Some(ErrorCode::GroupIdNotFound));
        let (end, before) = answers.split_last().expect("an answer");
        for &answer in before {
            assert_eq!(search.judge(failed(answer), false), None, "{answer:?}");
        }
        code(search.judge(failed(*end), last))
    }

    const EFFECTS: [Effect; 3] = [Effect::None, Effect::Repeatable, Effect::Once];

    #[test]
    fn a_coordinator_that_is_not_there_yet_is_asked_again() {
        use ErrorCode::{
            CoordinatorLoadInProgress, CoordinatorNotAvailable, GroupIdNotFound, NotCoordinator,
        };
        for effect in EFFECTS {
            for moving in [CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator] {
                assert_eq!(after(effect, &[moving], false), None);
                assert_eq!(after(effect, &[moving], true), Some(moving.code()));
                let answers = [moving, moving, GroupIdNotFound];
                assert_eq!(after(effect, &answers, false), Some(GroupIdNotFound.code()));
            }
        }
    }

    #[test]
    fn a_write_that_was_not_confirmed_is_of_unknown_outcome() {
        for unknown in [ErrorCode::NotCoordinator, ErrorCode::CoordinatorNotAvailable] {
            assert!(lost_its_group(unknown.code()).is_some());
        }
        for known in [
            ErrorCode::None,
            ErrorCode::CoordinatorLoadInProgress,
            ErrorCode::NonEmptyGroup,
        ] {
            assert!(lost_its_group(known.code()).is_none());
        }
    }

    #[test]
    fn what_must_be_done_once_is_not_done_again() {
        let unknown = ErrorCode::RequestTimedOut;
        assert_eq!(after(Effect::Once, &[unknown], false), Some(unknown.code()));
        assert_eq!(after(Effect::Repeatable, &[unknown], false), None);
        assert_eq!(after(Effect::Repeatable, &[unknown], true), Some(unknown.code()));
    }

    #[test]
    fn an_attempt_that_may_have_done_it_is_not_forgotten() {
        use ErrorCode::{CoordinatorNotAvailable, NonEmptyGroup, RequestTimedOut};
        for end in [CoordinatorNotAvailable, NonEmptyGroup] {
            let answers = [RequestTimedOut, CoordinatorNotAvailable, end];
            let told = after(Effect::Repeatable, &answers, true);
            assert_eq!(
                told,
                Some(RequestTimedOut.code()),
                "{end:?} alone would say that nothing was done"
            );
        }
        // It is deleted, as was asked.
        let answers = [RequestTimedOut, ErrorCode::GroupIdNotFound];
        assert_eq!(after(Effect::Repeatable, &answers, true), Some(0));
        let mut search = Search::new(Effect::Repeatable, None);
        assert_eq!(search.judge(failed(RequestTimedOut), false), None);
        assert_eq!(code(search.judge(AdminGroupResult::default(), false)), Some(0));
    }
}
