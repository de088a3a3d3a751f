//! Matrices of one byte a number, fp8 (E4M3) or int8, with a scale for each block, for each output, or for the
//! whole matrix: `weight_scale_inv` of DeepSeek's and Qwen's fp8 folders, `weight_scale` of compressed-tensors
//! (`float-quantized`, `int-quantized`, `naive-quantized`). Scales of activations are not read: curmerge does
//! not quantize activations.

use std::ops::Range;
use std::sync::LazyLock;

use curmerge_formats::dtype::DType;

use super::Quantized;

/// The numbers of E4M3 in the variant without infinities (Micikevicius et al. 2022, arXiv 2209.05433).
static E4M3: LazyLock<[f32; 256]> = LazyLock::new(|| std::array::from_fn(|byte| e4m3(byte as u8)));

fn e4m3(byte: u8) -> f32 {
    let (exponent, fraction) = (i32::from(byte >> 3 & 15), f32::from(byte & 7) / 8.0);
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction * 2f32.powi(-6),
        _ => (1.0 + fraction) * 2f32.powi(exponent - 7),
    };
    if byte < 128 { size } else { -size }
}

impl Quantized<'_> {
    /// Decodes a few rows of the whole matrix into `out`, `[rows.len(), n]`.
    pub(super) fn decode_scaled(&self, block: [usize; 2], rows: Range<usize>, out: &mut [f32]) {
        let [height, width] = block;
        let mut scales = vec![0.0; self.cols.div_ceil(width)];
        let (dtype, codes) = self.codes;
        for (row, out) in rows.zip(out.chunks_exact_mut(self.cols)) {
            self.decode_scales(row / height * scales.len(), &mut scales);
            let codes = &codes[row * self.cols..][..self.cols];
            for ((out, codes), scale) in out.chunks_mut(width).zip(codes.chunks(width)).zip(&scales) {
                for (out, &code) in out.iter_mut().zip(codes) {
                    let value = match dtype {
                        DType::I8 => f32::from(code.cast_signed()),
                        _ => E4M3[usize::from(code)],
                    };
                    *out = value * scale;
                }
            }
        }
    }
}
