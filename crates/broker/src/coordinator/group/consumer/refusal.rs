//! Why a member is refused: the code, and a sentence for whoever looks at the client.

use protocol::ErrorCode;

/// A code with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Refusal {
    pub(in super::super) error: ErrorCode,
    pub(in super::super) why: String,
}

impl Refusal {
    pub(in super::super) fn new(error: ErrorCode, why: impl Into<String>) -> Self {
        Self {
            error,
            why: why.into(),
        }
    }

    pub(super) fn unknown_member(member: &str) -> Self {
        Self::new(
            ErrorCode::UnknownMemberId,
            format!("Member {member} is not a member of the group."),
        )
    }

    pub(super) fn fenced_instance(instance: &str) -> Self {
        Self::new(
            ErrorCode::FencedInstanceId,
            format!("Another member has taken the place of instance {instance}."),
        )
    }

    pub(super) fn full(max_size: usize) -> Self {
        Self::new(
            ErrorCode::GroupMaxSizeReached,
            format!("The consumer group has reached its maximum capacity of {max_size} members."),
        )
    }

    pub(super) fn too_large(what: &str) -> Self {
        Self::new(
            ErrorCode::UnknownServerError,
            format!("{what} would be larger than a record of the offsets topic may be."),
        )
    }
}
