//! Arithmetic that the model is built of: matrix products and the number types they run on.
//!
//! The rest of the program never sees a pointer or an instruction set. Work is cut into tiles whose size does not depend
//! on the number of threads, and each tile is computed by one thread, so results are the same bytes at any thread count.

mod matmul;
mod real;

pub use matmul::{matmul, matmul_single};
pub use real::Real;
