//! One stored matrix or vector, decoded row by row into the canonical layout.

use std::ops::Range;

use curmerge_formats::dtype::DType;
use curmerge_formats::quant;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::nbits::NBits;
use super::row_order::RowOrder;
use super::tensor::BaseTensor;

/// Rows are decoded in blocks of about so many numbers (1 MiB of f32) where a whole matrix is streamed.
const STREAM_VALUES: usize = 1 << 18;

const CHECKED: &str = "Weight::new checked the type and the length of a row";

/// A borrowed tensor of the base, or a part of one, `[rows, cols]` = `[out, in]`; a vector is one row.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    dtype: DType,
    rows: usize,
    cols: usize,
    /// Bytes from one stored row to the next.
    row_bytes: usize,
    bytes: &'a [u8],
    order: RowOrder,
    /// Scales and zero points, where the bytes are codes of blocks.
    nbits: Option<NBits<'a>>,
    /// Whether the matrix is stored as `[in, out]`.
    transposed: bool,
    /// The first stored column that belongs to it: of a part of a transposed matrix, or of the transpose of one.
    column: usize,
    /// Of the transpose of one: the order of its columns, and which of them is the first.
    columns: (RowOrder, usize),
}

impl<'a> Weight<'a> {
    /// These rows of a tensor with the given bytes; one of experts counts the rows of all of them. None for a tensor of
    /// another rank, or whose rows are not whole blocks of its type.
    pub(super) fn new(
        tensor: &BaseTensor,
        part: Option<Range<u64>>,
        bytes: &'a [u8],
        nbits: Option<NBits<'a>>,
    ) -> Option<Self> {
        let (rows, cols) = match tensor.shape[..] {
            [n] => (1, n),
            [rows, cols] => (rows, cols),
            [experts, rows, cols] => (experts.checked_mul(rows)?, cols),
            _ => return None,
        };
        // Of a slice more is stored than belongs to it: rows before and behind, or more in every row.
        let (first, stored_rows, stored_cols) = match &tensor.slice {
            None => (0, rows, cols),
            Some(slice) if tensor.transposed => (slice.start, rows, slice.of),
            Some(slice) => (slice.start, slice.of, cols),
        };
        let row_bytes = match &tensor.nbits {
            Some(nbits) => nbits.row_bytes(stored_cols),
            None => tensor.dtype.bytes_for(stored_cols)?,
        } as usize;
        if stored_rows.checked_mul(row_bytes as u64) != Some(bytes.len() as u64) {
            return None;
        }
        let (rows, cols) = if tensor.transposed { (cols, rows) } else { (rows, cols) };
        let order = match tensor.rotary_halves {
            // A bias is one row; `Base::vector` puts its entries in order.
            Some(heads) if tensor.shape.len() > 1 => RowOrder::rotary_halves(rows, heads)?,
            _ => RowOrder::CANONICAL,
        };
        let whole = 0..rows;
        let part = part.unwrap_or(whole.clone());
        // The rows of a part lie together only where none are permuted.
        if part.end > rows || part != whole && order != RowOrder::CANONICAL {
            return None;
        }
        if part.is_empty() || cols == 0 {
            return None;
        }
        // Elements of a column lie apart.
        if tensor.transposed && (tensor.dtype.block_elements() != 1 || nbits.is_some()) {
            return None;
        }
        let end = first.checked_add(part.end)?;
        if end > if tensor.transposed { stored_cols } else { stored_rows } {
            return None;
        }
        let (from, rows) = ((first + part.start) as usize, (part.end - part.start) as usize);
        let bytes = if tensor.transposed { bytes } else { &bytes[from * row_bytes..][..rows * row_bytes] };
        Some(Self {
            dtype: tensor.dtype,
            rows,
            cols: cols as usize,
            row_bytes,
            bytes,
            order,
            nbits: nbits.map(|nbits| nbits.of_rows(from..from + rows)),
            transposed: tensor.transposed,
            column: if tensor.transposed { from } else { 0 },
            columns: (RowOrder::CANONICAL, 0),
        })
    }

    /// A matrix of f32 bytes (little-endian, row-major) that no container stands behind.
    pub fn from_f32_bytes(rows: usize, cols: usize, bytes: &'a [u8]) -> Self {
        assert_eq!(bytes.len(), rows * cols * 4, "a matrix of f32 has four bytes a number");
        let order = RowOrder::CANONICAL;
        Self {
            dtype: DType::F32,
            rows,
            cols,
            row_bytes: cols * 4,
            bytes,
            order,
            nbits: None,
            transposed: false,
            column: 0,
            columns: (order, 0),
        }
    }

