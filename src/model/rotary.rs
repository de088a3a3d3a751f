//! Rotary position embeddings (Su et al. 2021, arXiv 2104.09864) on the canonical layout, where the two entries that
//! turn together are neighbours.

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use crate::base::Config;
use crate::kernels::{Real, elementwise};

/// Token rows that one thread takes at a time.
const TILE: usize = 16;

const CONTIGUOUS: &str = "rows of products and angles are contiguous";

/// The frequencies of a model.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// Radians a position, one a pair of entries: `[rope_dim / 2]`.
    frequencies: Vec<f64>,
    head_dim: usize,
}

/// Cosines and sines of every pair of every token, `[tokens, rope_dim / 2]` each.
#[derive(Clone, Debug)]
pub struct Angles<T> {
    cos: Array2<T>,
    sin: Array2<T>,
}

impl Rotary {
    /// base^(-2i / rope_dim), divided by the model's factors when it has them.
    pub fn new(config: &Config) -> Self {
        let frequency = |i: usize| {
            let plain = config.rope_base.powf(-2.0 * i as f64 / config.rope_dim as f64);
            plain / config.rope_factors.as_ref().map_or(1.0, |f| f[i])
        };
        Self { frequencies: (0..config.rope_dim / 2).map(frequency).collect(), head_dim: config.head_dim }
    }

    /// The angles of tokens at these positions.
    pub fn angles<T: Real>(&self, positions: &[usize]) -> Angles<T> {
        let angle = |(token, pair): (usize, usize)| positions[token] as f64 * self.frequencies[pair];
        let shape = (positions.len(), self.frequencies.len());
        Angles {
            cos: Array2::from_shape_fn(shape, |at| T::from_f64(angle(at).cos())),
            sin: Array2::from_shape_fn(shape, |at| T::from_f64(angle(at).sin())),
        }
    }

    /// Turn every head of `x` `[tokens, heads * head_dim]` in place.
    pub fn forward<T: Real>(&self, x: &mut Array2<T>, angles: &Angles<T>) {
        self.turn(x, angles, T::one());
    }

    /// Turn a gradient back: a rotation's transpose is its inverse.
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
                    elementwise::rotate(head, cos, sin, sign);
                }
            }
        });
    }
}
