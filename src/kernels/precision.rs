//! The number formats of matrix products.

#[cfg(target_arch = "x86_64")]
use super::cpu::{self, Cpu};

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

    /// Bf16 where the processor has such products and they are faster, else F32. Intel's processors start one instruction
    /// for pairs of bfloat16 where they start two for f32, so that rounding only costs time there; AMD's take 0.53 of the
    /// time.
    pub fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if Cpu::current() == Cpu::Avx512bf16 && !cpu::is_of_intel() {
            return Self::Bf16;
        }
        Self::F32
    }

    /// The name on the command line and in checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}
