//! How deep a file's schema is nested. The parquet crate walks it by recursion, whatever its depth.
//!
//! The footer is a FileMetaData of parquet.thrift in Thrift's compact protocol; its field 2 lists the elements
//! of the schema, of which field 5 is the number of children.

use parquet::file::reader::{ChunkReader, Length};

use super::chunks::Chunks;

/// No data set is nested as deep.
const MOST: usize = 64;
const END: &str = "the metadata end too early";
const DEEP: &str = "its schema is nested deeper than any data set's";

/// Fails if the schema of a file is nested deeper than [`MOST`].
pub(super) fn check(chunks: &Chunks) -> Result<(), String> {
    let read = |start: u64, bytes| chunks.get_bytes(start, bytes).map_err(|error| error.to_string());
    let tail = chunks.len().checked_sub(8).ok_or("it is cut short")?;
    let end = read(tail, 8)?;
    if &end[4..] != b"PAR1" {
        return Err("it does not end like a Parquet file: it is cut short, or encrypted".into());
    }
    let length = u32::from_le_bytes([end[0], end[1], end[2], end[3]]);
    let start = tail.checked_sub(length.into()).ok_or("its metadata are longer than the file")?;
    let footer = read(start, length as usize)?;
    let mut input = Input(&footer);
    let mut deepest = Ok(());
    input.each_field(0, &mut |input, field, kind| {
        if (field, kind) != (2, LIST) {
            return input.skip(kind, 0);
        }
        let (count, kind) = input.list()?;
        if kind != STRUCT {
            return Err("its schema is no list of elements".into());
        }
        // Children that are still to come, on each level.
        let mut open: Vec<u64> = Vec::new();
        for _ in 0..count {
            let mut children = 0;
            input.each_field(0, &mut |input, field, kind| match (field, kind) {
                (5, I32) => input.number().map(|n| children = n >> 1),
                _ => input.skip(kind, 0),
            })?;
            if let Some(left) = open.last_mut() {
                *left = left.saturating_sub(1);
            }
            if children > 0 {
                open.push(children);
            }
            if open.len() > MOST {
                deepest = Err(DEEP.to_owned());
            }
            while open.last() == Some(&0) {
                open.pop();
            }
        }
        Ok(())
    })?;
    deepest
}

/// Types of the compact protocol.
const I32: u8 = 5;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// Bytes of the compact protocol.
struct Input<'b>(&'b [u8]);

/// What is done with a field of this number and type.
type EachField<'f> = dyn FnMut(&mut Input<'_>, i64, u8) -> Result<(), String> + 'f;

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let (first, rest) = self.0.split_first().ok_or(END)?;
        self.0 = rest;
        Ok(*first)
    }

    fn pass(&mut self, bytes: u64) -> Result<(), String> {
        let bytes = usize::try_from(bytes).map_err(|_| END)?;
        self.0 = self.0.get(bytes..).ok_or(END)?;
        Ok(())
    }

    /// A number of variable length.
    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number of its metadata is too long".into())
    }

    /// The length of a list, and the type of its elements.
    fn list(&mut self) -> Result<(u64, u8), String> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.number()? } else { u64::from(head >> 4) };
        Ok((count, head & 15))
    }

    /// Calls `work` with each field of a struct, to read or skip it.
    fn each_field(&mut self, depth: usize, work: &mut EachField<'_>) -> Result<(), String> {
        if depth > MOST {
            return Err(DEEP.into());
        }
        let mut field = 0i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            field = match head >> 4 {
                0 => {
                    let zigzag = self.number()?;
                    (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
                }
                step => field.saturating_add(step.into()),
            };
            work(self, field, head & 15)?;
        }
    }

    /// Passes a value of this type.
    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), String> {
        if depth > MOST {
            return Err(DEEP.into());
        }
        match kind {
            // True and false, which a field's type says.
            1 | 2 => Ok(()),
            3 => self.pass(1),
            4..=6 => self.number().map(|_| ()),
            7 => self.pass(8),
            8 => {
                let bytes = self.number()?;
                self.pass(bytes)
            }
            9 | 10 => {
                let (count, kind) = self.list()?;
                // In a list, truth takes a byte.
                let kind = if kind <= 2 { 3 } else { kind };
                (0..count).try_for_each(|_| self.skip(kind, depth + 1))
            }
            11 => {
                let count = self.number()?;
                let kinds = if count > 0 { self.byte()? } else { 0 };
                let kind = |kind: u8| if kind <= 2 { 3 } else { kind };
                (0..count).try_for_each(|_| {
                    self.skip(kind(kinds >> 4), depth + 1)?;
                    self.skip(kind(kinds & 15), depth + 1)
                })
            }
            12 => self.each_field(depth + 1, &mut |input, _, kind| input.skip(kind, depth + 1)),
            _ => Err("its metadata have a value of no known type".into()),
        }
    }
}
