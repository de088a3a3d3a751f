//! The values of a matrix on their way into the model: rows, columns, or blocks of four bits, decoded a tile at a time,
//! so that memory does not grow with the model.

use std::ops::Range;

use curmerge_formats::dtype::DType;
use curmerge_formats::onnx::{ElementType, OnnxPlace};
use curmerge_formats::output::{OutputFile, write_behind};
use curmerge_formats::quant;
use rayon::prelude::*;

use super::super::to_hugging_face::Rounding;
use super::blocks;
use crate::base::{RowOrder, Weight};
use crate::{Error, Result};

/// Values that one thread converts at a time.
const TILE_VALUES: usize = 1 << 18;
/// Rows of a tile whose columns are written: a column's part is then a few pages long.
const TILE_ROWS: usize = 4096;
/// Tiles in memory at a time, for each thread.
const TILES_A_THREAD: usize = 2;

/// A matrix, and how the model has it.
#[derive(Clone, Debug)]
pub(super) struct Matrix<'a> {
    /// Its name in errors.
    pub(super) name: String,
    pub(super) source: Source<'a>,
    pub(super) form: Form,
}

/// Where the values of a matrix come from.
#[derive(Clone, Debug)]
pub(super) enum Source<'a> {
    /// A matrix of the base, with Hugging Face's order of its rows.
    Stored(Weight<'a>, RowOrder),
    /// Cosines or sines of rotary embeddings, a row for each position.
    Angles(Angles),
}

/// `amplitude cos(position frequency)`, or the sine.
#[derive(Clone, Debug)]
pub(super) struct Angles {
    pub(super) positions: usize,
    /// Radians a position.
    pub(super) frequencies: Vec<f64>,
    pub(super) amplitude: f64,
    pub(super) of: fn(f64) -> f64,
}

/// How a model has a matrix `[out, in]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `[out, in]`, what Gather and Gemm with transB read.
    Rows(ElementType),
    /// `[in, out]`, what MatMul reads.
    Columns(ElementType),
    /// Rows in blocks of 32 four-bit numbers with a scale each, what MatMulNBits reads.
    Blocks {
        /// The type of the scales.
        scales: ElementType,
        /// Whether each block has its own zero, else it is 8.
        zero_points: bool,
    },
}

/// The files of the model while they are written.
pub(super) struct Sinks<'a> {
    pub(super) model: &'a OutputFile,
    pub(super) external: Option<&'a OutputFile>,
}

/// Bytes of a matrix, each with its place among the bytes of one of its initializers.
type Made = Vec<(usize, u64, Vec<u8>)>;

