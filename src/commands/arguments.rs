//! Options that several commands share.

use std::path::PathBuf;

use clap::Args;
use curmerge_formats::dtype::DType;

use crate::cur::Selection;
use crate::merge::Storage;

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

impl AdapterArgs {
    /// No adapter, or this one as it is.
    pub fn plain(adapter: Option<PathBuf>) -> Self {
        AdapterArgs { adapter, scale: 1.0, allow_other_base: false }
    }
}

/// How a merge stores the tensors that it changes.
#[derive(Clone, Debug, Args)]
pub struct StorageArgs {
    /// How to store the changed tensors: f32, f16, bf16, q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, iq4_nl, iq4_xs,
    /// mxfp4, q3_k or q2_k; or auto, each as narrow as --fidelity allows [default: as the base stores them].
    #[arg(long = "type", alias = "type-adapted", value_name = "TYPE", value_parser = parse_type)]
    storage: Option<Storage>,
    /// With --type auto: the least cosine between what is written and the adapter's change.
    #[arg(long, default_value_t = 0.9, value_name = "COSINE", value_parser = parse_fidelity)]
    fidelity: f64,
}

impl StorageArgs {
    /// What was asked for.
    pub fn storage(&self) -> Storage {
        match self.storage {
            Some(Storage::Narrowest { .. }) => Storage::Narrowest { fidelity: self.fidelity },
            other => other.unwrap_or_default(),
        }
    }

    /// Whether anything was asked for.
    pub fn is_given(&self) -> bool {
        self.storage.is_some()
    }
}

fn parse_type(name: &str) -> Result<Storage, String> {
    if name.eq_ignore_ascii_case("auto") {
        // `StorageArgs::storage` puts in what --fidelity says.
        return Ok(Storage::Narrowest { fidelity: 0.0 });
    }
    DType::parse(name)
        .filter(|dtype| dtype.can_encode() && *dtype != DType::F64)
        .map(Storage::Only)
        .ok_or_else(|| "use auto, or one of the types that `curmerge merge --help` lists".into())
}

fn parse_fidelity(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|x| (0.0..=1.0).contains(x));
    number.ok_or_else(|| "use a number from 0 to 1".into())
}
