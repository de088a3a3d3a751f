//! What a right operand can be packed from.

/// A matrix that decodes to f32 row by row, such as a stored tensor.
pub trait Matrix: Sync {
    /// The number of rows.
    fn rows(&self) -> usize;
    /// The number of columns.
    fn columns(&self) -> usize;
    /// Writes one row to `out`, of length [`Self::columns`].
    fn row(&self, row: usize, out: &mut [f32]);
}
