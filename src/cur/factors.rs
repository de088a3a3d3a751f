//! The change of one matrix as two thin factors: `s C U R = C P` with `P = s U R`; a LoRA's `B A` likewise.

use std::path::Path;

use curmerge_formats::adapter::AdapterTarget;
use rayon::prelude::*;

use super::fingerprint::other_shape;
use crate::base::Weight;
use crate::kernels::{Cpu, Multiversion};
use crate::{Error, Result};

/// `C` and `P` of one target; their product is the change of W.
#[derive(Clone, Debug)]
pub struct Factors {
    /// The chosen columns of W (or a LoRA's B), row-major `[m, rank]` in the canonical order of rows.
    pub c: Vec<f32>,
    /// `s U R` (or `s A`), row-major `[rank, n]`; each number summed over the rows of R in order, in f64, and
    /// rounded once.
    pub p: Vec<f32>,
    /// Inner dimension: the number of chosen columns.
    pub rank: usize,
    cols: usize,
}

impl Factors {
    /// From `c` of `rank` columns and `p` of `rank` rows and `cols` columns.
    pub fn new(c: Vec<f32>, p: Vec<f32>, rank: usize, cols: usize) -> Self {
        assert_eq!(p.len(), rank * cols, "P has rank rows");
        assert_eq!(c.len() % rank.max(1), 0, "C has rank columns");
        Self { c, p, rank, cols }
    }

    /// The same with the rows of C moved: `to` says where each goes.
    pub fn with_rows_moved(mut self, rows: usize, to: impl Fn(usize) -> usize) -> Self {
        let mut c = vec![0.0; rows * self.rank];
        for (row, values) in self.c.chunks_exact(self.rank.max(1)).enumerate() {
            c[to(row) * self.rank..][..self.rank].copy_from_slice(values);
        }
        self.c = c;
        self
    }

    /// The same with the columns of P moved: `to` says where each goes.
    pub fn with_columns_moved(mut self, to: impl Fn(usize) -> usize) -> Self {
        let mut p = vec![0.0; self.p.len()];
        for (old, new) in self.p.chunks_exact(self.cols.max(1)).zip(p.chunks_exact_mut(self.cols.max(1))) {
            old.iter().enumerate().for_each(|(col, value)| new[to(col)] = *value);
        }
        self.p = p;
        self
    }

    /// The factors of the transpose, `P^T C^T`.
    pub fn transposed(&self) -> Self {
        let rows = self.c.len() / self.rank.max(1);
        let c = (0..self.cols).flat_map(|col| (0..self.rank).map(move |k| self.p[k * self.cols + col]));
        let p = (0..self.rank).flat_map(|k| (0..rows).map(move |row| self.c[row * self.rank + k]));
        Self::new(c.collect(), p.collect(), self.rank, rows)
    }

    /// The factors of `target` over the base's matrix, with the adapter's scale or a multiple of it. `path`
    /// is the base that errors name.
    ///
    /// # Errors
    /// [`Error::OtherBase`] for a matrix of another shape; a P that is not finite.
    pub fn of_target(path: &Path, weight: &Weight<'_>, target: &AdapterTarget, scale: f32) -> Result<Self> {
        if [weight.rows() as u64, weight.cols() as u64] != target.shape {
            return Err(other_shape(path, weight, target));
        }
        let (rank, n) = (target.cols.len(), weight.cols());
        let r = weight.gather_rows(&target.rows);
        let mut p = vec![0.0f32; rank * n];
        let u_rows = target.u.par_chunks_exact(target.rows.len().max(1));
        p.par_chunks_exact_mut(n.max(1)).zip(u_rows).for_each(|(out, u)| {
            let mut sums = vec![0.0f64; n];
            for (&u, r) in u.iter().zip(r.chunks_exact(n)) {
                for (sum, &r) in sums.iter_mut().zip(r) {
                    *sum += f64::from(u) * f64::from(r);
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = (f64::from(scale) * sum) as f32;
            }
        });
        if !p.iter().all(|x| x.is_finite()) {
            let problem = "scale * U * R is beyond what f32 holds";
            let place = format!("tensor '{}'", target.name);
            let help = "use a smaller scale, or train with a lower learning rate";
            return Err(Error::input(path, place, problem, help));
        }
        Ok(Self::new(weight.gather_columns(&target.cols), p, rank, n))
    }

    /// Adds the change of one canonical row of W to `out`, of length n: over the columns of C in order, in
    /// f32.
    pub fn add_to_row(&self, row: usize, out: &mut [f32]) {
        struct Add<'x>(&'x [f32], &'x [f32], &'x mut [f32]);
        impl Multiversion for Add<'_> {
            type Output = ();

            #[inline(always)]
            fn run(self) {
                let Self(c, p, out) = self;
                for (&c, p) in c.iter().zip(p.chunks_exact(out.len().max(1))) {
                    for (out, &p) in out.iter_mut().zip(p) {
                        *out += c * p;
                    }
                }
            }
        }
        debug_assert_eq!(out.len(), self.cols);
        Cpu::current().dispatch(Add(&self.c[row * self.rank..][..self.rank], &self.p, out));
    }
}
