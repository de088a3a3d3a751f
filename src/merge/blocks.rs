//! Rounding a changed matrix in blocks of MatMulNBits, as [`super::requantize`] does other types: on the scales and zero
//! points that stand, with the gain that keeps the change; with new ones where a row has moved too far for those.

use std::path::Path;

use curmerge_formats::quant::{LinearGrid, decode, encode};

use super::gain::{Steps, gain};
use super::report::{Sums, TensorReport};
use super::requantize::{PLAIN_ERROR, PLAIN_SHARES};
use super::tensor::{Adapted, in_blocks};
use super::terms::{self, Sum};
use crate::base::NBits;
use crate::base::nbits::{pack, unpack};
use crate::{Error, Result};
use curmerge_formats::dtype::DType;

/// Codes, scales and zero points of some rows, each as it is stored.
pub(super) type Written = [Vec<u8>; 3];

/// Merge a matrix in blocks: `take` gets what becomes of some rows at a time, in their order. `path` is the base that
/// errors name.
pub(super) fn merge(
    adapted: &Adapted<'_>,
    blocks: &NBits<'_>,
    path: &Path,
    mut take: impl FnMut(Written) -> Result<()>,
) -> Result<TensorReport> {
    // Such a matrix is never transposed.
    let stored = adapted.weight;
    let sum = Sum::of(adapted.terms, false, path)?;
    let work = |rows: std::ops::Range<usize>| {
        let (mut written, mut sums) = (Written::default(), Vec::with_capacity(rows.len()));
        let (mut w, mut d) = (vec![0.0; stored.cols()], vec![0.0; stored.cols()]);
        for row in rows {
            stored.decode_row(row, &mut w);
            sum.of_row(row, &mut d);
            let codes = &stored.stored_bytes()[row * stored.row_bytes()..][..stored.row_bytes()];
            let (bytes, kept) = round_row(&Row { blocks, row, codes, w: &w, d: &d }).map_err(|problem| {
                let place = format!("tensor '{}', row {row}", adapted.name);
                Error::input(path, place, problem, "use a smaller scale, or train with a lower --lr")
            })?;
            written.iter_mut().zip(bytes).for_each(|(all, bytes)| all.extend(bytes));
            sums.push(kept);
        }
        Ok((written, sums))
    };
    let mut sums = Sums::default();
    in_blocks(&stored, work, |(written, row_sums)| {
        row_sums.iter().for_each(|s| sums.add(s));
        take(written)
    })?;
    Ok(TensorReport::new(adapted.name, terms::parts(adapted.terms), &blocks.name(), &sums))
}

/// A stored row with its values and their change.
struct Row<'a> {
    blocks: &'a NBits<'a>,
    row: usize,
    codes: &'a [u8],
    w: &'a [f32],
    d: &'a [f32],
}

/// A row with other codes, and perhaps other scales and zero points.
struct Candidate {
    written: Written,
    sums: Sums,
}

fn round_row(row: &Row<'_>) -> std::result::Result<(Written, Sums), String> {
    let Row { blocks, w, d, .. } = *row;
    let stored = [row.codes, blocks.stored_scales(row.row), blocks.stored_zero_points(row.row)];
    if d.iter().all(|&d| d == 0.0) {
        return Ok((stored.map(<[u8]>::to_vec), Sums::of_row(w, w, d)));
    }
    if let Some(index) = w.iter().zip(d).position(|(w, d)| !(w + d).is_finite()) {
        return Err(format!("value {index} is {}, which no code stands for", w[index] + d[index]));
    }
    let (kept, squared_steps) = row.on_old_scales();
    if kept.sums.error() <= squared_steps * PLAIN_ERROR && PLAIN_SHARES.contains(&kept.sums.share()) {
        return Ok((kept.written, kept.sums));
    }
    let plain = row
        .on_new_scales()
        .filter(|plain| PLAIN_SHARES.contains(&plain.sums.share()) && plain.sums.error() < kept.sums.error());
    let best = plain.unwrap_or(kept);
    Ok((best.written, best.sums))
}

