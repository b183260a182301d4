//! Writes requests from their schemas.

use crate::guard::schema::{Api, Field, Kind, Nullable};

/// Writes requests by schema, each choice taken from a tape.
struct Writer<'a> {
    tape: std::iter::Cycle<std::slice::Iter<'a, u8>>,
    out: Vec<u8>,
    version: i16,
    flexible: bool,
}

/// A request of `api` in `version`, chosen by `tape`, in the one form that an encoder writes.
pub(super) fn written(api: &Api, version: i16, tape: &[u8]) -> Vec<u8> {
    let mut writer = Writer {
        tape: tape.iter().cycle(),
        out: Vec::new(),
        version,
        flexible: version >= api.flexible,
    };
    writer.fields(api.fields, 0);
    writer.out
}

impl Writer<'_> {
    fn draw(&mut self, below: u8) -> u8 {
        self.tape.next().copied().unwrap_or_default() % below
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// A length of `wide` bytes, or compact.
    fn length(&mut self, length: Option<usize>, wide: usize) {
        let length = length.map_or(-1, |n| i32::try_from(n).expect("small"));
        if self.flexible {
            self.varint((length + 1) as u32);
        } else {
            self.out.extend_from_slice(&length.to_be_bytes()[4 - wide..]);
        }
    }

    fn is_null(&mut self, nullable: Nullable) -> bool {
        nullable == Nullable::Yes && self.draw(4) == 0
    }

    fn fields(&mut self, fields: &[Field], depth: usize) {
        for field in fields.iter().filter(|f| f.tag.is_none()) {
            if (field.from..=field.to).contains(&self.version) {
                self.kind(&field.kind, depth);
            }
        }
        if self.flexible {
            self.tags(fields, depth);
        }
    }

    fn tags(&mut self, fields: &[Field], depth: usize) {
        let mut tags: Vec<(u32, Vec<u8>)> = Vec::new();
        for field in fields {
            let Some(tag) = field.tag else { continue };
            if (field.from..=field.to).contains(&self.version) && self.draw(2) == 1 {
                let outer = std::mem::take(&mut self.out);
                match field.kind {
                    // Null is the default, which an encoder leaves out.
                    Kind::Str(_) => self.kind(&Kind::Str(Nullable::No), depth),
                    ref kind => self.kind(kind, depth),
                }
                tags.push((tag, std::mem::replace(&mut self.out, outer)));
            }
        }
        for tag in 0..u32::from(self.draw(3)) {
            let size = usize::from(self.draw(200));
            tags.push((100 + 1000 * tag, vec![7; size]));
        }
        self.varint(tags.len() as u32);
        for (tag, contents) in tags {
            self.varint(tag);
            self.varint(contents.len() as u32);
            self.out.extend_from_slice(&contents);
        }
    }

    fn kind(&mut self, kind: &Kind, depth: usize) {
        match *kind {
            Kind::Fixed(1) => {
                let byte = self.draw(2);
                self.out.push(byte);
            }
            // Odd bytes below 0x7f: never a field's default.
            Kind::Fixed(size) => {
                for _ in 0..size {
                    let byte = self.draw(0x7e) | 1;
                    self.out.push(byte);
                }
            }
            Kind::Str(nullable) | Kind::Bytes(nullable) => {
                let wide = if matches!(kind, Kind::Str(_)) { 2 } else { 4 };
                if self.is_null(nullable) {
                    self.length(None, wide);
                } else {
                    // Lengths on both sides of a varint's first byte.
                    let length = usize::from(self.draw(150));
                    self.length(Some(length), wide);
                    self.out.resize(self.out.len() + length, b'x');
                }
            }
            Kind::Array(nullable, element) => {
                if self.is_null(nullable) {
                    self.length(None, 4);
                } else {
                    let count = if depth > 2 { 1 } else { self.draw(4) };
                    self.length(Some(usize::from(count)), 4);
                    for _ in 0..count {
                        self.kind(element, depth + 1);
                    }
                }
            }
            Kind::Struct(fields) => self.fields(fields, depth),
            Kind::OptionalStruct(fields) => {
                if self.draw(2) == 0 {
                    self.out.push(0xff);
                } else {
                    self.out.push(1);
                    self.fields(fields, depth);
                }
            }
        }
    }
}
