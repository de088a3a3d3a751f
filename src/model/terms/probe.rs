//! A probe: it changes nothing, and shows what a term through any columns and rows of a matrix would see.
//!
//! With W `[m, n]` and rows of tokens x `[tokens, n]`, for columns J and rows I:
//!
//! ```text
//! z = (x W^T)[:, I]        h = (g W)[:, J]        g = dL/dy
//! ```
//!
//! g W is what the matrix adds to dL/dx, so h takes no product of its own where dL/dx is wanted.

use ndarray::{Array2, Zip};
use rayon::prelude::*;

use super::term::{BackwardPass, Term, TermSink};
use crate::kernels::{Precision, Real};

/// What a probe looks at.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The number that its [sink](TermSink) gets.
    pub slot: usize,
    /// The columns J, `[c]`.
    pub cols: Vec<u32>,
    /// The rows I, `[r]`.
    pub rows: Vec<u32>,
}

impl<T: Real> Term<T> for Probe {
    /// z `[tokens, r]`.
    fn forward(&self, _: &T::PackedLhs<'_>, _: Precision, y: &mut Array2<T>) -> Array2<T> {
        gather(y, &self.rows)
    }

    fn saved_values(&self) -> usize {
        self.rows.len()
    }

    /// Gives h `[tokens, c]` and z to `sink`.
    fn backward(&self, pass: BackwardPass<'_, '_, T>, sink: &mut dyn TermSink<T>) {
        let BackwardPass { g, saved: z, dx, times_weight, .. } = pass;
        let mut own = None;
        times_weight(g, &mut own);
        let own = own.unwrap_or_default();
        sink.add(self.slot, gather(&own, &self.cols).view(), z.view());
        match dx {
            Some(Some(sum)) => {
                Zip::from(sum).and(&own).par_for_each(|sum, &own| *sum += own);
                T::recycle(own);
            }
            Some(none) => *none = Some(own),
            None => T::recycle(own),
        }
    }

    fn first_slot(&self) -> usize {
        self.slot
    }

    fn trained(&self) -> Vec<&Array2<T>> {
        Vec::new()
    }

    fn trained_mut(&mut self) -> Vec<&mut Array2<T>> {
        Vec::new()
    }

    fn boxed(&self) -> Box<dyn Term<T>> {
        Box::new(self.clone())
    }
}

/// These columns of x `[tokens, width]`.
fn gather<T: Real>(x: &Array2<T>, columns: &[u32]) -> Array2<T> {
    let mut gathered = Array2::zeros((x.nrows(), columns.len()));
    gathered.outer_iter_mut().into_par_iter().zip(x.outer_iter()).for_each(|(mut gathered, x)| {
        gathered.iter_mut().zip(columns).for_each(|(gathered, &column)| *gathered = x[column as usize]);
    });
    gathered
}
