//! The transformer against the numbers of other programs.

mod architectures;
mod gradients;
