//! Protobuf's wire format, read from bytes that may be hostile: the fields of a message and their positions.

use std::ops::Range;
use std::path::Path;

use crate::error::{Error, FETCH_AGAIN, Result};

/// The bytes of a whole file, with its path for errors.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) bytes: &'a [u8],
}

/// A message within the file.
#[derive(Clone)]
pub(super) struct Message<'a> {
    pub(super) source: Source<'a>,
    /// The name of its type in onnx.proto, for errors.
    pub(super) kind: &'static str,
    /// Its bytes, without key and length.
    pub(super) range: Range<usize>,
}

/// One field of a message.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// From its key to its last byte.
    pub(super) range: Range<usize>,
    pub(super) value: Value,
}

/// The content of a field, as far as the wire format tells.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// The bytes of a text, a message or packed numbers.
    Bytes(Range<usize>),
}

impl Value {
    fn wire_name(&self) -> &'static str {
        match self {
            Value::Varint(_) => "a varint",
            Value::Fixed64(_) => "8 fixed bytes",
            Value::Fixed32(_) => "4 fixed bytes",
            Value::Bytes(_) => "bytes with a length",
        }
    }
}

/// Reads a varint at `at` of `bytes`: its value and the position after it. `None` if the bytes end first or
/// it has more than 64 bits.
pub(super) fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, &byte) in bytes.get(at..)?.iter().take(10).enumerate() {
        if index == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, at + index + 1));
        }
    }
    None
}

impl<'a> Source<'a> {
    /// The file as one message.
    pub(super) fn message(self, kind: &'static str) -> Message<'a> {
        Message { source: self, kind, range: 0..self.bytes.len() }
    }

    /// The varints in a range, one after another.
    pub(super) fn varints(
        self,
        kind: &'static str,
        range: Range<usize>,
    ) -> impl Iterator<Item = Result<u64>> + use<'a> {
        let (bytes, mut at) = (&self.bytes[..range.end], range.start);
        std::iter::from_fn(move || {
            if at >= bytes.len() {
                return None;
            }
            let Some((value, end)) = varint(bytes, at) else {
                let place = format!("{kind} at byte {at}");
                at = bytes.len();
                return Some(Err(Error::malformed(self.path, place, "a number does not end", FETCH_AGAIN)));
            };
            at = end;
            Some(Ok(value))
        })
    }
}

impl<'a> Message<'a> {
    /// An error of this message.
    pub(super) fn malformed(&self, problem: impl Into<String>) -> Error {
        self.malformed_at(self.range.start, problem)
    }

    fn malformed_at(&self, at: usize, problem: impl Into<String>) -> Error {
        let place = format!("{} at byte {at}", self.kind);
        Error::malformed(self.source.path, place, problem, FETCH_AGAIN)
    }

    /// Its fields in order, up to the first error.
    pub(super) fn fields(&self) -> impl Iterator<Item = Result<Field>> + use<'a, '_> {
        let mut at = self.range.start;
        std::iter::from_fn(move || {
            if at >= self.range.end {
                return None;
            }
            let field = self.field_at(at);
            at = field.as_ref().map_or(self.range.end, |field| field.range.end);
            Some(field)
        })
    }

    fn field_at(&self, start: usize) -> Result<Field> {
        // Nothing is read beyond the message, even if the file is longer.
        let bytes = &self.source.bytes[..self.range.end];
        let cut = || self.malformed_at(start, "a field goes past the end of its message");
        let (key, at) = varint(bytes, start).ok_or_else(cut)?;
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number =
            number.ok_or_else(|| self.malformed_at(start, format!("{} is not a field number", key >> 3)))?;
        let (value, end) = match key & 7 {
            0 => {
                let (value, end) = varint(bytes, at).ok_or_else(cut)?;
                (Value::Varint(value), end)
            }
            1 => {
                let value = bytes[at..].first_chunk().ok_or_else(cut)?;
                (Value::Fixed64(u64::from_le_bytes(*value)), at + 8)
            }
            2 => {
                let (length, at) = varint(bytes, at).ok_or_else(cut)?;
                let remaining = bytes.len() - at;
                let Some(length) = usize::try_from(length).ok().filter(|&length| length <= remaining) else {
                    let problem =
                        format!("field {number} is said to have {length} bytes, but {remaining} remain");
                    return Err(self.malformed_at(start, problem));
                };
                (Value::Bytes(at..at + length), at + length)
            }
            5 => {
                let value = bytes[at..].first_chunk().ok_or_else(cut)?;
                (Value::Fixed32(u32::from_le_bytes(*value)), at + 4)
            }
            wire => {
                let problem = format!("field {number} has wire type {wire}, which ONNX does not use");
                return Err(self.malformed_at(start, problem));
            }
        };
        Ok(Field { number, range: start..end, value })
    }

