//! Matrix products (GEMM) of packed operands: `C = A B` with A `[m, k]`, B `[k, n]` and C `[m, n]`.
//!
//! Each operand is packed once into the layout that the processor multiplies fastest, however many tiles read
//! it. The left operand A is a [`PackedLhs`], usually activations: for f32 a view of the array, for bfloat16
//! a rounded copy. The right operand B is a [`PackedRhs`]: panels of a few columns, packed from activations
//! or from a stored matrix (or its transpose) while it is decoded.
//!
//! The design and its names follow BLIS (Van Zee and van de Geijn 2015, doi 10.1145/2764454): `multiply`
//! blocks the product into tiles for the threads and the caches; a [`MicroKernel`](micro_kernel::MicroKernel)
//! computes `mr x nr` numbers of C in registers. `simd` holds the one micro-kernel body that all instruction
//! sets share; `portable`, `x86` and `neon` supply the instructions; `select` picks among them.
//!
//! Every number of C is summed over k in order, in blocks of fixed size. No result depends on how the work is
//! tiled or on the number of threads.

mod matrix;
mod micro_kernel;
mod multiply;
#[cfg(target_arch = "aarch64")]
mod neon;
mod packed_lhs;
mod packed_rhs;
mod portable;
mod select;
mod simd;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use matrix::Matrix;
pub use multiply::{multiply, multiply_tile};
pub use packed_lhs::PackedLhs;
pub use packed_rhs::PackedRhs;
pub use select::rounds_to_bf16;