impl Matrix<'_> {
    /// `[out, in]`, or rows and columns.
    pub(super) fn shape(&self) -> [u64; 2] {
        let [rows, cols] = self.source.shape();
        [rows as u64, cols as u64]
    }

    /// Bytes that the base stores it in.
    pub(super) fn stored_bytes(&self) -> u64 {
        match &self.source {
            Source::Stored(weight, _) => weight.stored_bytes().len() as u64,
            Source::Angles(_) => 0,
        }
    }

    /// Initializers that it takes.
    fn tensors(&self) -> usize {
        match self.form {
            Form::Rows(_) | Form::Columns(_) => 1,
            Form::Blocks { zero_points, .. } => 2 + usize::from(zero_points),
        }
    }

    /// Writes its values to the places of its initializers, the first of which these are.
    pub(super) fn write(&self, places: &[OnnxPlace], sinks: &Sinks<'_>) -> Result<Rounding> {
        let places = &places[..self.tensors()];
        let external = places.first().is_some_and(|place| place.external);
        // Those of one matrix may stand in both files, small ones in the model.
        let same = places.iter().all(|place| place.external == external);
        if same {
            let file = if external { sinks.external.unwrap_or(sinks.model) } else { sinks.model };
            return write_behind(file, &[], |queue| {
                self.make(&|tensor, offset, bytes| Ok(queue.write_at(places[tensor].offset + offset, bytes)?))
            });
        }
        self.make(&|tensor, offset, bytes| {
            let place = places[tensor];
            let file = sinks.external.filter(|_| place.external).unwrap_or(sinks.model);
            Ok(file.write_all_at(place.offset + offset, &bytes)?)
        })
    }

    /// Hands all bytes to `write`, with the initializer that they are of and their place in it.
    fn make(&self, write: &dyn Fn(usize, u64, Vec<u8>) -> Result<()>) -> Result<Rounding> {
        let mut rounding = Rounding::default();
        let tiles = self.tiles();
        for batch in tiles.chunks(TILES_A_THREAD * rayon::current_num_threads()) {
            let done: Vec<Result<(Made, Rounding)>> = batch.par_iter().map(|tile| self.tile(tile)).collect();
            for tile in done {
                let (made, moved) = tile?;
                rounding = rounding.and(moved);
                made.into_iter().try_for_each(|(tensor, offset, bytes)| write(tensor, offset, bytes))?;
            }
        }
        Ok(rounding)
    }

    /// Parts of the matrix that are converted by themselves: rows and columns.
    fn tiles(&self) -> Vec<[Range<usize>; 2]> {
        let [rows, cols] = self.source.shape();
        let (high, wide) = match self.form {
            Form::Columns(_) => {
                let block = self.source.dtype().block_elements().max(32);
                let high = TILE_ROWS.min(rows);
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
                let values = self.values(rows, cols);
                let turned: Vec<f32> = (0..width)
                    .flat_map(|c| (0..rows.len()).map(move |r| (r, c)))
                    .map(|(r, c)| values[r * width + c])
                    .collect();
                let (bytes, rounding) = self.encode(element, rows.start, &turned)?;
                let part = rows.len() * size(element);
                let at = |c: usize| ((cols.start + c) * self.source.shape()[0] + rows.start) * size(element);
                let parts = bytes.chunks_exact(part).enumerate();
                Ok((parts.map(|(c, bytes)| (0, at(c) as u64, bytes.to_vec())).collect(), rounding))
            }
            Form::Blocks { scales, zero_points } => {
                let packed = match self.source.q4_0(rows).filter(|_| !zero_points) {
                    Some(stored) => blocks::of_q4_0(&stored),
                    None if zero_points => blocks::rounded(&self.values(rows, cols), width),
                    None => {
                        let values = self.values(rows, cols);
                        let mut bytes = vec![0; values.len() / 32 * DType::Q4_0.block_bytes()];
                        let error = |e| self.error(rows.start, e);
                        quant::encode(DType::Q4_0, &values, &mut bytes).map_err(error)?;
                        blocks::of_q4_0(&bytes)
                    }
                };
                let mut rounding = Rounding::of(rows.len() * width);
                rounding.compare(&self.values(rows, cols), &packed.values(width));
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

    /// These rows and columns.
    fn values(&self, rows: &Range<usize>, cols: &Range<usize>) -> Vec<f32> {
        let mut values = vec![0.0; rows.len() * cols.len()];
        for (row, out) in rows.clone().zip(values.chunks_exact_mut(cols.len())) {
            self.source.decode(row, cols.clone(), out);
        }
        values
    }

    fn encode(&self, element: ElementType, row: usize, values: &[f32]) -> Result<(Vec<u8>, Rounding)> {
        let mut rounding = Rounding::of(values.len());
        let dtype = if element == ElementType::FLOAT16 { DType::F16 } else { DType::F32 };
        let mut bytes = vec![0; values.len() * size(element)];
        quant::encode(dtype, values, &mut bytes).map_err(|e| self.error(row, e))?;
        if dtype != DType::F32 {
            let mut back = vec![0.0; values.len()];
            quant::decode(dtype, &bytes, &mut back).map_err(|e| self.error(row, e))?;
            rounding.compare(values, &back);
        }
        Ok((bytes, rounding))
    }

    fn error(&self, row: usize, error: quant::QuantError) -> Error {
        let mend = match error {
            quant::QuantError::OutOfRange { value, .. } if value.is_finite() => "use --type f32",
            _ => "download the model again",
        };
        Error::request(format!("tensor '{}', rows from {row}: {error}", self.name), mend)
    }
}

impl Source<'_> {
    fn shape(&self) -> [usize; 2] {
        match self {
            Source::Stored(weight, _) => [weight.rows(), weight.cols()],
            Source::Angles(angles) => [angles.positions, angles.frequencies.len()],
        }
    }

    fn dtype(&self) -> DType {
        match self {
            Source::Stored(weight, _) => weight.dtype(),
            Source::Angles(_) => DType::F32,
        }
    }

    /// Some columns of a row, as Hugging Face counts them.
    fn decode(&self, row: usize, cols: Range<usize>, out: &mut [f32]) {
        match self {
            Source::Stored(weight, order) => weight.decode_part(order.canonical_row(row), cols, out),
            Source::Angles(Angles { frequencies, amplitude, of, .. }) => {
                let angle = |frequency: &f64| (amplitude * of(row as f64 * frequency)) as f32;
                out.iter_mut().zip(&frequencies[cols]).for_each(|(out, frequency)| *out = angle(frequency));
            }
        }
    }

    /// The stored bytes of these rows, where they are blocks of Q4_0.
    fn q4_0(&self, rows: &Range<usize>) -> Option<Vec<u8>> {
        let Source::Stored(weight, order) = self else { return None };
        let bytes = weight.row_bytes();
        let row = |row: usize| {
            &weight.stored_bytes()[weight.stored_row(order.canonical_row(row)) * bytes..][..bytes]
        };
        (weight.dtype() == DType::Q4_0).then(|| rows.clone().flat_map(row).copied().collect())
    }
}

/// Bytes of one value.
fn size(element: ElementType) -> usize {
    if element == ElementType::FLOAT16 { 2 } else { 4 }
}
