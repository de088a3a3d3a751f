//! The transformer: frozen weights with trained terms. The forward and the backward pass of each layer are in
//! one file.
//!
//! A decoder embeds tokens, passes the residual stream through its blocks, norms it, and turns it into logits
//! (the LM head). A block adds attention and a feed-forward network to the residual stream: `block`, `mixer` with
//! `attention`, `delta_net` and `short_convolution`, `rope`, `norm`, `residual`, `feed_forward` with `mlp` and `mixture`, and in some models
//! `per_layer_input`. All matrices are
//! [`Linear`]s, to which an adapter attaches [`Term`]s: what a method trains, in `terms`.
//!
//! Activations are `[tokens, channels]`. The sequences of a batch are concatenated without padding.
//! Everything is generic over [`Real`](crate::kernels::Real), so that gradients can be checked by finite
//! differences in f64.

mod activation;
mod adapted_matrix;
mod adapter;
mod attention;
mod batch;
mod block;
mod build;
mod convolution;
mod delta_net;
mod feed_forward;
mod generate;
mod gradients;
mod linear;
mod lm_head;
mod mamba2;
mod mixer;
mod mixture;
mod mlp;
mod mlp_and_experts;
mod norm;
mod packing;
mod pass;
mod per_layer_input;
mod recurrence;
mod residual;
mod rope;
mod router;
mod row_product;
mod sampler;
mod shared_expert;
mod short_convolution;
mod sublayer;
mod terms;
#[cfg(test)]
mod tests;
mod token_factors;
mod transformer;
mod write;

pub use adapted_matrix::AdaptedMatrix;
pub use batch::{Batch, input_tokens};
pub use generate::{Generator, Sequence};
pub use linear::Linear;
pub use lm_head::{Comparison, PackedHead, Prediction};
pub use sampler::{Sampler, SamplingOptions};
pub use terms::{BackwardPass, CurTerm, LoraTerm, LoraXsTerm, Probe, Term, TermSink, TimesWeight};
pub use transformer::Transformer;
pub use write::Next;
