//! MXFP4 as transformers stores it for gpt-oss, for W `[m, n]` (OCP Microscaling Formats specification 1.0):
//!
//! - `_blocks` `[.., n / 32, 16]`: for each output its codes of 4 bits (E2M1) along the inputs, two in a byte, the
//!   lower half first;
//! - `_scales` `[.., n / 32]`: a power of two for each run of 32 inputs (E8M0).
//!
//! GGUF's blocks of the same type keep the scale before the codes, and input i + 16 beside input i.

use std::ops::Range;

use curmerge_formats::dtype::DType;
use curmerge_formats::quant;

use super::{CHECKED, Quantized};

/// Inputs that share a scale.
pub(super) const BLOCK: usize = 32;
const CODE_BYTES: usize = BLOCK / 2;

impl Quantized<'_> {
    /// A row of the whole matrix as GGUF stores it, if the codes are MXFP4.
    pub(crate) fn mxfp4_row(&self, row: usize) -> Option<Vec<u8>> {
        if self.scheme != super::Scheme::Mxfp4 {
            return None;
        }
        let blocks = self.cols / BLOCK;
        let row = self.first + row;
        let scales = &self.scales.1[row * blocks..][..blocks];
        let codes = self.codes.1[row * blocks * CODE_BYTES..][..blocks * CODE_BYTES].chunks_exact(CODE_BYTES);
        let block = |(&scale, codes): (&u8, &[u8])| {
            let code = |input: usize| codes[input / 2] >> (input % 2 * 4) & 15;
            let pairs = (0..CODE_BYTES).map(move |i| code(i) | code(i + CODE_BYTES) << 4);
            std::iter::once(scale).chain(pairs).collect::<Vec<u8>>()
        };
        Some(scales.iter().zip(codes).flat_map(block).collect())
    }

    /// Decodes a few rows of the whole matrix into `out`, `[rows.len(), n]`.
    pub(super) fn decode_mxfp4(&self, rows: Range<usize>, out: &mut [f32]) {
        for (row, out) in rows.zip(out.chunks_exact_mut(self.cols)) {
            let bytes = self.mxfp4_row(row - self.first).expect(CHECKED);
            quant::decode(DType::MXFP4, &bytes, out).expect(CHECKED);
        }
    }
}
