//! Rounding a changed matrix in the blocks of MatMulNBits, as [`super::requantize`] rounds other types: on
//! the block's own scales and zero points, with the gain that keeps the change; with new ones where a row has
//! moved too far for those.

use curmerge_formats::dtype::DType;
use curmerge_formats::quant::{LinearGrid, decode, encode};

use super::adapted::Adapted;
use super::deltas::DeltaSum;
use super::gain::{Steps, gain};
use super::report::{Sums, TensorReport};
use super::requantize::{PLAIN_ERROR, PLAIN_SHARES};
use crate::base::NBits;
use crate::base::nbits::{pack, unpack};
use crate::error::CallerOption;
use crate::rewrite::in_blocks;
use crate::{Error, Result};

/// Codes, scales and zero points of some rows, each as it is stored.
type Written = [Vec<u8>; 3];

/// Merges a matrix in blocks. `put` takes the codes as part 0, the scales as part 1 and the zero points, if
/// there are any, as part 2.
pub(super) fn compute(
    adapted: &Adapted<'_>,
    blocks: &NBits<'_>,
    put: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>,
) -> Result<TensorReport> {
    // Such a matrix is never transposed.
    let stored = adapted.weight;
    let sum = DeltaSum::new(adapted.deltas, false, adapted.path)?;
    let round = |rows: std::ops::Range<usize>| {
        let (mut written, mut sums) = (Written::default(), Vec::with_capacity(rows.len()));
        let (mut w, mut d) = (vec![0.0; stored.cols()], vec![0.0; stored.cols()]);
        for row in rows {
            stored.decode_row(row, &mut w);
            sum.of_row(row, &mut d);
            let codes = &stored.stored_bytes()[row * stored.row_bytes()..][..stored.row_bytes()];
            let (bytes, kept) = round_row(&Row { blocks, row, codes, w: &w, d: &d }).map_err(|problem| {
                let place = format!("tensor '{}', row {row}", adapted.name);
                let help = "use a smaller scale, or train with a lower learning rate";
                Error::input(adapted.path, place, problem, help).avoidable(CallerOption::Scale)
            })?;
            written.iter_mut().zip(bytes).for_each(|(all, bytes)| all.extend(bytes));
            sums.push(kept);
        }
        Ok((written, sums))
    };
    let mut sums = Sums::default();
    in_blocks([stored.rows(), stored.cols()], round, |(written, row_sums)| {
        row_sums.iter().for_each(|row| sums.add(row));
        let parts = written.into_iter().enumerate().filter(|(_, bytes)| !bytes.is_empty());
        parts.into_iter().try_for_each(|(part, bytes)| put(part, bytes))
    })?;
    Ok(adapted.report(&blocks.name(), &sums))
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
    /// Values of a row whose last block is padded.
    fn padded_len(&self) -> usize {
        self.w.len().next_multiple_of(self.blocks.block_size())
    }

    fn max_code(&self) -> f32 {
        ((1u32 << self.blocks.bits()) - 1) as f32
    }

    /// One number per block.
    fn per_block(&self, read: impl Fn(&mut [f32])) -> Vec<f32> {
        let mut numbers = vec![0.0; self.padded_len() / self.blocks.block_size()];
        read(&mut numbers);
        numbers
    }

    /// The candidate with these codes (whole numbers, padded), scales and zero points.
    fn candidate(&self, codes: &[f32], scales: &[f32], zeros: &[f32], stored: [Vec<u8>; 2]) -> Candidate {
        let blocks = codes.chunks(self.blocks.block_size()).zip(scales.iter().zip(zeros));
        let values = blocks.flat_map(|(codes, (scale, zero))| codes.iter().map(move |c| (c - zero) * scale));
        let q: Vec<f32> = values.take(self.w.len()).collect();
        let mut packed = vec![0; self.codes.len()];
        pack(self.blocks.bits(), codes, &mut packed);
        let [scales, zeros] = stored;
        Candidate { written: [packed, scales, zeros], sums: Sums::of_row(&q, self.w, self.d) }
    }

    /// Moves only the codes. Also returns the sum of the squared steps.
    fn on_old_scales(&self) -> (Candidate, f64) {
        let (blocks, n) = (self.blocks, self.padded_len());
        let mut codes = vec![0.0; n];
        unpack(blocks.bits(), self.codes, &mut codes);
        let scales = self.per_block(|out| blocks.scales_of(self.row, out));
        let zeros = self.per_block(|out| blocks.zero_points_of(self.row, out));
        let grid = LinearGrid {
            steps: scales.iter().flat_map(|&s| std::iter::repeat_n(s, blocks.block_size())).collect(),
            above: codes.iter().map(|code| self.max_code() - code).collect(),
            below: codes.clone(),
        };
        let mut d = self.d.to_vec();
        d.resize(n, 0.0);
        // Padding does not move.
        let unmoved = vec![0.0; n];
        let gain = gain(&Steps::new(&grid, &unmoved, &unmoved, &d));
        for (i, code) in codes.iter_mut().enumerate() {
            let moves = (gain * d[i] / grid.steps[i]).round();
            // A scale of zero or NaN moves nothing.
            if grid.steps[i] != 0.0 && moves.is_finite() {
                *code += moves.clamp(-grid.below[i], grid.above[i]);
            }
        }
        let stored = [blocks.stored_scales(self.row), blocks.stored_zero_points(self.row)];
        let steps = grid.steps[..self.w.len()].iter().map(|&s| f64::from(s) * f64::from(s)).sum();
        (self.candidate(&codes, &scales, &zeros, stored.map(<[u8]>::to_vec)), steps)
    }

    /// W + d in new blocks. Without zero points the scale comes from the value of greatest magnitude, else
    /// from the range of the values. `None` if a scale cannot be stored.
    fn on_new_scales(&self) -> Option<Candidate> {
        let (blocks, max) = (self.blocks, self.max_code());
        let middle = (max + 1.0) / 2.0;
        let values: Vec<f32> = self.w.iter().zip(self.d).map(|(w, d)| w + d).collect();
        let (mut scales, mut zeros): (Vec<f32>, Vec<f32>) = values
            .chunks(blocks.block_size())
            .map(|values| {
                if blocks.zero_dtype().is_none() {
                    let greatest =
                        values.iter().fold(0f32, |max, &x| if x.abs() > max.abs() { x } else { max });
                    return (greatest / -middle, middle);
                }
                let (least, greatest) =
                    values.iter().fold((0f32, 0f32), |(low, high), &x| (low.min(x), high.max(x)));
                let scale = (greatest - least) / max;
                (scale, if scale == 0.0 { middle } else { -least / scale })
            })
            .unzip();
        let stored_scales = stored_as(blocks.scale_dtype(), &mut scales)?;
        let stored_zeros = match blocks.zero_dtype() {
            None => Vec::new(),
            Some(DType::U8) => {
                zeros.iter_mut().for_each(|zero| *zero = zero.round().clamp(0.0, max));
                let mut packed = vec![0; blocks.stored_zero_points(self.row).len()];
                pack(blocks.bits(), &zeros, &mut packed);
                packed
            }
            Some(float) => stored_as(float, &mut zeros)?,
        };
        let mut codes = vec![0.0; self.padded_len()];
        let blocks = codes.chunks_mut(blocks.block_size()).zip(values.chunks(blocks.block_size()));
        for ((codes, values), (&scale, &zero)) in blocks.zip(scales.iter().zip(&zeros)) {
            codes.fill(middle);
            if scale != 0.0 {
                let code = |value: &f32| (value / scale + zero).round().clamp(0.0, max);
                codes.iter_mut().zip(values).for_each(|(to, value)| *to = code(value));
            }
        }
        Some(self.candidate(&codes, &scales, &zeros, [stored_scales, stored_zeros]))
    }
}

/// Rounds numbers to a type and returns them as it stores them; `None` if it cannot hold one.
fn stored_as(dtype: DType, numbers: &mut [f32]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; dtype.bytes_for(numbers.len() as u64)? as usize];
    encode(dtype, numbers, &mut bytes).ok()?;
    decode(dtype, &bytes, numbers).ok()?;
    Some(bytes)
}
