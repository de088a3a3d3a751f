//! Matrices of Hugging Face folders that other programs quantized: codes in one tensor, scales and what else
//! turns them into numbers in tensors beside it. A value is `(code - zero) scale`, computed in f32.
//!
//! | method | tensors of a matrix | file |
//! |---|---|---|
//! | GPTQ | `qweight`, `qzeros`, `scales`, `g_idx` | `gptq.rs` |
//! | AWQ | `qweight`, `qzeros`, `scales` | `awq.rs` |
//! | fp8, compressed-tensors | `weight`, `weight_scale_inv` or `weight_scale` | `scaled.rs` |
//! | MXFP4 of gpt-oss | `_blocks`, `_scales` | `mxfp4.rs` |
//! | compressed-tensors | `weight_packed`, `weight_scale`, `weight_zero_point`, `weight_shape` | `packed.rs` |

mod awq;
mod gptq;
mod join;
mod mxfp4;
mod packed;
mod scaled;
mod settings;

use std::ops::Range;

use curmerge_formats::dtype::DType;
use curmerge_formats::quant;

use super::tensor::StoredTensor;
pub(super) use join::{Joined, Matrix, join};
pub use settings::{BESIDE as SETTINGS_BESIDE, Method};

/// Rows that are decoded together: their codes share cache lines.
const TILE: usize = 16;

const CHECKED: &str = "opening the folder checked types and lengths";

/// How the codes of a matrix become numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Codes along the inputs; see `gptq.rs`.
    Gptq {
        /// Bits of a code: 2, 3, 4 or 8.
        bits: usize,
        /// Whether zeros are stored less 1, as in all but the second version of the format.
        less_one: bool,
        /// Inputs of a group, where groups are runs of inputs.
        run: usize,
    },
    /// Codes of 4 bits along the outputs; see `awq.rs`.
    Awq {
        /// Inputs of a group.
        run: usize,
    },
    /// Codes along the inputs of each output; see `packed.rs`.
    Packed {
        /// Bits of a code: 4 or 8.
        bits: usize,
        /// Inputs of a group.
        run: usize,
    },
    /// Codes of 4 bits along the inputs of each output; see `mxfp4.rs`.
    Mxfp4,
    /// One number a code; see `scaled.rs`.
    Scaled {
        /// Outputs and inputs that share a scale.
        block: [usize; 2],
    },
}

/// The tensors beside the codes of a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizedTensors {
    /// How they are used.
    pub scheme: Scheme,
    /// The method's name, for reports.
    pub method: &'static str,
    /// The name of the codes in the container.
    pub codes_name: String,
    /// Scales.
    pub scales: StoredTensor,
    /// Zeros, packed like codes.
    pub zeros: Option<StoredTensor>,
    /// The group of each input, where groups are not runs of inputs.
    pub groups: Option<StoredTensor>,
}

impl QuantizedTensors {
    /// The tensors.
    pub(super) fn parts(&self) -> impl Iterator<Item = &StoredTensor> {
        [Some(&self.scales), self.zeros.as_ref(), self.groups.as_ref()].into_iter().flatten()
    }
}

/// A borrowed matrix `[rows, cols]` in codes, or some of its rows.
#[derive(Clone, Copy, Debug)]
pub struct Quantized<'a> {
    scheme: Scheme,
    /// Of the whole matrix.
    rows: usize,
    cols: usize,
    /// The first row of this part.
    first: usize,
    codes: (DType, &'a [u8]),
    scales: (DType, &'a [u8]),
    /// Numbers of 32 bits.
    zeros: Option<&'a [u8]>,
    groups: Option<&'a [u8]>,
}

impl<'a> Quantized<'a> {
    /// For a matrix `[rows, cols]` with codes of this type. `bytes` gives the bytes of a stored tensor.
    pub(super) fn new(
        tensors: &QuantizedTensors,
        [rows, cols]: [u64; 2],
        codes: (DType, &'a [u8]),
        bytes: impl Fn(&StoredTensor) -> &'a [u8],
    ) -> Self {
        Self {
            scheme: tensors.scheme,
            rows: rows as usize,
            cols: cols as usize,
            first: 0,
            codes,
            scales: (tensors.scales.dtype, bytes(&tensors.scales)),
            zeros: tensors.zeros.as_ref().map(&bytes),
            groups: tensors.groups.as_ref().map(&bytes),
        }
    }

    /// The same from this row on.
    pub(super) fn starting_at(self, row: usize) -> Self {
        Self { first: self.first + row, ..self }
    }

    /// Rows of the whole matrix.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The stored bytes: codes, scales, zeros and groups.
    pub(super) fn stored_bytes(&self) -> impl Iterator<Item = &'a [u8]> {
        [Some(self.codes.1), Some(self.scales.1), self.zeros, self.groups].into_iter().flatten()
    }

    /// Decodes stored rows into `out`, `[rows.len(), cols]` in row-major order.
    pub(super) fn decode_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        let (start, end) = (self.first + rows.start, self.first + rows.end);
        let tiles = (start..end).step_by(TILE).map(|tile| tile..(tile + TILE).min(end));
        for (tile, out) in tiles.zip(out.chunks_mut(TILE * self.cols)) {
            match self.scheme {
                Scheme::Gptq { bits, less_one, run } => self.decode_gptq((bits, less_one), run, tile, out),
                Scheme::Awq { run } => self.decode_awq(run, tile, out),
                Scheme::Packed { bits, run } => self.decode_packed(bits, run, tile, out),
                Scheme::Mxfp4 => self.decode_mxfp4(tile, out),
                Scheme::Scaled { block } => self.decode_scaled(block, tile, out),
            }
        }
    }

    /// Scales from this one on.
    fn decode_scales(&self, from: usize, out: &mut [f32]) {
        let (dtype, bytes) = self.scales;
        let size = dtype.block_bytes();
        quant::decode(dtype, &bytes[from * size..][..out.len() * size], out).expect(CHECKED);
    }

    /// The number of scales.
    fn scale_count(&self) -> usize {
        self.scales.1.len() / self.scales.0.block_bytes()
    }
}

/// The number of 32 bits at this index.
fn word(bytes: &[u8], index: usize) -> u32 {
    let bytes = &bytes[index * 4..][..4];
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The code of `bits` bits at this place of a stream of words, lowest bits first. `word` gives a word of the
/// stream.
fn code(bits: usize, index: usize, word: impl Fn(usize) -> u32) -> f32 {
    let (at, shift) = (index * bits / 32, index * bits % 32);
    let mut value = word(at) >> shift;
    if shift + bits > 32 {
        value |= word(at + 1) << (32 - shift);
    }
    (value & ((1 << bits) - 1)) as f32
}
