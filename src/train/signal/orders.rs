//! The columns and rows of every matrix in the order of a selection.

use curmerge_formats::SafeTensors;

use crate::cache::{Cached, Part, numbers};
use crate::cur::Indices;

/// The columns and rows of every matrix in the order in which they are chosen: the best choice of a smaller
/// rank is the beginning of that of a larger one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orders(Vec<[Vec<u32>; 2]>);

impl Orders {
    /// Of each matrix, its columns and its rows.
    pub(super) fn new(matrices: Vec<[Vec<u32>; 2]>) -> Self {
        Self(matrices)
    }

    /// The index sets of each matrix for a rank, ascending.
    pub fn indices(&self, rank: u32) -> Vec<Indices> {
        let first = |order: &[u32]| {
            let mut indices: Vec<u32> = order.iter().copied().take(rank as usize).collect();
            indices.sort_unstable();
            indices
        };
        self.0.iter().map(|[cols, rows]| Indices { cols: first(cols), rows: first(rows) }).collect()
    }

    /// Those in a cache's file, for matrices of these columns and rows, of at least `rank` each. `None` if it
    /// holds others.
    pub fn restore(
        file: &SafeTensors,
        shapes: impl Iterator<Item = [usize; 2]>,
        rank: usize,
    ) -> Option<Self> {
        let order = |matrix: usize, side: usize, length: usize| {
            let order: Vec<u32> = numbers(file, &name(matrix, side), None)?;
            let mut sorted = order.clone();
            sorted.sort_unstable();
            sorted.dedup();
            let fits = order.len() >= rank && sorted.len() == order.len();
            (fits && sorted.last().is_some_and(|&last| (last as usize) < length)).then_some(order)
        };
        let both = |(matrix, [cols, rows]): (usize, [usize; 2])| {
            Some([order(matrix, 0, cols)?, order(matrix, 1, rows)?])
        };
        shapes.enumerate().map(both).collect::<Option<_>>().map(Self)
    }
}

impl Cached for Orders {
    fn parts(&self) -> Vec<Part<'_>> {
        let sides = self.0.iter().enumerate().flat_map(|(matrix, sides)| {
            sides.iter().enumerate().map(move |(side, order)| (name(matrix, side), order))
        });
        sides.map(|(name, order)| Part::new(name, &[order.len()], order)).collect()
    }
}

/// The name of a tensor of a matrix's columns (side 0) or rows.
pub(super) fn name(matrix: usize, side: usize) -> String {
    format!("{matrix}.{}", ["cols", "rows"][side])
}
