//! How one tensor of a base is stored: its names, its type, its shape and its bytes' place.
//!
//! The scales and zero points of a quantized matrix are tensors of their own. What they mean says [`super::nbits`].

use curmerge_formats::dtype::DType;

/// Where a tensor that belongs to another lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name in the container.
    pub stored_name: String,
    /// How its numbers are stored.
    pub dtype: DType,
    /// Index of its file.
    pub file: usize,
    /// First byte, counted from the start of that file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// How the codes of a matrix become numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NBitsTensors {
    /// Bits of a code: 2, 4 or 8.
    pub bits: usize,
    /// Columns of a block; the last of a row may be filled up.
    pub block_size: usize,
    /// One scale a block.
    pub scales: StoredTensor,
    /// One zero point a block: packed codes where it is [`DType::U8`], else floats.
    pub zero_points: Option<StoredTensor>,
}

impl NBitsTensors {
    /// Bytes of a row's codes.
    pub fn row_bytes(&self, cols: u64) -> u64 {
        cols.div_ceil(self.block_size as u64) * self.block_bytes() as u64
    }

    /// Bytes of a block's codes.
    pub fn block_bytes(&self) -> usize {
        self.block_size * self.bits / 8
    }

    /// What the form is called in reports and adapters.
    pub fn name(&self) -> String {
        nbits_name(self.bits, self.block_size)
    }
}

/// What a form of blocks is called: `INT4/32` for codes of 4 bits in blocks of 32 columns.
pub(super) fn nbits_name(bits: usize, block_size: usize) -> String {
    format!("INT{bits}/{block_size}")
}

/// The outputs that a matrix has within a tensor that holds those of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The first of them.
    pub start: u64,
    /// All outputs of the tensor.
    pub of: u64,
}

/// Where one tensor of the base is stored, and under which names.
#[derive(Clone, Debug)]
pub struct BaseTensor {
    /// The name in the container (`blk.0.attn_q.weight`, `model.layers.0.self_attn.q_proj.weight`).
    pub stored_name: String,
    /// How its numbers are stored; of a matrix in blocks, their codes.
    pub dtype: DType,
    /// As it is stored, slowest first: `[out, in]` for a matrix unless it is transposed, `[n]` for a vector.
    pub shape: Vec<u64>,
    /// Index of its file within [`super::Files`].
    pub file: usize,
    /// First byte, counted from the start of that file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Heads whose two rotary halves the container keeps apart, where the canonical layout interleaves them.
    pub rotary_halves: Option<usize>,
    /// Whether the container stores the matrix as `[in, out]`.
    pub transposed: bool,
    /// Whether the container stores one less than the numbers.
    pub unit_offset: bool,
    /// Where the codes of a matrix in blocks have their scales.
    pub nbits: Option<NBitsTensors>,
    /// Its place, where it is stored with others as one; offset and bytes are then those of all.
    pub slice: Option<Slice>,
}

impl BaseTensor {
    /// Bytes of its own numbers: of one that is stored with others its share, of one in blocks with scales and zero points.
    pub fn own_bytes(&self) -> u64 {
        let outputs = self.shape.get(usize::from(self.transposed)).copied().unwrap_or(0);
        let share = |bytes: u64| self.slice.as_ref().map_or(bytes, |slice| bytes / slice.of.max(1) * outputs);
        let beside = self.nbits.iter().flat_map(|nbits| [Some(&nbits.scales), nbits.zero_points.as_ref()]);
        share(self.bytes) + beside.flatten().map(|part| share(part.bytes)).sum::<u64>()
    }

    /// How its numbers are stored: the type's name, or that of its form of blocks.
    pub fn type_name(&self) -> String {
        self.nbits.as_ref().map_or_else(|| self.dtype.name().to_string(), NBitsTensors::name)
    }
}
