//! The content of an output file as consecutive pieces: given bytes, ranges of other files, and values that
//! are computed while the file is written.

use super::OutputFile;
use crate::error::{Error, Result};
use crate::mmap::MappedFile;

/// A run of bytes of an output file.
#[derive(Clone, Debug)]
pub enum Piece<'a> {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A range of another file.
    Copy {
        /// That file.
        source: &'a MappedFile,
        /// Start of the range, in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// New values, computed while the file is written.
    Computed {
        /// The number by which the caller knows them.
        index: usize,
        /// Length in bytes.
        len: u64,
    },
}

impl Piece<'_> {
    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Copy { len, .. } | Piece::Computed { len, .. } => *len,
        }
    }
}

/// The pieces of one file, in order and without gaps.
#[derive(Clone, Debug, Default)]
pub struct Pieces<'a> {
    pieces: Vec<Piece<'a>>,
    bytes: u64,
}

impl<'a> Pieces<'a> {
    /// The file `source` with some of its ranges replaced by new values of the same length: `(offset, len,
    /// index)`, without overlaps.
    pub fn in_place(source: &'a MappedFile, replaced: impl IntoIterator<Item = (u64, u64, usize)>) -> Self {
        let mut replaced: Vec<_> = replaced.into_iter().collect();
        replaced.sort_unstable();
        let mut pieces = Self::default();
        for (offset, len, index) in replaced {
            pieces.push(Piece::Copy { source, offset: pieces.bytes, len: offset - pieces.bytes });
            pieces.push(Piece::Computed { index, len });
        }
        let rest = source.bytes().len() as u64 - pieces.bytes;
        pieces.push(Piece::Copy { source, offset: pieces.bytes, len: rest });
        pieces
    }

    /// A header, each piece at its offset, and zeros between them and up to `file_bytes`. Offsets ascend.
    pub fn laid_out(
        header: &[u8],
        placed: impl IntoIterator<Item = (u64, Piece<'a>)>,
        file_bytes: u64,
    ) -> Self {
        let mut pieces = Self::default();
        pieces.push(Piece::Bytes(header.to_vec()));
        for (offset, piece) in placed {
            pieces.pad_to(offset);
            pieces.push(piece);
        }
        pieces.pad_to(file_bytes);
        pieces
    }

    /// Appends a piece. It joins the last one where both are bytes or adjacent ranges of one file; an empty
    /// range is dropped.
    pub fn push(&mut self, piece: Piece<'a>) {
        self.bytes += piece.bytes();
        match (self.pieces.last_mut(), piece) {
            (_, Piece::Bytes(bytes)) if bytes.is_empty() => {}
            (_, Piece::Copy { len: 0, .. }) => {}
            (Some(Piece::Bytes(last)), Piece::Bytes(bytes)) => last.extend(bytes),
            (
                Some(Piece::Copy { source: last, offset: start, len }),
                Piece::Copy { source, offset, len: more },
            ) if std::ptr::eq(*last, source) && *start + *len == offset => *len += more,
            (_, piece) => self.pieces.push(piece),
        }
    }

    /// Appends zeros up to `offset`.
    pub fn pad_to(&mut self, offset: u64) {
        self.push(Piece::Bytes(vec![0; (offset - self.bytes) as usize]));
    }

    /// Length of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The pieces in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Piece<'a>> {
        self.pieces.iter()
    }

    /// The pieces, each with its offset in the file.
    pub fn placed(&self) -> impl Iterator<Item = (u64, &Piece<'a>)> {
        self.pieces.iter().scan(0, |end, piece| {
            let offset = *end;
            *end += piece.bytes();
            Some((offset, piece))
        })
    }

    /// Appends them to a file one by one. `values` returns the new values of an index.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Encode`] if `values` returns another length than that of the piece; those of
    /// `values`.
    pub fn write(
        &self,
        file: &mut OutputFile,
        mut values: impl FnMut(usize) -> Result<Vec<u8>>,
    ) -> Result<()> {
        file.must_fit(self.bytes)?;
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => file.append(bytes)?,
                Piece::Copy { source, offset, len } => file.copy_from(source, *offset, *len)?,
                Piece::Computed { index, len } => {
                    let bytes = values(*index)?;
                    if bytes.len() as u64 != *len {
                        let problem = format!("{} bytes, but {len} were laid out", bytes.len());
                        return Err(Error::encode(
                            format!("values {index}"),
                            problem,
                            "report this as a bug",
                        ));
                    }
                    file.append(&bytes)?;
                }
            }
        }
        Ok(())
    }
}

impl<'a> Extend<Piece<'a>> for Pieces<'a> {
    fn extend<I: IntoIterator<Item = Piece<'a>>>(&mut self, pieces: I) {
        pieces.into_iter().for_each(|piece| self.push(piece));
    }
}

impl<'a> IntoIterator for Pieces<'a> {
    type Item = Piece<'a>;
    type IntoIter = std::vec::IntoIter<Piece<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.pieces.into_iter()
    }
}
