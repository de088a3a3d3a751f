//! What tokens and their positions decide before any block: RoPE's angles, the temperature of attention, and the inputs of
//! a token for every block.

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use super::rope::{CosSin, RotaryEmbedding};
use crate::base::AttentionTemperature;
use crate::kernels::{Real, elementwise};

const CONTIGUOUS: &str = "activations are row-major";

/// The factors of the tokens of a pass.
#[derive(Clone, Debug)]
pub(super) struct TokenFactors<T> {
    /// One for each of the model's rotary embeddings.
    pub cos_sin: Vec<CosSin<T>>,
    /// The inputs of each token for every block, if the model has them: `[tokens, blocks * width]`.
    pub per_layer_inputs: Option<Array2<T>>,
    /// The factor of each token's query, if the model has such factors: `[tokens]`.
    query: Option<Vec<T>>,
}

impl<T: Real> TokenFactors<T> {
    /// Of tokens at these positions.
    pub fn new(
        ropes: &[RotaryEmbedding],
        temperature: Option<AttentionTemperature>,
        positions: &[usize],
        per_layer_inputs: Option<Array2<T>>,
    ) -> Self {
        let scale = |temperature: AttentionTemperature| {
            positions.iter().map(|&position| T::from_f64(temperature.factor(position))).collect()
        };
        Self {
            cos_sin: ropes.iter().map(|rope| rope.cos_sin(positions)).collect(),
            per_layer_inputs,
            query: temperature.map(scale),
        }
    }

    /// Multiplies the queries `[tokens, heads * head_dim]`, or their gradient, by the tokens' factors.
    pub fn scale_queries(&self, q: &mut Array2<T>) {
        let Some(factors) = &self.query else { return };
        q.axis_iter_mut(Axis(0)).into_par_iter().zip(factors).for_each(|(mut q, &factor)| {
            elementwise::scale(q.as_slice_mut().expect(CONTIGUOUS), factor);
        });
    }
}