    /// The whole tensor as it lies in the container, rows in the order that it stores them; and whether that is the
    /// transpose. Of a slice that is all that is stored with it.
    pub fn as_stored(&self) -> (Self, bool) {
        let stored = Self { order: RowOrder::CANONICAL, ..*self };
        if !self.transposed {
            return (stored, false);
        }
        let (rows, cols) = (self.cols, self.row_bytes / self.element_bytes());
        (Self { rows, cols, transposed: false, column: 0, ..stored }, true)
    }

    /// Of a matrix that is stored as `[in, out]`, the transpose of these rows, which is read faster than they are.
    pub fn stored_transpose(&self, rows: Range<usize>) -> Option<Self> {
        if !self.transposed {
            return None;
        }
        let span = self.order.span(rows.clone());
        Some(Self {
            rows: self.cols,
            cols: rows.len(),
            order: RowOrder::CANONICAL,
            transposed: false,
            // Whole heads, among whose columns those of the rows are.
            column: self.column + span.start,
            columns: (self.order, rows.start - span.start),
            ..*self
        })
    }

    fn element_bytes(&self) -> usize {
        self.dtype.block_bytes()
    }

    /// Outputs: rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs: columns of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How the numbers are stored; of a matrix in blocks, their codes.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// What turns the stored codes of a matrix in blocks into numbers.
    pub fn nbits(&self) -> Option<&NBits<'a>> {
        self.nbits.as_ref()
    }

    /// Bytes of one stored row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Whether the container stores the matrix as `[in, out]`.
    pub fn is_transposed(&self) -> bool {
        self.transposed
    }

    /// The stored bytes, in the container's row order.
    pub fn stored_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the container stores rows in another order than the canonical one.
    pub fn is_permuted(&self) -> bool {
        self.order != RowOrder::CANONICAL
    }

    /// Where the container stores a canonical row.
    pub fn stored_row(&self, canonical: usize) -> usize {
        self.order.stored_row(canonical)
    }

    /// The canonical row that the container stores at `stored`: the inverse of [`Self::stored_row`].
    pub fn canonical_row(&self, stored: usize) -> usize {
        self.order.canonical_row(stored)
    }

    /// Decode one canonical row into `out`, of length [`Self::cols`].
    pub fn decode_row(&self, canonical: usize, out: &mut [f32]) {
        if self.transposed {
            let size = self.element_bytes();
            let column = (self.column + self.stored_row(canonical)) * size;
            let rows = self.bytes.chunks_exact(self.row_bytes);
            let gathered: Vec<u8> = rows.flat_map(|row| &row[column..column + size]).copied().collect();
            return quant::decode(self.dtype, &gathered, out).expect(CHECKED);
        }
        let stored = self.stored_row(canonical);
        let row = &self.bytes[stored * self.row_bytes..][..self.row_bytes];
        if let Some(nbits) = &self.nbits {
            return nbits.decode_row(stored, row, out);
        }
        let (order, first) = self.columns;
        if order != RowOrder::CANONICAL {
            let span = order.span(first..first + self.cols);
            let mut stored = vec![0.0; span.len()];
            self.decode_elements(row, span.start, &mut stored);
            out.iter_mut().enumerate().for_each(|(i, out)| *out = stored[order.stored_row(first + i)]);
            return;
        }
        // Only where elements are stored one by one is there more in a row than belongs to the matrix.
        match self.dtype.block_elements() {
            1 => self.decode_elements(row, 0, out),
            _ => quant::decode(self.dtype, row, out).expect(CHECKED),
        }
    }

    /// Decode elements of a stored row, the first of them so many behind [`Self::column`].
    fn decode_elements(&self, row: &[u8], first: usize, out: &mut [f32]) {
        let size = self.element_bytes();
        let bytes = &row[(self.column + first) * size..][..out.len() * size];
        quant::decode(self.dtype, bytes, out).expect(CHECKED);
    }

    /// Decode some columns of one canonical row into `out`, a number for each; only those where the type's blocks allow.
    pub fn decode_part(&self, canonical: usize, cols: Range<usize>, out: &mut [f32]) {
        let block = self.dtype.block_elements();
        // Codes of blocks, and columns in another order, are read by whole rows.
        let whole = cols == (0..self.cols) || self.nbits.is_some() || self.columns.0 != RowOrder::CANONICAL;
        if whole || !cols.start.is_multiple_of(block) || !cols.end.is_multiple_of(block) {
            let mut row = vec![0.0; self.cols];
            self.decode_row(canonical, &mut row);
            return out.copy_from_slice(&row[cols]);
        }
        if self.transposed {
            let bytes = &self.bytes[cols.start * self.row_bytes..cols.end * self.row_bytes];
            return Self { cols: cols.len(), bytes, ..*self }.decode_row(canonical, out);
        }
        let size = self.element_bytes();
        let start = self.stored_row(canonical) * self.row_bytes + (self.column + cols.start) / block * size;
        let bytes = &self.bytes[start..start + cols.len() / block * size];
        quant::decode(self.dtype, bytes, out).expect("whole blocks of a row that Weight::new checked");
    }

    /// Decode canonical rows into `out`, row-major, `rows.len() * cols` numbers.
    pub fn decode_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        // A few are gathered sooner.
        let many = rows.len() > 4;
        if let Some(transpose) = self.stored_transpose(rows.clone()).filter(|_| many) {
            // Stored rows in order, so that each is read once.
            let mut values = vec![0.0; rows.len()];
            for column in 0..self.cols {
                transpose.decode_row(column, &mut values);
                out[column..].iter_mut().step_by(self.cols).zip(&values).for_each(|(out, &v)| *out = v);
            }
            return;
        }
        for (row, out) in rows.zip(out.chunks_exact_mut(self.cols)) {
            self.decode_row(row, out);
        }
    }

    /// All numbers of a vector, or of a matrix row by row.
    pub fn vector(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.cols];
        self.decode_rows(0..self.rows, &mut out);
        out
    }

    /// Canonical rows in order, a block of at most [`STREAM_VALUES`] numbers (at least one row) at a time.
    pub fn stream(&self) -> impl Iterator<Item = (Range<usize>, Vec<f32>)> + '_ {
        let block = self.block_rows();
        (0..self.rows).step_by(block).map(move |start| {
            let rows = start..(start + block).min(self.rows);
            let mut values = vec![0.0; rows.len() * self.cols];
            self.decode_rows(rows.clone(), &mut values);
            (rows, values)
        })
    }

    /// Rows in one block of [`Self::stream`].
    pub fn block_rows(&self) -> usize {
        (STREAM_VALUES / self.cols.max(1)).max(1)
    }

    /// These columns as a row-major `[rows, cols.len()]` matrix.
    pub fn gather_columns(&self, cols: &[u32]) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * cols.len()];
        if let Some(transpose) = self.stored_transpose(0..self.rows) {
            let mut column = vec![0.0; self.rows];
            for (j, &c) in cols.iter().enumerate() {
                transpose.decode_row(c as usize, &mut column);
                out[j..].iter_mut().step_by(cols.len()).zip(&column).for_each(|(out, &v)| *out = v);
            }
            return out;
        }
        let block = self.block_rows();
        out.par_chunks_mut((block * cols.len()).max(1)).enumerate().for_each(|(b, out)| {
            let mut row = vec![0.0; self.cols];
            for (i, out) in out.chunks_exact_mut(cols.len()).enumerate() {
                self.decode_row(b * block + i, &mut row);
                for (o, &c) in out.iter_mut().zip(cols) {
                    *o = row[c as usize];
                }
            }
        });
        out
    }

    /// These canonical rows as a row-major `[rows.len(), cols]` matrix.
    pub fn gather_rows(&self, rows: &[u32]) -> Vec<f32> {
        let mut out = vec![0.0; rows.len() * self.cols];
        for (out, &row) in out.chunks_exact_mut(self.cols).zip(rows) {
            self.decode_row(row as usize, out);
        }
        out
    }

    /// SHA-256 of the stored bytes in their order, in hexadecimal; of a matrix in blocks codes, scales and zero points.
    pub fn stored_sha256(&self) -> String {
        if let Some(nbits) = &self.nbits {
            let mut hash = Sha256::new_with_prefix(self.bytes);
            nbits.stored_bytes().iter().for_each(|bytes| hash.update(bytes));
            return curmerge_formats::digest::hex(&hash.finalize());
        }
        if !self.transposed {
            return curmerge_formats::sha256_hex(self.bytes);
        }
        let size = self.element_bytes();
        let mut hash = Sha256::new();
        for row in self.bytes.chunks_exact(self.row_bytes) {
            hash.update(&row[self.column * size..][..self.rows * size]);
        }
        curmerge_formats::digest::hex(&hash.finalize())
    }

    /// SHA-256 of the values as little-endian f32 in the canonical layout, in hexadecimal. The same for equal values in
    /// whatever container and type.
    pub fn values_sha256(&self) -> String {
        let mut hash = Sha256::new();
        for (_, values) in self.stream() {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            hash.update(&bytes);
        }
        curmerge_formats::digest::hex(&hash.finalize())
    }
}
