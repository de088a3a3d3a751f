//! Writes the values of a matrix into the model as rows, columns or blocks of four bits, one tile at a time,
//! so that memory does not grow with the model.

use std::ops::Range;

use curmerge_formats::dtype::DType;
use curmerge_formats::onnx::{ElementType, OnnxPlace};
use curmerge_formats::output::OutputFile;
use curmerge_formats::quant;
use rayon::prelude::*;

use super::blocks;
use crate::base::{RowOrder, Weight};
use crate::convert::to_hugging_face::Rounding;
use crate::error::CallerOption;
use crate::{Error, Result};

/// Values that one thread converts at a time.
const TILE_VALUES: usize = 1 << 18;
/// Values of a tile that is written by columns. Its part of a column is contiguous in the file, and longer in
/// a tile of many rows.
const TURNED_VALUES: usize = 1 << 19;

/// A matrix, and its form in the model.
#[derive(Clone, Debug)]
pub(super) struct Matrix<'a> {
    /// Its name in errors.
    pub(super) name: String,
    pub(super) source: Source<'a>,
    pub(super) form: Form,
}

/// Where the values of a matrix come from.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has few of them")]
pub(super) enum Source<'a> {
    /// A matrix of the base, with Hugging Face's order of its rows.
    Stored(Weight<'a>, RowOrder),
    /// Groups of matrices of one shape, one after the other along the rows; those of the matrices of a group take turns.
    Parts(Vec<Vec<Weight<'a>>>),
    /// Cosines or sines of rotary embeddings, a row for each position.
    Angles(Angles),
}

/// `amplitude cos(position frequency)`, or the sine.
#[derive(Clone, Debug)]
pub(super) struct Angles {
    pub(super) positions: usize,
    /// Radians per position.
    pub(super) frequencies: Vec<f64>,
    pub(super) amplitude: f64,
    pub(super) of: fn(f64) -> f64,
}

/// The form of a matrix `[out, in]` in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `[out, in]`, read by Gather and by Gemm with transB.
    Rows(ElementType),
    /// `[in, out]`, read by MatMul.
    Columns(ElementType),
    /// Rows in blocks of 32 four-bit numbers with a scale each, read by MatMulNBits.
    Blocks {
        /// The type of the scales.
        scales: ElementType,
        /// Whether each block has its own zero point; without, it is 8.
        zero_points: bool,
    },
}

/// The files of the model that are being written.
pub(super) struct Sinks<'a> {
    pub(super) model: &'a OutputFile,
    pub(super) external: Option<&'a OutputFile>,
}

/// Bytes of a matrix, each with its place among the bytes of one of its initializers.
type Made = Vec<(usize, u64, Vec<u8>)>;

