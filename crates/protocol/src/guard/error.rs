//! What the guard finds wrong with a request.

/// Why a request was refused before anything was decoded. Positions count bytes from the start of
/// the header or of the body, whichever was being read.
///
/// Kafka closes the connection on any of these but for an `ApiVersions` request in a version that
/// is not supported, which is answered (KIP-511).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// No API has this key.
    #[error("unknown API key {0}")]
    UnknownApi(i16),
    /// The API exists, this version of it is not spoken here.
    #[error("version {version} of API {api_key} is not supported")]
    UnsupportedVersion {
        /// Key of the API.
        api_key: i16,
        /// The version that was asked for.
        version: i16,
    },
    /// A field needs more bytes than are left.
    #[error("byte {at}: {needed} bytes needed, {left} are left")]
    Truncated {
        /// Where the field begins.
        at: usize,
        /// Bytes it takes.
        needed: usize,
        /// Bytes there are.
        left: usize,
    },
    /// A length or count below −1 (which is null).
    #[error("byte {at}: impossible length {length}")]
    Length {
        /// Where the length stands.
        at: usize,
        /// What it says.
        length: i32,
    },
    /// Null where the schema allows none.
    #[error("byte {at}: null in a field that cannot be null")]
    Null {
        /// Where the field begins.
        at: usize,
    },
    /// A varint that does not end after five bytes or exceeds 32 bits.
    #[error("byte {at}: varint overflow")]
    Varint {
        /// Where it begins.
        at: usize,
    },
    /// A string that is not UTF-8.
    #[error("byte {at}: string is not UTF-8")]
    Utf8 {
        /// Where its first character stands.
        at: usize,
    },
    /// More elements than [`MAX_ELEMENTS`](super::MAX_ELEMENTS) in all arrays and tagged fields.
    #[error("byte {at}: more than {limit} elements in one request", limit = super::MAX_ELEMENTS)]
    TooManyElements {
        /// Where the budget ran out.
        at: usize,
    },
    /// A tagged field that later versions define and this one does not.
    #[error("byte {at}: tag {tag} is not valid in this version")]
    Tag {
        /// Where the tag stands.
        at: usize,
        /// Its number.
        tag: u32,
    },
    /// A known tagged field whose contents do not take the bytes it says.
    #[error("byte {at}: tag {tag} says {size} bytes, its field takes {taken}")]
    TagSize {
        /// Where the field's contents begin.
        at: usize,
        /// Its number.
        tag: u32,
        /// Bytes it says it has.
        size: usize,
        /// Bytes it takes.
        taken: usize,
    },
}
