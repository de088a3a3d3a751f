//! AWQ (Lin et al. 2023, arXiv 2306.00978) as AutoAWQ stores it (version `gemm`), for W `[m, n]` with codes of
//! 4 bits in words of 32, 8 outputs each in the order [`ORDER`]:
//!
//! - `qweight` `[n, m / 8]`; `qzeros` `[groups, m / 8]`; `scales` `[groups, m]`, for runs of `group_size` inputs.

use std::ops::Range;

use super::{Quantized, word};

/// Which code of a word, from the lowest, is that of each of its 8 outputs.
const ORDER: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

impl Quantized<'_> {
    /// Decodes a few rows of the whole matrix into `out`, `[rows.len(), n]`.
    pub(super) fn decode_awq(&self, run: usize, rows: Range<usize>, out: &mut [f32]) {
        let (m, count) = (self.rows, rows.len());
        let words = m / 8;
        let code = |bytes: &[u8], line: usize, row: usize| {
            (word(bytes, line * words + row / 8) >> (4 * ORDER[row % 8]) & 15) as f32
        };
        let (mut scales, mut zeros) = (vec![0.0; count], vec![0.0; count]);
        for input in 0..self.cols {
            let group = input / run;
            if input % run == 0 {
                self.decode_scales(group * m + rows.start, &mut scales);
                for (zero, row) in zeros.iter_mut().zip(rows.clone()) {
                    *zero = self.zeros.map_or(8.0, |zeros| code(zeros, group, row));
                }
            }
            for (i, row) in rows.clone().enumerate() {
                out[i * self.cols + input] = (code(self.codes.1, input, row) - zeros[i]) * scales[i];
            }
        }
    }
}
