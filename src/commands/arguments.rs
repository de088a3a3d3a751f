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

/// A number of bytes, with K, M, G or T behind it (or KB and so on, as Hugging Face writes them) of thousands.
pub fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let size = upper.strip_suffix('B').unwrap_or(&upper);
    let units = [('K', 1000), ('M', 1_000_000), ('G', 1_000_000_000), ('T', 1_000_000_000_000u64)];
    let (number, unit) = units
        .iter()
        .find_map(|&(letter, unit)| Some((size.strip_suffix(letter)?, unit)))
        .unwrap_or((size, 1));
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|&bytes| bytes > 0).ok_or_else(|| "use a whole number such as 2G or 500M".into())
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_count_in_thousands() {
        for (text, bytes) in
            [("2G", 2_000_000_000), ("500M", 500_000_000), ("5gb", 5_000_000_000), ("7 KB", 7000), ("12", 12)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "B", "0", "0M", "-1G", "1.5G", "2GiB", "99999999999T", "1MM"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
