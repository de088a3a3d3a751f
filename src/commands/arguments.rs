//! Options that several commands share.

use std::path::PathBuf;

use clap::Args;

use crate::cur::Selection;
use crate::kernels::Precision;

/// Which matrices a new adapter changes, and through which of their columns and rows.
#[derive(Clone, Debug, Args)]
pub struct SelectionArgs {
    /// Columns and rows of each matrix; U has rank * rank numbers.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub rank: u32,
    /// Matrices to adapt: q k v o gate up down, all, or canonical names, with commas between.
    #[arg(long, default_value = "q,k,v")]
    pub targets: String,
    /// How columns and rows are drawn.
    #[arg(long, value_enum, default_value_t = Selection::Reference)]
    pub select: Selection,
    /// Seed of the draw and, in training, of the order of examples.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// The adapter that a model is run with.
#[derive(Clone, Debug, Args)]
pub struct AdapterArgs {
    /// Adapter to put beside it.
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// Multiplies the adapter's own scale.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true, requires = "adapter")]
    pub scale: f32,
    /// Use an adapter that was trained on other values of this model, such as another quantization.
    #[arg(long, requires = "adapter")]
    pub allow_other_base: bool,
}

/// How the model computes.
#[derive(Clone, Copy, Debug, Args)]
pub struct ComputeArgs {
    /// Products with the model's matrices: f32, or bf16, which is faster where the processor has AVX-512 BF16 and the
    /// same as f32 elsewhere.
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
}

impl AdapterArgs {
    /// No adapter, or this one as it is.
    pub fn plain(adapter: Option<PathBuf>) -> Self {
        AdapterArgs { adapter, scale: 1.0, allow_other_base: false }
    }
}
