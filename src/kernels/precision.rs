//! The number formats of matrix products.

/// What the products of activations and frozen matrices are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// Products of f32.
    #[default]
    F32,
    /// Products of bfloat16, summed in f32; f32 where the processor has no such products.
    Bf16,
}
