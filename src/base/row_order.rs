//! In which order a container stores the rows of a matrix.
//!
//! GGUF's order is the canonical one. Hugging Face keeps the two rotary halves of each head of llama's q and k apart,
//! where GGUF interleaves them (`LlamaModel.permute` in convert_hf_to_gguf.py).

use std::ops::Range;

/// A way to order the rows of one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowOrder {
    /// Rows of a head whose halves are apart.
    head_rows: Option<usize>,
}

impl RowOrder {
    /// GGUF's own.
    pub const CANONICAL: Self = Self { head_rows: None };

    /// Of a matrix of so many rows in so many heads, each with its rotary halves apart. None where they cannot be so
    /// divided.
    pub fn rotary_halves(rows: u64, heads: usize) -> Option<Self> {
        let heads = heads as u64;
        (heads > 0 && rows.is_multiple_of(2 * heads))
            .then(|| Self { head_rows: Some((rows / heads) as usize) })
    }

    /// Where the canonical row is stored.
    pub fn stored_row(self, canonical: usize) -> usize {
        let Some(head_rows) = self.head_rows else { return canonical };
        let (head, within) = (canonical / head_rows, canonical % head_rows);
        head * head_rows + (within % 2) * (head_rows / 2) + within / 2
    }

    /// The stored rows, whole heads of them, among which these canonical ones are.
    pub fn span(self, canonical: Range<usize>) -> Range<usize> {
        let Some(head_rows) = self.head_rows else { return canonical };
        canonical.start / head_rows * head_rows..canonical.end.div_ceil(head_rows) * head_rows
    }

    /// The canonical row that is stored at `stored`: the inverse of [`Self::stored_row`].
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
