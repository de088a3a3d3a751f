//! Arithmetic that the model is built of: matrix products and the number types they run on.
//!
//! The rest of the program never sees a pointer or an instruction set. Work is cut into tiles, each computed by one
//! thread, and no number depends on how: results are the same bytes at any thread count. What a processor can do beyond
//! the least of its kind is found out at run time, in [`Cpu`].

pub mod activation;
mod cpu;
pub mod elementwise;
mod matmul;
pub mod norms;
mod product;
mod real;
mod spare;
mod stored;

pub use cpu::Cpu;
pub(crate) use cpu::Work;
pub use matmul::{matmul, matmul_single};
pub use product::{Matrix, Panels, Rows, multiply};
pub use real::Real;
pub use stored::Stored;

/// What the products of activations and stored matrices are computed in.
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
