//! One stored matrix or vector, decoded row by row into the canonical layout.

use std::ops::Range;

use curmerge_formats::dtype::DType;
use curmerge_formats::quant;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::nbits::NBits;
use super::quantized::Quantized;
use super::row_order::RowOrder;
use super::tensor::BaseTensor;

/// Numbers per block when a whole matrix is streamed (1 MiB of f32).
const STREAM_VALUES: usize = 1 << 18;

const CHECKED: &str = "Weight::new checked the type and the length of a row";

/// A borrowed matrix of the base, `[rows, cols]` = `[out, in]`: a tensor or a part of one. A vector is one
/// row.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    dtype: DType,
    rows: usize,
    cols: usize,
    /// Bytes from one stored row to the next.
    row_bytes: usize,
    bytes: &'a [u8],
    order: RowOrder,
    /// Scales and zero points, if the bytes are codes.
    nbits: Option<NBits<'a>>,
    /// What turns codes of another program into numbers.
    quantized: Option<Quantized<'a>>,
    /// Whether the matrix is stored as `[in, out]`.
    transposed: bool,
    /// The first stored column that belongs to it, in a part of a transposed matrix or in the transpose of
    /// one.
    column: usize,
    /// In the transpose of a transposed matrix, or a vector among others: the order of its columns, and the first
    /// of them.
    columns: (RowOrder, usize),
    /// The order of the columns in the container.
    column_order: RowOrder,
}

impl<'a> Weight<'a> {
    /// The rows `part` of a tensor with these bytes, or all rows. A tensor of experts counts the rows of all
    /// of them. `None` for a tensor of another rank, or one whose rows are not whole blocks of its type.
    pub(super) fn new(
        tensor: &BaseTensor,
        part: Option<Range<u64>>,
        bytes: &'a [u8],
        (nbits, quantized): (Option<NBits<'a>>, Option<Quantized<'a>>),
    ) -> Option<Self> {
        let (rows, cols) = match tensor.shape[..] {
            // One number.
            [] => (1, 1),
            [n] => (1, n),
            [rows, cols] => (rows, cols),
            [experts, rows, cols] => (experts.checked_mul(rows)?, cols),
            _ => return None,
        };
        // Around a slice, other numbers are stored: rows before and after it, or more columns in every row.
        let vector = tensor.shape.len() <= 1;
        let (first, stored_rows, stored_cols) = match &tensor.slice {
            None => (0, rows, cols),
            Some(slice) if vector => (0, rows, slice.of),
            Some(slice) if tensor.transposed => (slice.start, rows, slice.of),
            Some(slice) => (slice.start, slice.of, cols),
        };
        let row_bytes = match (&tensor.nbits, &quantized) {
            (Some(nbits), _) => nbits.row_bytes(stored_cols),
            // The codes of a row may lie apart.
            (_, Some(_)) => 0,
            _ => tensor.dtype.bytes_for(stored_cols)?,
        } as usize;
        if quantized.is_none() && stored_rows.checked_mul(row_bytes as u64) != Some(bytes.len() as u64) {
            return None;
        }
        let (rows, cols) = if tensor.transposed { (cols, rows) } else { (rows, cols) };
        let order = match tensor.rotary_halves {
            // A bias is one row; `Base::vector` puts its entries in order.
            Some(heads) if !vector => RowOrder::rotary_halves(rows, heads)?,
            None if !vector => match &tensor.slice {
                Some(slice) if tensor.orders[0] == RowOrder::CANONICAL => {
                    RowOrder::spaced(slice.step as usize)
                }
                Some(slice) if slice.step != 1 => return None,
                _ => tensor.orders[0],
            },
            _ => RowOrder::CANONICAL,
        };
        let column_order = if vector { RowOrder::CANONICAL } else { tensor.orders[1] };
        let whole = 0..rows;
        let part = part.unwrap_or(whole.clone());
        if part.end > rows {
            return None;
        }
        // The rows of a part are contiguous only if no row is permuted.
        let permuted_part = part != whole && order != RowOrder::CANONICAL;
        let order = match permuted_part {
            true => order.part(part.start as usize..part.end as usize)?,
            false => order,
        };
        if part.is_empty() || cols == 0 {
            return None;
        }
        // The elements of a column are not contiguous.
        if tensor.transposed && (quantized.is_some() || tensor.dtype.block_elements() != 1 || nbits.is_some())
        {
            return None;
        }
        // Halves and groups move rows among each other; spaced rows end later.
        let span = order.span(0..part.end as usize).end.max(part.end as usize);
        // Its order counts from the first row of the whole.
        let skipped = if permuted_part { 0 } else { part.start };
        let end = first.checked_add(span as u64)?;
        if end > if tensor.transposed { stored_cols } else { stored_rows } {
            return None;
        }
        let (column, columns) = match &tensor.slice {
            // Numbers of a block are not apart.
            Some(_) if vector && (tensor.dtype.block_elements() != 1 || !tensor.is_plain()) => return None,
            Some(slice) if vector => (slice.start as usize, RowOrder::spaced(slice.step as usize)),
            _ => (0, RowOrder::CANONICAL),
        };
        if column + columns.span(0..cols as usize).end > stored_cols as usize && !tensor.transposed {
            return None;
        }
        let (from, rows) = ((first + skipped) as usize, (part.end - part.start) as usize);
        let spanned = order.span(0..rows).end.max(rows);
        let bytes = if tensor.transposed || quantized.is_some() {
            bytes
        } else {
            &bytes[from * row_bytes..][..spanned * row_bytes]
        };
        Some(Self {
            dtype: tensor.dtype,
            rows,
            cols: cols as usize,
            row_bytes,
            bytes,
            order,
            nbits: nbits.map(|nbits| nbits.of_rows(from..from + spanned)),
            quantized: quantized.map(|quantized| quantized.starting_at(from)),
            transposed: tensor.transposed,
            column: if tensor.transposed { from } else { column },
            columns: (columns, 0),
            column_order,
        })
    }

