//! Packing of a frozen matrix as the right operand of a product, by whichever way its container reads faster.

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

/// Packs the transpose of these rows, for `x W^T`.
pub(super) fn weight_transposed<T: Real>(
    weight: &Weight<'_>,
    rows: Range<usize>,
    precision: Precision,
) -> T::PackedRhs {
    match weight.stored_transpose(rows.clone()) {
        Some(stored) => T::pack_weight(&stored, 0..stored.rows(), precision),
        None => T::pack_weight_transposed(weight, rows, precision),
    }
}

/// Packs these rows, for `g W`.
pub(super) fn weight<T: Real>(weight: &Weight<'_>, rows: Range<usize>, precision: Precision) -> T::PackedRhs {
    match weight.stored_transpose(rows.clone()) {
        Some(stored) => T::pack_weight_transposed(&stored, 0..stored.rows(), precision),
        None => T::pack_weight(weight, rows, precision),
    }
}
