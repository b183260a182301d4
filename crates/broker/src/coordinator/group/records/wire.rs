//! Reads and writes the primitive types of Kafka's schemas, within the bytes that are there.

use super::{super::ids::fits, RecordError};

/// Walks foreign bytes; every length is checked against what is left before it is believed.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Whether strings, bytes and arrays have the compact form, and structures end in tagged fields.
    pub(super) flexible: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            flexible: false,
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(RecordError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(RecordError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn i16(&mut self) -> Result<i16, RecordError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    /// An unsigned number of at most 32 bits, seven to a byte.
    fn varint(&mut self) -> Result<u32, RecordError> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| RecordError::Length);
            }
        }
        Err(RecordError::Length)
    }

    /// The length of what follows in the compact form: one more than it is, 0 for null.
    fn compact_length(&mut self) -> Result<Option<usize>, RecordError> {
        Ok((self.varint()? as usize).checked_sub(1))
    }

    /// `None` for a length of −1.
    fn length(length: i32) -> Result<Option<usize>, RecordError> {
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| RecordError::Length),
        }
    }

    /// A string that may be null.
    pub(super) fn nullable_string(&mut self) -> Result<Option<&'a str>, RecordError> {
        let length = if self.flexible {
            self.compact_length()?
        } else {
            let length = self.i16()?;
            Self::length(length.into())?
        };
        let Some(length) = length else {
            return Ok(None);
        };
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| RecordError::Utf8)?;
        // The compact form holds longer ones, which could not be written again.
        if fits(text) {
            Ok(Some(text))
        } else {
            Err(RecordError::Length)
        }
    }

    pub(super) fn string(&mut self) -> Result<&'a str, RecordError> {
        self.nullable_string()?.ok_or(RecordError::Null)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let length = if self.flexible {
            self.compact_length()?
        } else {
            let length = self.i32()?;
            Self::length(length)?
        };
        self.take(length.ok_or(RecordError::Null)?)
    }

    /// How many elements follow. They are not counted against the bytes: nothing may be reserved
    /// for them beforehand.
    pub(super) fn count(&mut self) -> Result<usize, RecordError> {
        let count = if self.flexible {
            self.compact_length()?
        } else {
            let count = self.i32()?;
            Self::length(count)?
        };
        count.ok_or(RecordError::Null)
    }

    /// Steps over tagged fields, none of which means anything to this version (KIP-482).
    pub(super) fn tagged_fields(&mut self) -> Result<(), RecordError> {
        if self.flexible {
            for _ in 0..self.varint()? {
                self.varint()?;
                let size = self.varint()? as usize;
                self.take(size)?;
            }
        }
        Ok(())
    }

    /// Ends the walk; nothing may be left over.
    pub(super) fn end(self) -> Result<(), RecordError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(RecordError::LeftOver)
        }
    }
}

/// Writes the forms of the versions that are not flexible: no version that is written is.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn i16(&mut self, value: i16) {
        self.0.extend(value.to_be_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.0.extend(value.to_be_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.0.extend(value.to_be_bytes());
    }

    pub(super) fn string(&mut self, text: &str) {
        self.i16(i16::try_from(text.len()).expect("longer strings are refused where they come in"));
        self.0.extend(text.as_bytes());
    }

    pub(super) fn nullable_string(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None => self.i16(-1),
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.i32(i32::try_from(bytes.len()).expect("a frame is smaller"));
        self.0.extend(bytes);
    }

    pub(super) fn finish(self) -> bytes::Bytes {
        self.0.into()
    }
}
