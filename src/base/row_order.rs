//! The order in which a container stores the rows of a matrix.
//!
//! GGUF's order is the canonical one. For llama's q and k, Hugging Face stores the two rotary halves of each
//! head apart, while GGUF interleaves them (`LlamaModel.permute` in convert_hf_to_gguf.py).

use std::ops::Range;

/// The order of the rows of one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowOrder {
    /// Rows per head if the halves are stored apart.
    head_rows: Option<usize>,
}

impl RowOrder {
    /// GGUF's order.
    pub const CANONICAL: Self = Self { head_rows: None };

    /// The order of a matrix with `rows` rows in `heads` heads that stores the rotary halves of each head
    /// apart. `None` if the heads do not divide into halves.
    pub fn rotary_halves(rows: u64, heads: usize) -> Option<Self> {
        let heads = heads as u64;
        (heads > 0 && rows.is_multiple_of(2 * heads))
            .then(|| Self { head_rows: Some((rows / heads) as usize) })
    }

    /// The stored position of a canonical row.
    pub fn stored_row(self, canonical: usize) -> usize {
        let Some(head_rows) = self.head_rows else { return canonical };
        let (head, within) = (canonical / head_rows, canonical % head_rows);
        head * head_rows + (within % 2) * (head_rows / 2) + within / 2
    }

    /// The stored rows, in whole heads, that contain these canonical rows.
    pub fn span(self, canonical: Range<usize>) -> Range<usize> {
        let Some(head_rows) = self.head_rows else { return canonical };
        canonical.start / head_rows * head_rows..canonical.end.div_ceil(head_rows) * head_rows
    }

    /// The canonical row at the stored position `stored`, the inverse of [`Self::stored_row`].
    pub fn canonical_row(self, stored: usize) -> usize {
        let Some(head_rows) = self.head_rows else { return stored };
        let (head, within) = (stored / head_rows, stored % head_rows);
        head * head_rows + 2 * (within % (head_rows / 2)) + within / (head_rows / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotary_halves_interleave_within_each_head() {
        // Two heads of four rows.
        let order = RowOrder::rotary_halves(8, 2).unwrap();
        let stored: Vec<usize> = (0..8).map(|row| order.stored_row(row)).collect();
        assert_eq!(stored, [0, 2, 1, 3, 4, 6, 5, 7]);
        assert!((0..8).all(|row| order.canonical_row(order.stored_row(row)) == row));
        assert_eq!((order.span(1..3), order.span(1..5), RowOrder::CANONICAL.span(1..3)), (0..4, 0..8, 1..3));
        assert!(RowOrder::rotary_halves(8, 0).is_none() && RowOrder::rotary_halves(8, 3).is_none());
    }
}