impl Row<'_> {
    /// Values of a row with its last block filled up.
    fn filled(&self) -> usize {
        self.w.len().next_multiple_of(self.blocks.block_size())
    }

    fn greatest_code(&self) -> f32 {
        ((1u32 << self.blocks.bits()) - 1) as f32
    }

    /// One number a block.
    fn a_block(&self, read: impl Fn(&mut [f32])) -> Vec<f32> {
        let mut numbers = vec![0.0; self.filled() / self.blocks.block_size()];
        read(&mut numbers);
        numbers
    }

    /// The candidate with these codes (whole numbers, filled up), scales and zero points.
    fn candidate(&self, codes: &[f32], scales: &[f32], zeros: &[f32], stored: [Vec<u8>; 2]) -> Candidate {
        let blocks = codes.chunks(self.blocks.block_size()).zip(scales.iter().zip(zeros));
        let values = blocks.flat_map(|(codes, (scale, zero))| codes.iter().map(move |c| (c - zero) * scale));
        let q: Vec<f32> = values.take(self.w.len()).collect();
        let mut packed = vec![0; self.codes.len()];
        pack(self.blocks.bits(), codes, &mut packed);
        let [scales, zeros] = stored;
        Candidate { written: [packed, scales, zeros], sums: Sums::of_row(&q, self.w, self.d) }
    }

    /// Only codes move; also the sum of the squared steps.
    fn on_old_scales(&self) -> (Candidate, f64) {
        let (blocks, n) = (self.blocks, self.filled());
        let mut codes = vec![0.0; n];
        unpack(blocks.bits(), self.codes, &mut codes);
        let scales = self.a_block(|out| blocks.scales_of(self.row, out));
        let zeros = self.a_block(|out| blocks.zero_points_of(self.row, out));
        let grid = LinearGrid {
            steps: scales.iter().flat_map(|&s| std::iter::repeat_n(s, blocks.block_size())).collect(),
            above: codes.iter().map(|code| self.greatest_code() - code).collect(),
            below: codes.clone(),
        };
        let mut d = self.d.to_vec();
        d.resize(n, 0.0);
        // What fills the row is where it is, and does not move.
        let unmoved = vec![0.0; n];
        let gain = gain(&Steps::new(&grid, &unmoved, &unmoved, &d));
        for (i, code) in codes.iter_mut().enumerate() {
            let moves = (gain * d[i] / grid.steps[i]).round();
            // A scale of zero, or one that is no number, moves nothing.
            if grid.steps[i] != 0.0 && moves.is_finite() {
                *code += moves.clamp(-grid.below[i], grid.above[i]);
            }
        }
        let stored = [blocks.stored_scales(self.row), blocks.stored_zero_points(self.row)];
        let steps = grid.steps[..self.w.len()].iter().map(|&s| f64::from(s) * f64::from(s)).sum();
        (self.candidate(&codes, &scales, &zeros, stored.map(<[u8]>::to_vec)), steps)
    }

    /// W + d in new blocks: from the value of greatest magnitude where there are no zero points, else from the least to the
    /// greatest. `None` where a scale cannot be stored.
    fn on_new_scales(&self) -> Option<Candidate> {
        let (blocks, most) = (self.blocks, self.greatest_code());
        let middle = (most + 1.0) / 2.0;
        let values: Vec<f32> = self.w.iter().zip(self.d).map(|(w, d)| w + d).collect();
        let (mut scales, mut zeros): (Vec<f32>, Vec<f32>) = values
            .chunks(blocks.block_size())
            .map(|values| {
                if blocks.zero_dtype().is_none() {
                    let greatest =
                        values.iter().fold(0f32, |most, &x| if x.abs() > most.abs() { x } else { most });
                    return (greatest / -middle, middle);
                }
                let (least, greatest) =
                    values.iter().fold((0f32, 0f32), |(low, high), &x| (low.min(x), high.max(x)));
                let scale = (greatest - least) / most;
                (scale, if scale == 0.0 { middle } else { -least / scale })
            })
            .unzip();
        let stored_scales = stored_as(blocks.scale_dtype(), &mut scales)?;
        let stored_zeros = match blocks.zero_dtype() {
            None => Vec::new(),
            Some(DType::U8) => {
                zeros.iter_mut().for_each(|zero| *zero = zero.round().clamp(0.0, most));
                let mut packed = vec![0; blocks.stored_zero_points(self.row).len()];
                pack(blocks.bits(), &zeros, &mut packed);
                packed
            }
            Some(float) => stored_as(float, &mut zeros)?,
        };
        let mut codes = vec![0.0; self.filled()];
        let blocks = codes.chunks_mut(blocks.block_size()).zip(values.chunks(blocks.block_size()));
        for ((codes, values), (&scale, &zero)) in blocks.zip(scales.iter().zip(&zeros)) {
            codes.fill(middle);
            if scale != 0.0 {
                let code = |value: &f32| (value / scale + zero).round().clamp(0.0, most);
                codes.iter_mut().zip(values).for_each(|(to, value)| *to = code(value));
            }
        }
        Some(self.candidate(&codes, &scales, &zeros, [stored_scales, stored_zeros]))
    }
}

/// Round numbers to a type, and give them as it stores them. `None` where it cannot hold one.
fn stored_as(dtype: DType, numbers: &mut [f32]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; dtype.bytes_for(numbers.len() as u64)? as usize];
    encode(dtype, numbers, &mut bytes).ok()?;
    decode(dtype, &bytes, numbers).ok()?;
    Some(bytes)
}
