//! GPTQ (Frantar et al. 2022, arXiv 2210.17323) as AutoGPTQ and GPTQModel store it, for W `[m, n]` with codes
//! of b bits in words of 32:
//!
//! - `qweight` `[n b / 32, m]`: for each output the stream of its codes along the inputs;
//! - `qzeros` `[groups, m b / 32]`: for each group the stream of zeros along the outputs, less 1 in every code
//!   unless `checkpoint_format` is `gptq_v2`;
//! - `scales` `[groups, m]`; `g_idx` `[n]`: the group of each input, by default runs of `group_size`.

use std::ops::Range;

use super::{Quantized, code, word};

impl Quantized<'_> {
    /// Decodes a few rows of the whole matrix into `out`, `[rows.len(), n]`.
    pub(super) fn decode_gptq(
        &self,
        (bits, less_one): (usize, bool),
        run: usize,
        rows: Range<usize>,
        out: &mut [f32],
    ) {
        let (m, count) = (self.rows, rows.len());
        let groups = self.scale_count() / m;
        let zero_words = m * bits / 32;
        let (mut scales, mut zeros) = (vec![0.0; groups * count], vec![0.0; groups * count]);
        for (group, (scales, zeros)) in
            scales.chunks_exact_mut(count).zip(zeros.chunks_exact_mut(count)).enumerate()
        {
            self.decode_scales(group * m + rows.start, scales);
            for (zero, row) in zeros.iter_mut().zip(rows.clone()) {
                let stream = |at| self.zeros.map_or(0, |zeros| word(zeros, group * zero_words + at));
                *zero = match (less_one, bits) {
                    (false, _) => code(bits, row, stream),
                    (true, 3) => (code(bits, row, stream) + 1.0) % 8.0,
                    // A zero of 0 was stored by a borrow from the next, which the sum of whole words returns.
                    (true, _) => code(bits, row, |at| stream(at).wrapping_add(u32::MAX / ((1 << bits) - 1))),
                };
            }
        }
        for input in 0..self.cols {
            let group = self.groups.map_or(input / run, |groups| word(groups, input) as usize);
            let (scales, zeros) = (&scales[group * count..][..count], &zeros[group * count..][..count]);
            for (i, row) in rows.clone().enumerate() {
                let code = code(bits, input, |at| word(self.codes.1, at * m + row));
                out[i * self.cols + input] = (code - zeros[i]) * scales[i];
            }
        }
    }
}
