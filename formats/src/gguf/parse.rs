//! Reads the primitive parts of a GGUF header from bytes that may be hostile. No read goes past the end, and
//! nothing is allocated for a count until the bytes that it promises are known to exist.

use std::path::Path;

use super::{Array, Value};
use crate::error::{Error, FETCH_AGAIN, Result, quoted};

/// A position in the file's bytes.
pub(super) struct Cursor<'a> {
    pub(super) path: &'a Path,
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

/// Builds the vector of an array: `$count` little-endian numbers of type `$type`.
macro_rules! numbers {
    ($cursor:expr, $variant:ident, $type:ty, $count:expr, $place:expr) => {{
        const SIZE: usize = size_of::<$type>();
        let bytes = $cursor.take_many($count, SIZE, $place)?;
        Array::$variant(
            bytes.as_chunks::<SIZE>().0.iter().map(|bytes| <$type>::from_le_bytes(*bytes)).collect(),
        )
    }};
}

impl<'a> Cursor<'a> {
    /// An error at the current byte of `place`.
    pub(super) fn malformed(&self, place: &str, problem: impl Into<String>) -> Error {
        Error::malformed(self.path, format!("{place} at byte {}", self.at), problem, FETCH_AGAIN)
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `length` bytes.
    fn take(&mut self, length: usize, place: &str) -> Result<&'a [u8]> {
        if length > self.remaining() {
            let problem =
                format!("{length} bytes are promised, but only {} remain in the file", self.remaining());
            return Err(self.malformed(place, problem));
        }
        let bytes = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(bytes)
    }

    /// The next `count * size` bytes.
    fn take_many(&mut self, count: u64, size: usize, place: &str) -> Result<&'a [u8]> {
        self.check_count(count, size, place)?;
        self.take(count as usize * size, place)
    }

    /// Checks that `count` items of at least `size` bytes each can follow, so that a vector of them may be
    /// allocated.
    pub(super) fn check_count(&self, count: u64, size: usize, place: &str) -> Result<()> {
        let room = self.remaining() / size;
        if count > room as u64 {
            return Err(self
                .malformed(place, format!("{count} items are promised and at most {room} fit in the file")));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self, place: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, place)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, place: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(place)?))
    }

    pub(super) fn u64(&mut self, place: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(place)?))
    }

    pub(super) fn string(&mut self, place: &str) -> Result<String> {
        let start = self.at;
        let length = self.u64(place)?;
        let bytes = self.take_many(length, 1, place)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(Error::malformed(
                self.path,
                format!("{place} at byte {start}"),
                format!("a text is not UTF-8 ({error})"),
                "convert the model again with a converter that writes UTF-8",
            )),
        }
    }

    fn bool(&self, byte: u8, place: &str) -> Result<bool> {
        match byte {
            0 | 1 => Ok(byte == 1),
            _ => Err(self.malformed(place, format!("a truth value is {byte} and must be 0 or 1"))),
        }
    }

    /// The value of `key`: its type, then itself.
    pub(super) fn value(&mut self, key: &str) -> Result<Value> {
        let place = format!("key {}", quoted(key));
        let place = place.as_str();
        Ok(match self.u32(place)? {
            0 => Value::U8(u8::from_le_bytes(self.array(place)?)),
            1 => Value::I8(i8::from_le_bytes(self.array(place)?)),
            2 => Value::U16(u16::from_le_bytes(self.array(place)?)),
            3 => Value::I16(i16::from_le_bytes(self.array(place)?)),
            4 => Value::U32(u32::from_le_bytes(self.array(place)?)),
            5 => Value::I32(i32::from_le_bytes(self.array(place)?)),
            6 => Value::F32(f32::from_le_bytes(self.array(place)?)),
            7 => {
                let [byte] = self.array(place)?;
                Value::Bool(self.bool(byte, place)?)
            }
            8 => Value::String(self.string(place)?),
            9 => Value::Array(self.values(place)?),
            10 => Value::U64(u64::from_le_bytes(self.array(place)?)),
            11 => Value::I64(i64::from_le_bytes(self.array(place)?)),
            12 => Value::F64(f64::from_le_bytes(self.array(place)?)),
            other => return Err(self.malformed(place, format!("value type {other} does not exist"))),
        })
    }

    /// An array: element type, count, elements.
    fn values(&mut self, place: &str) -> Result<Array> {
        let kind = self.u32(place)?;
        let count = self.u64(place)?;
        Ok(match kind {
            0 => numbers!(self, U8, u8, count, place),
            1 => numbers!(self, I8, i8, count, place),
            2 => numbers!(self, U16, u16, count, place),
            3 => numbers!(self, I16, i16, count, place),
            4 => numbers!(self, U32, u32, count, place),
            5 => numbers!(self, I32, i32, count, place),
            6 => numbers!(self, F32, f32, count, place),
            7 => {
                let bytes = self.take_many(count, 1, place)?;
                Array::Bool(bytes.iter().map(|&byte| self.bool(byte, place)).collect::<Result<_>>()?)
            }
            8 => {
                self.check_count(count, 8, place)?;
                Array::String((0..count).map(|_| self.string(place)).collect::<Result<_>>()?)
            }
            9 => {
                return Err(Error::unsupported(
                    self.path,
                    place,
                    "the value is an array of arrays",
                    "remove the key with gguf_set_metadata.py; llama.cpp does not read such files either",
                ));
            }
            10 => numbers!(self, U64, u64, count, place),
            11 => numbers!(self, I64, i64, count, place),
            12 => numbers!(self, F64, f64, count, place),
            other => return Err(self.malformed(place, format!("array element type {other} does not exist"))),
        })
    }
}