impl Matrix<'_> {
    /// `[rows, columns]`.
    pub(super) fn shape(&self) -> [u64; 2] {
        let [rows, cols] = self.source.shape();
        [rows as u64, cols as u64]
    }

    /// The bytes that it takes in the base.
    pub(super) fn stored_bytes(&self) -> u64 {
        match &self.source {
            Source::Stored(weight, _) => weight.stored_len(),
            Source::Parts(groups) => groups.iter().flatten().map(Weight::stored_len).sum(),
            Source::Angles(_) => 0,
        }
    }

    /// Writes its values to `places`, which begin with those of its own initializers. Each tile is written by
    /// the thread that computes it.
    pub(super) fn write(&self, places: &[OnnxPlace], sinks: &Sinks<'_>) -> Result<Rounding> {
        let write = |tile: &[Range<usize>; 2]| {
            let (made, rounding) = self.tile(tile)?;
            for (tensor, offset, bytes) in made {
                let file = sinks.external.filter(|_| places[tensor].external).unwrap_or(sinks.model);
                file.write_all_at(places[tensor].offset + offset, &bytes)?;
            }
            Ok(rounding)
        };
        let done: Vec<Result<Rounding>> = self.tiles().par_iter().map(write).collect();
        done.into_iter().try_fold(Rounding::default(), |all, tile| Ok(all.and(tile?)))
    }

    /// The parts of the matrix that are converted separately: rows and columns.
    fn tiles(&self) -> Vec<[Range<usize>; 2]> {
        let [rows, cols] = self.source.shape();
        let (high, wide) = match self.form {
            // Codes are decoded by whole rows.
            Form::Columns(_) if !self.source.is_plain() => ((TURNED_VALUES / cols.max(1)).max(1), cols),
            Form::Columns(_) => {
                let block = self.source.dtype().block_elements().max(32);
                let high = (TURNED_VALUES / block).min(rows);
                (high, (TILE_VALUES / high / block).max(1) * block)
            }
            _ => ((TILE_VALUES / cols.max(1)).max(1), cols),
        };
        let starts = (0..cols).step_by(wide.max(1));
        starts
            .flat_map(|col| {
                (0..rows)
                    .step_by(high)
                    .map(move |row| [row..(row + high).min(rows), col..(col + wide).min(cols)])
            })
            .collect()
    }

    fn tile(&self, [rows, cols]: &[Range<usize>; 2]) -> Result<(Made, Rounding)> {
        let width = cols.len();
        match self.form {
            Form::Rows(element) => {
                let (bytes, rounding) = self.encode(element, rows.start, &self.values(rows, cols))?;
                Ok((vec![(0, (rows.start * width * size(element)) as u64, bytes)], rounding))
            }
            Form::Columns(element) => {
                let turned = transposed(&self.values(rows, cols), rows.len());
                let (bytes, rounding) = self.encode(element, rows.start, &turned)?;
                let height = self.source.shape()[0];
                let at = |c: usize| (((cols.start + c) * height + rows.start) * size(element)) as u64;
                if rows.len() == height {
                    return Ok((vec![(0, at(0), bytes)], rounding));
                }
                let columns = bytes.chunks_exact(rows.len() * size(element)).enumerate();
                Ok((columns.map(|(c, bytes)| (0, at(c), bytes.to_vec())).collect(), rounding))
            }
            Form::Blocks { scales, zero_points } => {
                let mut rounding = Rounding::of(rows.len() * width);
                let packed = match self.source.q4_0(rows).filter(|_| !zero_points) {
                    Some(stored) => blocks::of_q4_0(&stored),
                    None => {
                        let values = self.values(rows, cols);
                        let packed = match zero_points {
                            true => blocks::rounded(&values, width).map_err(|e| self.error(rows.start, e))?,
                            false => blocks::of_q4_0(&self.as_q4_0(rows.start, &values)?),
                        };
                        rounding.compare(&values, &packed.values(width));
                        packed
                    }
                };
                let blocks = width / 32;
                let (scale_bytes, _) = self.encode(scales, rows.start, &packed.scales)?;
                let mut made = vec![
                    (0, (rows.start * blocks * 16) as u64, packed.numbers),
                    (1, (rows.start * blocks * size(scales)) as u64, scale_bytes),
                ];
                if zero_points {
                    made.push((2, (rows.start * blocks.div_ceil(2)) as u64, packed.zero_points));
                }
                Ok((made, rounding))
            }
        }
    }

    /// The values of these rows and columns.
    fn values(&self, rows: &Range<usize>, cols: &Range<usize>) -> Vec<f32> {
        let mut values = vec![0.0; rows.len() * cols.len()];
        for (row, out) in rows.clone().zip(values.chunks_exact_mut(cols.len())) {
            self.source.decode(row, cols.clone(), out);
        }
        values
    }

    fn encode(&self, element: ElementType, row: usize, values: &[f32]) -> Result<(Vec<u8>, Rounding)> {
        let mut rounding = Rounding::of(values.len());
        let dtype = float_type(element);
        let mut bytes = vec![0; values.len() * size(element)];
        quant::encode(dtype, values, &mut bytes).map_err(|e| self.error(row, e))?;
        if dtype != DType::F32 {
            let mut back = vec![0.0; values.len()];
            quant::decode(dtype, &bytes, &mut back).map_err(|e| self.error(row, e))?;
            rounding.compare(values, &back);
        }
        Ok((bytes, rounding))
    }

    /// Values, which begin at `row`, as blocks of Q4_0.
    fn as_q4_0(&self, row: usize, values: &[f32]) -> Result<Vec<u8>> {
        let mut bytes = vec![0; values.len() / 32 * DType::Q4_0.block_bytes()];
        quant::encode(DType::Q4_0, values, &mut bytes).map_err(|e| self.error(row, e))?;
        Ok(bytes)
    }

    fn error(&self, row: usize, error: quant::QuantError) -> Error {
        cannot_hold(&self.name, row, error)
    }
}

/// The values of a small tensor as FLOAT or FLOAT16.
///
/// # Errors
/// A value that is not finite, or not in that type.
pub(super) fn encoded(name: &str, element: ElementType, values: &[f32]) -> Result<Vec<u8>> {
    let mut bytes = vec![0; values.len() * size(element)];
    quant::encode(float_type(element), values, &mut bytes).map_err(|e| cannot_hold(name, 0, e))?;
    Ok(bytes)
}

