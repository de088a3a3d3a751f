//! Rotary position embeddings (Su et al. 2021, arXiv 2104.09864) on the canonical layout, where the two entries that
//! turn together are neighbours or stand half the rotated length apart.

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use crate::arch::Positions;
use crate::base::{Config, Rope};
use crate::kernels::{Real, elementwise};

/// Token rows that one thread takes at a time.
const TILE: usize = 16;

const CONTIGUOUS: &str = "rows of products and angles are contiguous";

/// The frequencies of a model, or of some of its blocks.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// Radians a position, one a pair of entries: `[rope_dim / 2]`.
    frequencies: Vec<f64>,
    /// What cosines and sines are multiplied by.
    amplitude: f64,
    positions: Positions,
    head_dim: usize,
}

/// Cosines and sines of every pair of every token, `[tokens, rope_dim / 2]` each.
#[derive(Clone, Debug)]
pub struct Angles<T> {
    cos: Array2<T>,
    sin: Array2<T>,
}

impl Rotary {
    /// For sequences of at most `context` tokens.
    pub fn new(config: &Config, rope: &Rope, positions: Positions, context: usize) -> Self {
        let frequencies = rope.frequencies(context);
        Self { frequencies, amplitude: rope.amplitude, positions, head_dim: config.head_dim }
    }

    /// The angles of tokens at these positions.
    pub fn angles<T: Real>(&self, positions: &[usize]) -> Angles<T> {
        let angle = |(token, pair): (usize, usize)| positions[token] as f64 * self.frequencies[pair];
        let shape = (positions.len(), self.frequencies.len());
        Angles {
            cos: Array2::from_shape_fn(shape, |at| T::from_f64(self.amplitude * angle(at).cos())),
            sin: Array2::from_shape_fn(shape, |at| T::from_f64(self.amplitude * angle(at).sin())),
        }
    }

    /// Turn every head of `x` `[tokens, heads * head_dim]` in place.
    pub fn forward<T: Real>(&self, x: &mut Array2<T>, angles: &Angles<T>) {
        self.turn(x, angles, T::one());
    }

    /// Turn a gradient back: by the transpose.
    pub fn backward<T: Real>(&self, dx: &mut Array2<T>, angles: &Angles<T>) {
        self.turn(dx, angles, -T::one());
    }

    fn turn<T: Real>(&self, x: &mut Array2<T>, angles: &Angles<T>, sign: T) {
        x.axis_chunks_iter_mut(Axis(0), TILE).into_par_iter().enumerate().for_each(|(tile, mut rows)| {
            for (i, mut row) in rows.rows_mut().into_iter().enumerate() {
                let (cos, sin) = (angles.cos.row(tile * TILE + i), angles.sin.row(tile * TILE + i));
                let (cos, sin) = (cos.to_slice().expect(CONTIGUOUS), sin.to_slice().expect(CONTIGUOUS));
                let row = row.as_slice_mut().expect(CONTIGUOUS);
                for head in row.chunks_exact_mut(self.head_dim) {
                    match self.positions {
                        Positions::RopeInterleaved => elementwise::rotate(head, cos, sin, sign),
                        Positions::RopeHalf => {
                            elementwise::rotate_halves(&mut head[..2 * cos.len()], cos, sin, sign);
                        }
                        Positions::Learned => {}
                    }
                }
            }
        });
    }
}
