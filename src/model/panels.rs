//! A frozen matrix ready for products, by whichever way its container reads it faster.

use std::ops::Range;

use crate::base::Weight;
use crate::kernels::{Matrix, Precision, Real};

impl Matrix for Weight<'_> {
    fn rows(&self) -> usize {
        self.rows()
    }
    fn columns(&self) -> usize {
        self.cols()
    }
    fn row(&self, row: usize, out: &mut [f32]) {
        self.decode_row(row, out);
    }
}

/// The transpose of these rows, for `x W^T`.
pub(super) fn transposed<T: Real>(
    weight: &Weight<'_>,
    rows: Range<usize>,
    precision: Precision,
) -> T::Panels {
    match weight.stored_transpose(rows.clone()) {
        Some(stored) => T::upright(&stored, 0..stored.rows(), precision),
        None => T::transposed(weight, rows, precision),
    }
}

/// These rows, for `g W`.
pub(super) fn upright<T: Real>(weight: &Weight<'_>, rows: Range<usize>, precision: Precision) -> T::Panels {
    match weight.stored_transpose(rows.clone()) {
        Some(stored) => T::transposed(&stored, 0..stored.rows(), precision),
        None => T::upright(weight, rows, precision),
    }
}