    /// A matrix `[rows, cols]` of little-endian f32 in row-major order, from no container.
    ///
    /// # Panics
    /// `bytes` has another length than `rows * cols * 4`.
    pub fn from_f32_bytes(rows: usize, cols: usize, bytes: &'a [u8]) -> Self {
        assert_eq!(bytes.len(), rows * cols * 4, "a matrix of f32 has four bytes per number");
        let order = RowOrder::CANONICAL;
        Self {
            dtype: DType::F32,
            rows,
            cols,
            row_bytes: cols * 4,
            bytes,
            order,
            nbits: None,
            quantized: None,
            transposed: false,
            column: 0,
            columns: (order, 0),
            column_order: order,
        }
    }

    /// The whole stored tensor, rows in the container's order, and whether it is the transpose of this
    /// matrix. A slice gives the tensor that it is part of.
    pub fn as_stored(&self) -> (Self, bool) {
        let stored = Self { order: RowOrder::CANONICAL, column_order: RowOrder::CANONICAL, ..*self };
        if !self.transposed {
            return (stored, false);
        }
        let (rows, cols) = (self.cols, self.row_bytes / self.element_bytes());
        (Self { rows, cols, transposed: false, column: 0, ..stored }, true)
    }

    /// The transpose of these rows, `[cols, rows.len()]`, if the matrix is stored as `[in, out]`: it is read
    /// faster than the rows themselves.
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
            // The columns of whole heads, which contain those of the rows.
            column: self.column + span.start,
            columns: (self.order, self.order.first_within_span(&rows)),
            ..*self
        })
    }

    fn element_bytes(&self) -> usize {
        self.dtype.block_bytes()
    }

    /// The numbers of the matrix.
    pub fn parameters(&self) -> u64 {
        self.rows as u64 * self.cols as u64
    }

    /// Outputs: rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs: columns of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The stored type of the numbers, or of the codes where the matrix [is not plain](Self::is_plain).
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Scales and zero points, if the stored bytes are codes of MatMulNBits.
    pub fn nbits(&self) -> Option<&NBits<'a>> {
        self.nbits.as_ref()
    }

    /// The codes of another program, if it has some.
    pub fn quantized(&self) -> Option<&Quantized<'a>> {
        self.quantized.as_ref()
    }

    /// Whether the stored bytes alone are the numbers.
    pub fn is_plain(&self) -> bool {
        self.nbits.is_none() && self.quantized.is_none()
    }

    /// Bytes of one stored row; 0 if its codes lie apart.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// How many bytes its rows take in the container, with scales and zeros.
    pub fn stored_len(&self) -> u64 {
        match (&self.nbits, &self.quantized) {
            (Some(nbits), _) => {
                self.bytes.len() as u64
                    + nbits.stored_bytes().iter().map(|bytes| bytes.len() as u64).sum::<u64>()
            }
            (_, Some(quantized)) => {
                let all: u64 = quantized.stored_bytes().map(|bytes| bytes.len() as u64).sum();
                all * self.rows as u64 / quantized.rows().max(1) as u64
            }
            _ => self.bytes.len() as u64,
        }
    }

    /// Whether its rows lie one after another as numbers, with nothing between: their order may be another.
    pub fn has_whole_rows(&self) -> bool {
        let alone = self.column == 0 && self.columns.0 == RowOrder::CANONICAL;
        self.is_plain() && !self.transposed && !self.has_permuted_columns() && alone
    }

    /// The stored bytes, in the container's row order; of codes of another program those of the whole matrix.
    pub fn stored_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the container stores the rows in another order than the canonical one.
    pub fn is_permuted(&self) -> bool {
        self.order != RowOrder::CANONICAL
    }

    /// Whether rows of other matrices may lie between its own: stored positions count them, too.
    pub fn has_rows_between(&self) -> bool {
        self.order.is_spaced()
    }

    /// The stored position of a canonical row.
    pub fn stored_row(&self, canonical: usize) -> usize {
        self.order.stored_row(canonical)
    }

    /// The canonical row at the stored position `stored`, the inverse of [`Self::stored_row`].
    pub fn canonical_row(&self, stored: usize) -> usize {
        self.order.canonical_row(stored)
    }

    /// Whether the container stores the columns in another order than the canonical one.
    pub fn has_permuted_columns(&self) -> bool {
        self.column_order != RowOrder::CANONICAL
    }

    /// The stored position of a canonical column.
    pub fn stored_column(&self, canonical: usize) -> usize {
        self.column_order.stored_row(canonical)
    }

    /// The stored bytes of one canonical row, if they are those of its columns in order, and of nothing else.
    pub fn bytes_of_row(&self, canonical: usize) -> Option<&'a [u8]> {
        let in_order = self.columns == (RowOrder::CANONICAL, 0) && self.column == 0;
        let whole = self.row_bytes == self.cols / self.dtype.block_elements() * self.element_bytes();
        if self.has_permuted_columns() || self.transposed || !self.is_plain() || !in_order || !whole {
            return None;
        }
        Some(&self.bytes[self.stored_row(canonical) * self.row_bytes..][..self.row_bytes])
    }

    /// Decodes one canonical row into `out`, `[cols]`.
    pub fn decode_row(&self, canonical: usize, out: &mut [f32]) {
        if self.has_permuted_columns() {
            let mut stored = vec![0.0; self.cols];
            Self { column_order: RowOrder::CANONICAL, ..*self }.decode_row(canonical, &mut stored);
            out.iter_mut().enumerate().for_each(|(i, out)| *out = stored[self.stored_column(i)]);
            return;
        }
        if self.transposed {
            let size = self.element_bytes();
            let column = (self.column + self.stored_row(canonical)) * size;
            let rows = self.bytes.chunks_exact(self.row_bytes);
            let gathered: Vec<u8> = rows.flat_map(|row| &row[column..column + size]).copied().collect();
            return quant::decode(self.dtype, &gathered, out).expect(CHECKED);
        }
        let stored = self.stored_row(canonical);
        if let Some(quantized) = &self.quantized {
            return quantized.decode_rows(stored..stored + 1, out);
        }
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
        // Only types without blocks allow a row to hold more than belongs to the matrix.
        match self.dtype.block_elements() {
            1 => self.decode_elements(row, 0, out),
            _ => quant::decode(self.dtype, row, out).expect(CHECKED),
        }
    }

    /// Decodes elements of a stored row from the one `first` after [`Self::column`].
    fn decode_elements(&self, row: &[u8], first: usize, out: &mut [f32]) {
        let size = self.element_bytes();
        let bytes = &row[(self.column + first) * size..][..out.len() * size];
        quant::decode(self.dtype, bytes, out).expect(CHECKED);
    }

    /// Decodes the columns `cols` of one canonical row into `out`, `[cols.len()]`. The whole row is decoded
    /// if `cols` are not whole blocks of the type.
    pub fn decode_part(&self, canonical: usize, cols: Range<usize>, out: &mut [f32]) {
        let block = self.dtype.block_elements();
        // Codes, and columns in another order, are decoded by whole rows.
        let permuted = self.columns.0 != RowOrder::CANONICAL || self.has_permuted_columns();
        let whole = cols == (0..self.cols) || !self.is_plain() || permuted;
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

    /// Decodes canonical rows into `out`, `[rows.len(), cols]` in row-major order.
    pub fn decode_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        // Gathering a few rows is faster.
        let many = rows.len() > 4;
        if let Some(transpose) = self.stored_transpose(rows.clone()).filter(|_| many) {
            // Reads each stored row once, in order.
            let mut values = vec![0.0; rows.len()];
            for column in 0..self.cols {
                transpose.decode_row(column, &mut values);
                out[column..].iter_mut().step_by(self.cols).zip(&values).for_each(|(out, &v)| *out = v);
            }
            return;
        }
        if let Some(quantized) = self.quantized.filter(|_| many && !self.has_permuted_columns()) {
            // Rows that share cache lines, in their stored order.
            let span = self.order.span(rows.clone());
            if span.len() > 2 * rows.len() || self.order.is_spaced() {
                // A few heads of many: each is stored in a row.
                let mut out = out;
                let mut next = rows.start;
                while next < rows.end {
                    let first = self.stored_row(next);
                    let follows = |count: &usize| self.stored_row(next + count) == first + count;
                    let run = (1..rows.end - next).take_while(follows).count() + 1;
                    let (own, rest) = out.split_at_mut(run * self.cols);
                    quantized.decode_rows(first..first + run, own);
                    (out, next) = (rest, next + run);
                }
                return;
            }
            let mut stored = vec![0.0; span.len() * self.cols];
            quantized.decode_rows(span.clone(), &mut stored);
            for (row, out) in rows.zip(out.chunks_exact_mut(self.cols)) {
                out.copy_from_slice(&stored[(self.stored_row(row) - span.start) * self.cols..][..self.cols]);
            }
            return;
        }
        for (row, out) in rows.zip(out.chunks_exact_mut(self.cols)) {
            self.decode_row(row, out);
        }
    }

    /// All numbers, row by row.
    pub fn vector(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.cols];
        self.decode_rows(0..self.rows, &mut out);
        out
    }

    /// The canonical rows in blocks of at most 2^18 numbers, but at least one row: the rows of each block and
    /// their numbers, `[rows.len(), cols]`.
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

    /// These columns, `[rows, cols.len()]` in row-major order.
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

    /// These canonical rows, `[rows.len(), cols]` in row-major order.
    pub fn gather_rows(&self, rows: &[u32]) -> Vec<f32> {
        let mut out = vec![0.0; rows.len() * self.cols];
        for (out, &row) in out.chunks_exact_mut(self.cols).zip(rows) {
            self.decode_row(row as usize, out);
        }
        out
    }

    /// SHA-256 of the stored bytes in the container's order, in hexadecimal; codes are followed by scales and
    /// zero points.
    pub fn stored_sha256(&self) -> String {
        if let Some(nbits) = &self.nbits {
            let mut hash = Sha256::new_with_prefix(self.bytes);
            nbits.stored_bytes().iter().for_each(|bytes| hash.update(bytes));
            return curmerge_formats::digest::hex(&hash.finalize());
        }
        if let Some(quantized) = &self.quantized {
            let mut hash = Sha256::new();
            if quantized.rows() != self.rows && quantized.mxfp4_row(0).is_some() {
                // One expert of many: its own rows. Those of other codes lie in no one place.
                let rows = (0..self.rows).filter_map(|row| quantized.mxfp4_row(self.stored_row(row)));
                rows.for_each(|row| hash.update(row));
                return curmerge_formats::digest::hex(&hash.finalize());
            }
            quantized.stored_bytes().for_each(|bytes| hash.update(bytes));
            return curmerge_formats::digest::hex(&hash.finalize());
        }
        if !self.transposed && self.order.is_spaced() {
            let mut hash = Sha256::new();
            let own = |row| &self.bytes[self.stored_row(row) * self.row_bytes..][..self.row_bytes];
            (0..self.rows).for_each(|row| hash.update(own(row)));
            return curmerge_formats::digest::hex(&hash.finalize());
        }
        if !self.transposed {
            return curmerge_formats::sha256_hex(self.bytes);
        }
        let size = self.element_bytes();
        let mut hash = Sha256::new();
        for row in self.bytes.chunks_exact(self.row_bytes) {
            let row = &row[self.column * size..];
            match self.order.is_spaced() {
                false => hash.update(&row[..self.rows * size]),
                true => {
                    let own = |i| &row[self.order.stored_row(i) * size..][..size];
                    (0..self.rows).for_each(|i| hash.update(own(i)));
                }
            }
        }
        curmerge_formats::digest::hex(&hash.finalize())
    }

    /// SHA-256 of the values as little-endian f32 in the canonical layout, in hexadecimal. Equal values give
    /// equal digests, whatever the container and type.
    pub fn values_sha256(&self) -> String {
        let mut hash = Sha256::new();
        for (_, values) in self.stream() {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            hash.update(&bytes);
        }
        curmerge_formats::digest::hex(&hash.finalize())
    }
}
