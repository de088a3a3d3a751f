//! The number formats of matrix products.

/// What the products of activations and frozen matrices are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Products of f32.
    #[default]
    F32,
    /// Products of bfloat16, summed in f32; f32 where the processor has no such products.
    Bf16,
}

impl Precision {
    /// Every precision.
    pub const ALL: &[Self] = &[Self::F32, Self::Bf16];

    /// The name on the command line and in checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}
