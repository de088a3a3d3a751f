//! The format `pack-quantized` of compressed-tensors, for W `[m, n]` with codes of b bits in words of 32:
//!
//! - `weight_packed` `[m, n b / 32]`, rounded up: for each output its codes along the inputs, lowest bits first;
//! - `weight_scale` `[m, groups]`, for runs of `group_size` inputs;
//! - `weight_zero_point` `[m b / 32, groups]`, rounded up: packed along the outputs; `2^(b - 1)` without it;
//! - `weight_shape`: m and n.

use std::ops::Range;

use super::{Quantized, code, word};

impl Quantized<'_> {
    /// Decodes a few rows of the whole matrix into `out`, `[rows.len(), n]`.
    pub(super) fn decode_packed(&self, bits: usize, run: usize, rows: Range<usize>, out: &mut [f32]) {
        let words = (self.cols * bits).div_ceil(32);
        let groups = self.scale_count() / self.rows;
        let mut scales = vec![0.0; groups];
        for (row, out) in rows.zip(out.chunks_exact_mut(self.cols)) {
            self.decode_scales(row * groups, &mut scales);
            for (group, (out, scale)) in out.chunks_mut(run).zip(&scales).enumerate() {
                let zero = match self.zeros {
                    Some(zeros) => code(bits, row, |at| word(zeros, at * groups + group)),
                    None => (1 << (bits - 1)) as f32,
                };
                for (i, out) in out.iter_mut().enumerate() {
                    let code = code(bits, group * run + i, |at| word(self.codes.1, row * words + at));
                    *out = (code - zero) * scale;
                }
            }
        }
    }
}
