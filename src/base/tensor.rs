//! How one tensor of a base is stored: its name in the container, its type, its shape and where its bytes
//! are.
//!
//! The scales and zero points of a matrix in MatMulNBits' form are tensors of their own; [`super::nbits`]
//! decodes them.

use curmerge_formats::dtype::DType;

use super::quantized::{QuantizedTensors, Scheme};
use super::row_order::RowOrder;

/// Where a tensor is stored, without its shape: the scales or zero points of a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name in the container.
    pub stored_name: String,
    /// The type of its numbers.
    pub dtype: DType,
    /// Index of its file.
    pub file: usize,
    /// First byte, counted from the start of that file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// The tensors that turn the codes of a matrix in MatMulNBits' form into numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NBitsTensors {
    /// Bits of a code: 2, 4 or 8.
    pub bits: usize,
    /// Columns of a block. The last block of a row may be padded.
    pub block_size: usize,
    /// One scale per block.
    pub scales: StoredTensor,
    /// One zero point per block: packed codes if the type is [`DType::U8`], else floats.
    pub zero_points: Option<StoredTensor>,
}

impl NBitsTensors {
    /// Bytes of the codes of a row with `cols` columns.
    pub fn row_bytes(&self, cols: u64) -> u64 {
        cols.div_ceil(self.block_size as u64) * self.block_bytes() as u64
    }

    /// Bytes of the codes of a block.
    pub fn block_bytes(&self) -> usize {
        self.block_size * self.bits / 8
    }

    /// The form's name in reports and adapters: `INT4/32` for 4 bits in blocks of 32 columns.
    pub fn name(&self) -> String {
        nbits_name(self.bits, self.block_size)
    }
}

/// The name of a form in reports and adapters.
pub(super) fn nbits_name(bits: usize, block_size: usize) -> String {
    format!("INT{bits}/{block_size}")
}

/// The outputs of one matrix, or the entries of one bias, within a tensor that joins several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its first output.
    pub start: u64,
    /// The number of outputs of the whole tensor.
    pub of: u64,
    /// The distance from one of its outputs to the next.
    pub step: u64,
}

/// How one tensor of the base is stored.
#[derive(Clone, Debug)]
pub struct BaseTensor {
    /// The name in the container (`blk.0.attn_q.weight`, `model.layers.0.self_attn.q_proj.weight`).
    pub stored_name: String,
    /// The type of its numbers, or of its codes for a matrix with [`Self::nbits`].
    pub dtype: DType,
    /// The stored shape, slowest dimension first: `[out, in]` for a matrix (`[in, out]` if transposed), `[n]`
    /// for a vector, `[experts, out, in]` for the matrices of all experts.
    pub shape: Vec<u64>,
    /// Index of its file within [`super::Files`].
    pub file: usize,
    /// First byte, counted from the start of that file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// The number of heads if the container stores the two rotary halves of each head apart. The canonical
    /// layout interleaves them.
    pub rotary_halves: Option<usize>,
    /// The order in the container: of rows or entries, and of columns.
    pub orders: [RowOrder; 2],
    /// Whether the container stores the matrix as `[in, out]`.
    pub transposed: bool,
    /// Whether the container stores the numbers less 1, as Gemma does for norms.
    pub unit_offset: bool,
    /// Whether the container stores the logarithms of the negated numbers.
    pub log_of_negative: bool,
    /// Scales and zero points, if the tensor holds codes of MatMulNBits.
    pub nbits: Option<NBitsTensors>,
    /// What turns its codes into numbers, if another program quantized it. Type, offset and bytes are those of
    /// the codes.
    pub quantized: Option<QuantizedTensors>,
    /// Its outputs within a tensor that joins several matrices. Offset and bytes are then those of the whole tensor; of
    /// an expert's plain matrix, those of the expert's part.
    pub slice: Option<Slice>,
}

impl BaseTensor {
    /// Bytes of its own numbers, with scales and zero points; its share only of a tensor that joins several
    /// matrices.
    pub fn own_bytes(&self) -> u64 {
        let outputs = self.shape.get(usize::from(self.transposed)).copied().unwrap_or(0);
        let share = |bytes: u64| self.slice.as_ref().map_or(bytes, |slice| bytes / slice.of.max(1) * outputs);
        let beside = self.nbits.iter().flat_map(|nbits| [Some(&nbits.scales), nbits.zero_points.as_ref()]);
        let quantized = self.quantized.iter().flat_map(QuantizedTensors::parts);
        share(self.bytes) + beside.flatten().chain(quantized).map(|part| share(part.bytes)).sum::<u64>()
    }

    /// Whether its bytes alone are its numbers.
    pub fn is_plain(&self) -> bool {
        self.nbits.is_none() && self.quantized.is_none()
    }

    /// Whether its codes are MXFP4's as transformers stores them.
    pub fn is_mxfp4(&self) -> bool {
        self.quantized.as_ref().is_some_and(|quantized| quantized.scheme == Scheme::Mxfp4)
    }

    /// The name of the type of its numbers, or of the form of its codes.
    pub fn type_name(&self) -> String {
        match (&self.nbits, &self.quantized) {
            (Some(nbits), _) => nbits.name(),
            (_, Some(quantized)) => quantized.method.to_owned(),
            _ => self.dtype.name().to_string(),
        }
    }
}