    fn wrong(&self, field: &Field, wanted: &str) -> Error {
        let problem = format!("field {} is {} and must be {wanted}", field.number, field.value.wire_name());
        self.malformed_at(field.range.start, problem)
    }

    /// The bytes of a field.
    pub(super) fn bytes(&self, field: &Field) -> Result<Range<usize>> {
        match &field.value {
            Value::Bytes(range) => Ok(range.clone()),
            _ => Err(self.wrong(field, "bytes with a length")),
        }
    }

    /// A field that is a message of type `kind`.
    pub(super) fn message(&self, field: &Field, kind: &'static str) -> Result<Message<'a>> {
        Ok(Message { source: self.source, kind, range: self.bytes(field)? })
    }

    /// A field that is a text.
    pub(super) fn text(&self, field: &Field) -> Result<&'a str> {
        std::str::from_utf8(&self.source.bytes[self.bytes(field)?]).map_err(|error| {
            let problem = format!("field {}: a text is not UTF-8 ({error})", field.number);
            self.malformed_at(field.range.start, problem)
        })
    }

    /// A field that is an integer.
    pub(super) fn int(&self, field: &Field) -> Result<i64> {
        match field.value {
            // Negative numbers are written as their 64 bits.
            Value::Varint(value) => Ok(value as i64),
            _ => Err(self.wrong(field, "a varint")),
        }
    }

    /// A field that is a float.
    pub(super) fn float(&self, field: &Field) -> Result<f32> {
        match field.value {
            Value::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(self.wrong(field, "4 fixed bytes")),
        }
    }

    /// Appends the integers of a repeated field, packed or one to a field.
    pub(super) fn push_ints(&self, field: &Field, ints: &mut Vec<i64>) -> Result<()> {
        match &field.value {
            Value::Varint(value) => ints.push(*value as i64),
            Value::Bytes(range) => {
                for value in self.source.varints(self.kind, range.clone()) {
                    ints.push(value? as i64);
                }
            }
            _ => return Err(self.wrong(field, "varints")),
        }
        Ok(())
    }

    /// Appends the floats of a repeated field, packed or one to a field.
    pub(super) fn push_floats(&self, field: &Field, floats: &mut Vec<f32>) -> Result<()> {
        match &field.value {
            Value::Fixed32(bits) => floats.push(f32::from_bits(*bits)),
            Value::Bytes(range) => {
                let (values, rest) = self.source.bytes[range.clone()].as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(self.wrong(field, "floats of 4 bytes each"));
                }
                floats.extend(values.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            }
            _ => return Err(self.wrong(field, "floats")),
        }
        Ok(())
    }

    /// Sets a field that may occur once. In protobuf the last one wins, or messages are merged; no writer of
    /// models relies on that, and replacing the bytes of a field needs one position for it.
    pub(super) fn once<T>(&self, field: &Field, slot: &mut Option<T>, value: T) -> Result<()> {
        if slot.replace(value).is_some() {
            return Err(self.malformed_at(field.range.start, format!("field {} occurs twice", field.number)));
        }
        Ok(())
    }
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field that is a varint.
pub(super) fn put_int(out: &mut Vec<u8>, number: u32, value: i64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value as u64);
}

/// Appends a field that is a float.
pub(super) fn put_float(out: &mut Vec<u8>, number: u32, value: f32) {
    put_varint(out, u64::from(number) << 3 | 5);
    out.extend(value.to_le_bytes());
}

/// Appends key and length of a field of `length` bytes, which follow.
pub(super) fn put_head(out: &mut Vec<u8>, number: u32, length: u64) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, length);
}

/// Appends a field that is bytes, a text or a message.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_head(out, number, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_lead_back_and_end_at_64_bits() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), 1 << 63, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(varint(&bytes, 0), Some((value, bytes.len())));
            assert_eq!(varint(&bytes[..bytes.len() - 1], 0), None);
        }
        // A number may be written longer than necessary, but in at most ten bytes.
        assert_eq!(varint(&[0x81, 0x80, 0], 0), Some((1, 3)));
        assert_eq!(varint(&[[0xff; 9].as_slice(), &[2]].concat(), 0), None);
        assert_eq!(varint(&[0x80; 11], 0), None);
        assert_eq!(varint(&[], 1), None);
    }
}
