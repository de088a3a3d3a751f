//! The transformer against other programs' numbers.

mod architectures;
mod gradients;
