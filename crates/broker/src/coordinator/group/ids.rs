//! Names and numbers of groups and their members.

use std::{borrow::Borrow, fmt, sync::Arc};

use kafka_protocol::protocol::StrBytes;

/// The longest string that every version of the group's records can hold, in bytes.
pub(super) const LONGEST_STRING: usize = i16::MAX as usize;

/// Whether a string fits the group's records.
pub(super) fn fits(text: &str) -> bool {
    text.len() <= LONGEST_STRING
}

/// The longest beginning of a string that has no more than `limit` bytes.
pub(super) fn clip(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A string of its own for an answer.
pub(super) fn wire(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as it travels.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// A copy for an answer.
            pub fn to_wire(&self) -> StrBytes {
                wire(&self.0)
            }
        }

        impl From<&str> for $name {
            /// Copies, so that what is kept does not keep a whole request alive.
            fn from(name: &str) -> Self {
                Self(Arc::from(name))
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(Arc::from(name))
            }
        }

        // Hash, Eq and Ord of `Arc<str>` are those of `str`, as `Borrow` demands.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }
    };
}

name! {
    /// The `group.id` of a group.
    GroupId
}
name! {
    /// The name that the coordinator gave to one member of a group for one life of it.
    MemberId
}
name! {
    /// The `group.instance.id` of a static member, which outlives its member ids (KIP-345).
    InstanceId
}

impl MemberId {
    /// Bytes of what makes an id unique.
    pub(super) const SUFFIX: usize = 1 + uuid::fmt::Hyphenated::LENGTH;

    /// The id of a new member: who it is, then what makes it unique, as Kafka makes them.
    pub(super) fn fresh(client_id: &str, instance: Option<&str>, unique: uuid::Uuid) -> Self {
        let who = clip(instance.unwrap_or(client_id), LONGEST_STRING - Self::SUFFIX);
        Self::from(format!("{who}-{unique}"))
    }
}

/// Counts the assignments of one group: members of different generations own nothing together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId(pub i32);

impl GenerationId {
    /// The generation after this one; numbers that Kafka's wire can hold begin anew after the last.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(1))
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Counts what changed about a group of the KIP-848 protocol. Its target assignment has the epoch for
/// which it was computed, and each member the one that it has reached on its way to the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupEpoch(pub i32);

impl GroupEpoch {
    /// What a member names that joins, and a group has that never changed.
    pub const JOINING: Self = Self(0);
    /// What a member names that leaves for good.
    pub const LEAVING: Self = Self(-1);
    /// What a static member names that leaves and will be back, and has until it is.
    pub const AWAY: Self = Self(-2);

    /// The epoch after this one; numbers that Kafka's wire can hold begin anew after the last.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(1))
    }
}

impl fmt::Display for GroupEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_fresh_member_id_says_who_it_is_and_fits_a_record() {
        let unique = Uuid::from_u128(7);
        let suffix = "-00000000-0000-0000-0000-000000000007";
        assert_eq!(
            MemberId::fresh("app", None, unique).as_str(),
            format!("app{suffix}")
        );
        assert_eq!(
            MemberId::fresh("app", Some("node-1"), unique).as_str(),
            format!("node-1{suffix}")
        );
        let long = "ö".repeat(LONGEST_STRING);
        let id = MemberId::fresh(&long, None, unique);
        assert!(fits(id.as_str()) && id.as_str().ends_with(suffix));
    }

    #[test]
    fn generations_never_turn_negative() {
        assert_eq!(GenerationId(0).next(), GenerationId(1));
        assert_eq!(GenerationId(i32::MAX).next(), GenerationId(1));
        assert_eq!(GroupEpoch::JOINING.next(), GroupEpoch(1));
        assert_eq!(GroupEpoch(i32::MAX).next(), GroupEpoch(1));
    }
}
