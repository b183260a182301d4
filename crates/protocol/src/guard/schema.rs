//! The language in which the request schemas are written.

use std::ops::RangeInclusive;

use kafka_protocol::messages::ApiKey;

/// A version that no API reaches: "never flexible", "not removed so far".
pub(super) const NEVER: i16 = i16::MAX;

/// A request's schema in all its versions.
#[derive(Debug)]
pub(super) struct Api {
    /// Which API.
    pub(super) key: ApiKey,
    /// Oldest version with a schema.
    pub(super) min: i16,
    /// Newest version with a schema.
    pub(super) max: i16,
    /// First version with compact lengths and tagged fields (KIP-482), or [`NEVER`].
    pub(super) flexible: i16,
    /// The body, in wire order.
    pub(super) fields: &'static [Field],
}

impl Api {
    pub(super) const fn new(
        key: ApiKey,
        versions: RangeInclusive<i16>,
        flexible: i16,
        fields: &'static [Field],
    ) -> Self {
        Self {
            key,
            min: *versions.start(),
            max: *versions.end(),
            flexible,
            fields,
        }
    }

    /// Whether there is a schema for `version`.
    pub(super) const fn has(&self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

/// One field, with the versions that have it.
#[derive(Debug)]
pub(super) struct Field {
    /// First version that has it.
    pub(super) from: i16,
    /// Last version that has it.
    pub(super) to: i16,
    /// Its number, when it stands in the tagged section.
    pub(super) tag: Option<u32>,
    /// What it is.
    pub(super) kind: Kind,
}

/// What a field is made of.
#[derive(Debug)]
pub(super) enum Kind {
    /// This many bytes: integers, booleans, UUIDs.
    Fixed(usize),
    /// A string.
    Str(Nullable),
    /// Bytes.
    Bytes(Nullable),
    /// A count and so many elements.
    Array(Nullable, &'static Self),
    /// Fields one after the other and, in flexible versions, a tagged section.
    Struct(&'static [Field]),
    /// A byte that is 1 before a struct that is there, and another value when it is null.
    OptionalStruct(&'static [Field]),
}

/// Whether a length of −1 (0 in compact form) is allowed and means null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nullable {
    /// It is.
    Yes,
    /// It is not.
    No,
}

pub(super) const BOOL: Kind = Kind::Fixed(1);
pub(super) const I8: Kind = Kind::Fixed(1);
pub(super) const I16: Kind = Kind::Fixed(2);
pub(super) const I32: Kind = Kind::Fixed(4);
pub(super) const I64: Kind = Kind::Fixed(8);
pub(super) const UUID: Kind = Kind::Fixed(16);
pub(super) const STR: Kind = Kind::Str(Nullable::No);
pub(super) const NULL_STR: Kind = Kind::Str(Nullable::Yes);
pub(super) const BYTES: Kind = Kind::Bytes(Nullable::No);
pub(super) const NULL_BYTES: Kind = Kind::Bytes(Nullable::Yes);
pub(super) const I32S: Kind = array(&I32);
pub(super) const STRS: Kind = array(&STR);

/// An array that cannot be null.
pub(super) const fn array(of: &'static Kind) -> Kind {
    Kind::Array(Nullable::No, of)
}

/// An array that may be null.
pub(super) const fn null_array(of: &'static Kind) -> Kind {
    Kind::Array(Nullable::Yes, of)
}

/// A field of every version.
pub(super) const fn all(kind: Kind) -> Field {
    between(0, NEVER, kind)
}

/// A field from version `from` on.
pub(super) const fn since(from: i16, kind: Kind) -> Field {
    between(from, NEVER, kind)
}

/// A field up to and including version `to`.
pub(super) const fn until(to: i16, kind: Kind) -> Field {
    between(0, to, kind)
}

/// A field of the versions `from` to `to`, both included.
pub(super) const fn between(from: i16, to: i16, kind: Kind) -> Field {
    Field {
        from,
        to,
        tag: None,
        kind,
    }
}

/// A tagged field from version `from` on.
pub(super) const fn tagged(tag: u32, from: i16, kind: Kind) -> Field {
    Field {
        from,
        to: NEVER,
        tag: Some(tag),
        kind,
    }
}
