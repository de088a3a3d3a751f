//! Second moments of what the probes of a model see.

use curmerge_formats::SafeTensors;
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::orders::name;
use crate::cache::{Cached, Part, numbers};
use crate::kernels::matmul;
use crate::model::TermSink;

/// Token rows whose squares one thread adds up.
const TILE: usize = 128;

/// The diagonals of the second moments of every matrix: of its columns' h and its rows' z.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagonals(Vec<[Vec<f64>; 2]>);

impl Diagonals {
    /// Zeros for matrices of these columns and rows.
    pub(super) fn zeros(shapes: impl Iterator<Item = [usize; 2]>) -> Self {
        Self(shapes.map(|shape| shape.map(|length| vec![0.0; length])).collect())
    }

    /// Those of a matrix: of its columns, `[n]`, and its rows, `[m]`.
    pub(super) fn of(&self, matrix: usize) -> &[Vec<f64>; 2] {
        &self.0[matrix]
    }

    /// Those in a cache's file, for matrices of these columns and rows. `None` if it holds others.
    pub fn restore(file: &SafeTensors, shapes: impl Iterator<Item = [usize; 2]>) -> Option<Self> {
        let sums = |(matrix, shape): (usize, [usize; 2])| {
            let [cols, rows] = [0, 1].map(|side| numbers(file, &name(matrix, side), Some(&[shape[side]])));
            Some([cols?, rows?])
        };
        shapes.enumerate().map(sums).collect::<Option<_>>().map(Self)
    }
}

impl Cached for Diagonals {
    fn parts(&self) -> Vec<Part<'_>> {
        let sides = self.0.iter().enumerate().flat_map(|(matrix, sides)| {
            sides.iter().enumerate().map(move |(side, sums)| (name(matrix, side), sums))
        });
        sides.map(|(name, sums)| Part::new(name, &[sums.len()], sums)).collect()
    }
}

impl TermSink<f32> for Diagonals {
    fn add(&mut self, slot: usize, h: ArrayView2<f32>, z: ArrayView2<f32>) {
        for (sums, x) in self.0[slot].iter_mut().zip([h, z]) {
            let tiles = x.axis_chunks_iter(Axis(0), TILE).into_par_iter().map(|tile| {
                let mut sums = vec![0.0; tile.ncols()];
                for row in tile.rows() {
                    sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
                }
                sums
            });
            for tile in tiles.collect::<Vec<_>>() {
                sums.iter_mut().zip(tile).for_each(|(sum, part)| *sum += part);
            }
        }
    }
}

/// The second moments of the candidates of every matrix: `[candidates, candidates]` of columns and of rows.
#[derive(Clone, Debug)]
pub struct Moments(Vec<[Array2<f32>; 2]>);

impl Moments {
    /// Zeros for matrices with this many candidates among columns and rows.
    pub(super) fn zeros(candidates: impl Iterator<Item = [usize; 2]>) -> Self {
        Self(candidates.map(|counts| counts.map(|count| Array2::zeros((count, count)))).collect())
    }

    /// Bytes of all.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().flatten().map(|sums| 4 * sums.len() as u64).sum()
    }

    /// Those of each matrix.
    pub(super) fn into_matrices(self) -> Vec<[Array2<f32>; 2]> {
        self.0
    }
}

impl TermSink<f32> for Moments {
    fn add(&mut self, slot: usize, h: ArrayView2<f32>, z: ArrayView2<f32>) {
        for (sum, x) in self.0[slot].iter_mut().zip([h, z]) {
            matmul(sum.view_mut(), true, x.t(), x);
        }
    }
}
