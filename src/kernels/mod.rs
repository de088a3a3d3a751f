//! The arithmetic that the model is built of: number types, matrix products, and vector loops.
//!
//! Code above this module sees no pointer and no instruction set. [`Cpu`] detects at run time which
//! instructions the processor has. Work is cut into tiles, one thread for each, and no result depends on the
//! cut: bytes are the same at any thread count.
//!
//! From the bottom up: [`Cpu`], [`Precision`], buffer pools and packed [products](multiply); the number
//! types, [`Real`]; loops over vectors of them; and arrays [saved](SavedActivation) for the backward pass.

pub mod activation;
pub mod bf16;
mod cpu;
pub mod decode_attention;
pub(crate) mod eigen;
pub mod elementwise;
mod math;
mod matmul;
pub mod norms;
mod pool;
mod precision;
mod product;
pub mod random;
mod real;
pub mod reduce;
pub mod rope;
pub mod row_product;
mod saved_activation;
pub mod softmax;
pub mod svd;

pub use cpu::Cpu;
pub(crate) use cpu::Multiversion;
pub use matmul::{matmul, matmul_single};
pub use precision::Precision;
pub use product::{Matrix, PackedLhs, PackedRhs, multiply};
pub use real::Real;
pub use row_product::RowProducts;
pub use saved_activation::SavedActivation;
