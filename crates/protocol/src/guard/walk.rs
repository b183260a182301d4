//! Walks a request by its schema, checking every length and count against the bytes left.

use super::{
    GuardError,
    schema::{Api, Field, Kind, Nullable},
};

/// Elements that all arrays of one request may have together, those of fixed size apart (decoded
/// they take no more memory than on the wire). An unknown tagged field counts as
/// four of them. A decoded element takes at most 128 bytes, so that one request decodes into some
/// 32 MB beside its frame.
pub const MAX_ELEMENTS: usize = 1 << 18;

/// What an unknown tagged field costs in elements: the first one of a struct makes the decoder
/// allocate a map node of eleven entries.
const TAG_COST: usize = 4;

/// Checks that `body` begins with one request by `api`'s schema in `version`, which it has, and
/// tells the bytes it takes.
pub(super) fn check(api: &Api, version: i16, body: &[u8]) -> Result<usize, GuardError> {
    let mut walker = Walker::new(body);
    let dialect = Dialect {
        version,
        flexible: version >= api.flexible,
    };
    walker.fields(api.fields, dialect)?;
    Ok(walker.at())
}

/// What of the version decides how a field is read.
#[derive(Clone, Copy)]
struct Dialect {
    version: i16,
    flexible: bool,
}

/// A position in foreign bytes that only moves over what is there.
pub(super) struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Elements that may still come.
    budget: usize,
}

impl<'a> Walker<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            budget: MAX_ELEMENTS,
        }
    }

    /// Bytes walked over.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, needed: usize) -> Result<&'a [u8], GuardError> {
        let left = self.left();
        if needed > left {
            return Err(GuardError::Truncated {
                at: self.at,
                needed,
                left,
            });
        }
        let taken = &self.bytes[self.at..self.at + needed];
        self.at += needed;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], GuardError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// A nullable string or bytes after a big-endian i16 length.
    pub(super) fn short_bytes(&mut self) -> Result<Option<&'a [u8]>, GuardError> {
        let at = self.at;
        let length = i32::from(i16::from_be_bytes(self.array()?));
        self.sized(at, length)
    }

    fn sized(&mut self, at: usize, length: i32) -> Result<Option<&'a [u8]>, GuardError> {
        match length {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| GuardError::Length { at, length })?;
                self.take(length).map(Some)
            }
        }
    }

    fn unsigned_varint(&mut self) -> Result<u32, GuardError> {
        let at = self.at;
        let mut value = 0_u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(GuardError::Varint { at })
    }

    /// A compact length or count: one more than it is, 0 for null.
    fn compact_length(&mut self) -> Result<Option<usize>, GuardError> {
        Ok(self.unsigned_varint()?.checked_sub(1).map(|n| n as usize))
    }

    fn compact_bytes(&mut self) -> Result<Option<&'a [u8]>, GuardError> {
        match self.compact_length()? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    /// A count of elements, each of which takes at least a byte.
    fn count(&mut self, flexible: bool) -> Result<Option<usize>, GuardError> {
        let at = self.at;
        let count = if flexible {
            self.compact_length()?
        } else {
            match i32::from_be_bytes(self.array()?) {
                -1 => None,
                length => Some(usize::try_from(length).map_err(|_| GuardError::Length { at, length })?),
            }
        };
        match count {
            Some(needed) if needed > self.left() => Err(GuardError::Truncated {
                at: self.at,
                needed,
                left: self.left(),
            }),
            count => Ok(count),
        }
    }

    fn spend(&mut self, elements: usize) -> Result<(), GuardError> {
        match self.budget.checked_sub(elements) {
            Some(rest) => {
                self.budget = rest;
                Ok(())
            }
            None => Err(GuardError::TooManyElements { at: self.at }),
        }
    }

    fn fields(&mut self, fields: &[Field], dialect: Dialect) -> Result<(), GuardError> {
        for field in fields {
            if field.tag.is_none() && (field.from..=field.to).contains(&dialect.version) {
                self.kind(&field.kind, dialect)?;
            }
        }
        if dialect.flexible {
            self.tags(fields, dialect)?;
        }
        Ok(())
    }

    fn kind(&mut self, kind: &Kind, dialect: Dialect) -> Result<(), GuardError> {
        let at = self.at;
        match *kind {
            Kind::Fixed(size) => {
                self.take(size)?;
            }
            Kind::Str(nullable) => {
                let bytes = if dialect.flexible {
                    self.compact_bytes()?
                } else {
                    self.short_bytes()?
                };
                match bytes {
                    None => refuse_null(nullable, at)?,
                    Some(bytes) if std::str::from_utf8(bytes).is_err() => {
                        return Err(GuardError::Utf8 {
                            at: self.at - bytes.len(),
                        });
                    }
                    Some(_) => {}
                }
            }
            Kind::Bytes(nullable) => {
                let bytes = if dialect.flexible {
                    self.compact_bytes()?
                } else {
                    let length = i32::from_be_bytes(self.array()?);
                    self.sized(at, length)?
                };
                if bytes.is_none() {
                    refuse_null(nullable, at)?;
                }
            }
            Kind::Array(nullable, element) => match (self.count(dialect.flexible)?, element) {
                (None, _) => refuse_null(nullable, at)?,
                (Some(count), Kind::Fixed(size)) => {
                    self.take(count.saturating_mul(*size))?;
                }
                (Some(count), _) => {
                    self.spend(count)?;
                    for _ in 0..count {
                        self.kind(element, dialect)?;
                    }
                }
            },
            Kind::Struct(fields) => self.fields(fields, dialect)?,
            Kind::OptionalStruct(fields) => {
                if self.array()? == [1] {
                    self.fields(fields, dialect)?;
                }
            }
        }
        Ok(())
    }

    /// The tagged section at the end of a struct. A known tag's contents must take exactly the
    /// bytes it says: the decoder does not look at that size, and would go on elsewhere than we.
    fn tags(&mut self, fields: &[Field], dialect: Dialect) -> Result<(), GuardError> {
        for _ in 0..self.unsigned_varint()? {
            let tag_at = self.at;
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            let Some(field) = fields.iter().find(|field| field.tag == Some(tag)) else {
                self.spend(TAG_COST)?;
                self.take(size)?;
                continue;
            };
            if !(field.from..=field.to).contains(&dialect.version) {
                return Err(GuardError::Tag { at: tag_at, tag });
            }
            let at = self.at;
            self.kind(&field.kind, dialect)?;
            let taken = self.at - at;
            if taken != size {
                return Err(GuardError::TagSize { at, tag, size, taken });
            }
        }
        Ok(())
    }

    /// A tagged section of which nothing is known, as in a request header.
    pub(super) fn unknown_tags(&mut self) -> Result<(), GuardError> {
        for _ in 0..self.unsigned_varint()? {
            self.spend(TAG_COST)?;
            self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            self.take(size)?;
        }
        Ok(())
    }
}

fn refuse_null(nullable: Nullable, at: usize) -> Result<(), GuardError> {
    match nullable {
        Nullable::Yes => Ok(()),
        Nullable::No => Err(GuardError::Null { at }),
    }
}
