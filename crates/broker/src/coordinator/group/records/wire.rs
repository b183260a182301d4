//! Reads and writes the primitive types of Kafka's schemas, within the bytes that are there.

use uuid::Uuid;

use super::{super::ids::fits, RecordError};

/// Walks foreign bytes; every length is checked against what is left before it is believed.
#[derive(Debug)]
pub(in crate::coordinator::group) struct Reader<'a> {
    rest: &'a [u8],
    /// Whether strings, bytes and arrays have the compact form, and structures end in tagged fields.
    pub(in crate::coordinator::group) flexible: bool,
}

impl<'a> Reader<'a> {
    pub(in crate::coordinator::group) fn new(bytes: &'a [u8]) -> Self {
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

    pub(in crate::coordinator::group) fn i8(&mut self) -> Result<i8, RecordError> {
        self.array().map(i8::from_be_bytes)
    }

    pub(in crate::coordinator::group) fn i16(&mut self) -> Result<i16, RecordError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(in crate::coordinator::group) fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(in crate::coordinator::group) fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(in crate::coordinator::group) fn uuid(&mut self) -> Result<Uuid, RecordError> {
        self.array().map(Uuid::from_bytes)
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
    pub(in crate::coordinator::group) fn nullable_string(&mut self) -> Result<Option<&'a str>, RecordError> {
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

    pub(in crate::coordinator::group) fn string(&mut self) -> Result<&'a str, RecordError> {
        self.nullable_string()?.ok_or(RecordError::Null)
    }

    /// Bytes that may be null.
    pub(in crate::coordinator::group) fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, RecordError> {
        let length = if self.flexible {
            self.compact_length()?
        } else {
            let length = self.i32()?;
            Self::length(length)?
        };
        length.map(|length| self.take(length)).transpose()
    }

    pub(in crate::coordinator::group) fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        self.nullable_bytes()?.ok_or(RecordError::Null)
    }

    /// How many elements follow. They are not counted against the bytes: nothing may be reserved
    /// for them beforehand.
    pub(in crate::coordinator::group) fn count(&mut self) -> Result<usize, RecordError> {
        let count = if self.flexible {
            self.compact_length()?
        } else {
            let count = self.i32()?;
            Self::length(count)?
        };
        count.ok_or(RecordError::Null)
    }

    /// Steps over tagged fields, none of which means anything to this version (KIP-482).
    pub(in crate::coordinator::group) fn tagged_fields(&mut self) -> Result<(), RecordError> {
        self.known_tagged_fields(|_, _| Ok(()))
    }

    /// Walks tagged fields; those that mean nothing to `field` are to be passed over.
    pub(in crate::coordinator::group) fn known_tagged_fields(
        &mut self,
        mut field: impl FnMut(u32, Self) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        if self.flexible {
            for _ in 0..self.varint()? {
                let tag = self.varint()?;
                let size = self.varint()? as usize;
                let content = Reader {
                    rest: self.take(size)?,
                    flexible: true,
                };
                field(tag, content)?;
            }
        }
        Ok(())
    }

    /// Ends the walk; nothing may be left over.
    pub(in crate::coordinator::group) fn end(self) -> Result<(), RecordError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(RecordError::LeftOver)
        }
    }
}

/// Writes the primitive types. What is too long for a record is refused where it comes in.
#[derive(Debug, Default)]
pub(in crate::coordinator::group) struct Writer {
    written: Vec<u8>,
    /// As [`Reader::flexible`].
    pub(in crate::coordinator::group) flexible: bool,
}

impl Writer {
    pub(in crate::coordinator::group) fn i8(&mut self, value: i8) {
        self.written.extend(value.to_be_bytes());
    }

    pub(in crate::coordinator::group) fn i16(&mut self, value: i16) {
        self.written.extend(value.to_be_bytes());
    }

    pub(in crate::coordinator::group) fn i32(&mut self, value: i32) {
        self.written.extend(value.to_be_bytes());
    }

    pub(in crate::coordinator::group) fn i64(&mut self, value: i64) {
        self.written.extend(value.to_be_bytes());
    }

    pub(in crate::coordinator::group) fn uuid(&mut self, value: Uuid) {
        self.written.extend(value.as_bytes());
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.written.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.written.push(value as u8);
    }

    /// A length in the compact form: one more than it is.
    fn compact_length(&mut self, length: usize) {
        self.varint(u32::try_from(length + 1).expect("a frame is smaller"));
    }

    pub(in crate::coordinator::group) fn string(&mut self, text: &str) {
        if self.flexible {
            self.compact_length(text.len());
        } else {
            self.i16(i16::try_from(text.len()).expect("longer strings are refused where they come in"));
        }
        self.written.extend(text.as_bytes());
    }

    pub(in crate::coordinator::group) fn nullable_string(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None if self.flexible => self.varint(0),
            None => self.i16(-1),
        }
    }

    pub(in crate::coordinator::group) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.written.extend(bytes);
    }

    /// In place of bytes.
    pub(in crate::coordinator::group) fn null_bytes(&mut self) {
        if self.flexible {
            self.varint(0);
        } else {
            self.i32(-1);
        }
    }

    /// How many elements, or bytes, follow.
    pub(in crate::coordinator::group) fn count(&mut self, count: usize) {
        if self.flexible {
            self.compact_length(count);
        } else {
            self.i32(i32::try_from(count).expect("a frame is smaller"));
        }
    }

    /// Ends a structure without tagged fields.
    pub(in crate::coordinator::group) fn no_tagged_fields(&mut self) {
        self.varint(0);
    }

    /// Ends a structure with one tagged field.
    pub(in crate::coordinator::group) fn tagged_field(&mut self, tag: u32, content: impl FnOnce(&mut Self)) {
        let mut field = Self {
            written: Vec::new(),
            flexible: true,
        };
        content(&mut field);
        self.varint(1);
        self.varint(tag);
        self.varint(u32::try_from(field.written.len()).expect("a frame is smaller"));
        self.written.extend(field.written);
    }

    pub(in crate::coordinator::group) fn finish(self) -> bytes::Bytes {
        self.written.into()
    }
}