fn cannot_hold(name: &str, row: usize, error: quant::QuantError) -> Error {
    let problem = format!("tensor '{name}', rows from {row}: {error}");
    match error {
        quant::QuantError::OutOfRange { value, .. } if value.is_finite() => {
            Error::request(problem, "use f32").avoidable(CallerOption::FileType)
        }
        _ => Error::request(problem, "download the model again"),
    }
}

impl<'a> Source<'a> {
    /// Rows and columns.
    pub(super) fn shape(&self) -> [usize; 2] {
        match self {
            Source::Stored(weight, _) => [weight.rows(), weight.cols()],
            Source::Parts(groups) => {
                let all = || groups.iter().flatten();
                [all().map(Weight::rows).sum(), all().next().map_or(0, Weight::cols)]
            }
            Source::Angles(angles) => [angles.positions, angles.frequencies.len()],
        }
    }

    /// Whether stored bytes alone are the numbers.
    fn is_plain(&self) -> bool {
        match self {
            Source::Stored(weight, _) => weight.is_plain(),
            Source::Parts(groups) => groups.iter().flatten().all(Weight::is_plain),
            Source::Angles(_) => true,
        }
    }

    fn dtype(&self) -> DType {
        match self {
            Source::Stored(weight, _) => weight.dtype(),
            Source::Parts(groups) => {
                let types = groups.iter().flatten().map(Weight::dtype);
                types.max_by_key(|dtype| dtype.block_elements()).unwrap_or(DType::F32)
            }
            Source::Angles(_) => DType::F32,
        }
    }

    /// The stored matrix that holds a row, numbered in Hugging Face's order, and the row within it.
    fn stored(&self, row: usize) -> Option<(&Weight<'a>, usize)> {
        match self {
            Source::Stored(weight, order) => Some((weight, order.canonical_row(row))),
            Source::Parts(groups) => {
                let mut row = row;
                for group in groups {
                    let rows = group.iter().map(Weight::rows).sum();
                    if row < rows {
                        return Some((&group[row % group.len()], row / group.len()));
                    }
                    row -= rows;
                }
                None
            }
            Source::Angles(_) => None,
        }
    }

    /// Some columns of a row, numbered in Hugging Face's order.
    fn decode(&self, row: usize, cols: Range<usize>, out: &mut [f32]) {
        match self {
            Source::Stored(..) | Source::Parts(_) => {
                if let Some((weight, row)) = self.stored(row) {
                    weight.decode_part(row, cols, out);
                }
            }
            Source::Angles(Angles { frequencies, amplitude, of, .. }) => {
                let angle = |frequency: &f64| (amplitude * of(row as f64 * frequency)) as f32;
                out.iter_mut().zip(&frequencies[cols]).for_each(|(out, frequency)| *out = angle(frequency));
            }
        }
    }

    /// The stored bytes of these rows, if they are blocks of Q4_0.
    fn q4_0(&self, rows: &Range<usize>) -> Option<Vec<u8>> {
        let mut stored = Vec::new();
        for row in rows.clone() {
            let (weight, row) = self.stored(row).filter(|(weight, _)| weight.dtype() == DType::Q4_0)?;
            let bytes = weight.row_bytes();
            let at = weight.stored_row(row) * bytes;
            stored.extend_from_slice(&weight.stored_bytes()[at..at + bytes]);
        }
        Some(stored)
    }
}

/// `[rows, cols]` as `[cols, rows]`, as many rows at a time as fit in a cache line.
fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    const AT_ONCE: usize = 16;
    let cols = values.len() / rows.max(1);
    let mut turned = vec![0.0; values.len()];
    for (block, values) in values.chunks(AT_ONCE * cols).enumerate() {
        for (col, out) in turned.chunks_exact_mut(rows).enumerate() {
            let out = &mut out[block * AT_ONCE..];
            for (out, row) in out.iter_mut().zip(values.chunks_exact(cols)) {
                *out = row[col];
            }
        }
    }
    turned
}

/// The type of FLOAT or FLOAT16.
fn float_type(element: ElementType) -> DType {
    if element == ElementType::FLOAT16 { DType::F16 } else { DType::F32 }
}

/// Bytes of one value.
fn size(element: ElementType) -> usize {
    if element == ElementType::FLOAT16 { 2 } else { 4 }
}
