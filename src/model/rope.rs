//! Rotary position embeddings (RoPE, Su et al. 2021, arXiv 2104.09864). In the canonical layout the two
//! entries of a rotated pair are adjacent (`RopeInterleaved`) or half the rotated length apart (`RopeHalf`).

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use crate::arch::Positions;
use crate::base::Rope;
use crate::kernels::{Real, rope};

/// Token rows that one thread processes at a time.
const TILE: usize = 16;

const CONTIGUOUS: &str = "rows of products and angles are contiguous";

/// The RoPE of a model, or of some of its blocks.
#[derive(Clone, Debug)]
pub struct RotaryEmbedding {
    /// The frequency of each pair, in radians per position: `[rope_dim / 2]`.
    frequencies: Vec<f64>,
    /// The factor of cosines and sines.
    amplitude: f64,
    positions: Positions,
}

/// Cosines and sines of every token and pair, `[tokens, rope_dim / 2]` each.
#[derive(Clone, Debug)]
pub struct CosSin<T> {
    cos: Array2<T>,
    sin: Array2<T>,
}

impl RotaryEmbedding {
    /// For sequences of at most `context` tokens.
    pub fn new(rope: &Rope, positions: Positions, context: usize) -> Self {
        let frequencies = rope.frequencies(context);
        Self { frequencies, amplitude: rope.amplitude, positions }
    }

    /// The cosines and sines of tokens at these positions.
    pub fn cos_sin<T: Real>(&self, positions: &[usize]) -> CosSin<T> {
        let angle = |(token, pair): (usize, usize)| positions[token] as f64 * self.frequencies[pair];
        let shape = (positions.len(), self.frequencies.len());
        CosSin {
            cos: Array2::from_shape_fn(shape, |i| T::from_f64(self.amplitude * angle(i).cos())),
            sin: Array2::from_shape_fn(shape, |i| T::from_f64(self.amplitude * angle(i).sin())),
        }
    }

    /// Rotates every head of `x` `[tokens, heads * head_dim]` in place.
    pub fn forward<T: Real>(&self, x: &mut Array2<T>, at: &CosSin<T>, head_dim: usize) {
        self.rotate(x, at, head_dim, T::one());
    }

    /// Rotates a gradient by the opposite angles, which is the transpose.
    pub fn backward<T: Real>(&self, dx: &mut Array2<T>, at: &CosSin<T>, head_dim: usize) {
        self.rotate(dx, at, head_dim, -T::one());
    }

    fn rotate<T: Real>(&self, x: &mut Array2<T>, at: &CosSin<T>, head_dim: usize, sign: T) {
        x.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter().enumerate().for_each(|(tile, mut rows)| {
            for (i, mut row) in rows.rows_mut().into_iter().enumerate() {
                let (cos, sin) = (at.cos.row(tile * TILE + i), at.sin.row(tile * TILE + i));
                let (cos, sin) = (cos.to_slice().expect(CONTIGUOUS), sin.to_slice().expect(CONTIGUOUS));
                let row = row.as_slice_mut().expect(CONTIGUOUS);
                for head in row.chunks_exact_mut(head_dim) {
                    match self.positions {
                        Positions::RopeInterleaved => rope::rotate_interleaved(head, cos, sin, sign),
                        Positions::RopeHalf => {
                            rope::rotate_half(&mut head[..2 * cos.len()], cos, sin, sign);
                        }
                        Positions::Learned => {}
                    }
                }
            }
        });
    }
}
