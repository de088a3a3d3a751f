//! An adapter's targets grouped by the base's tensors, since other programs adapt whole tensors. The parts of
//! a fused matrix share one pair of factors: A is stacked, B is in blocks.

use super::trained::{Target, Trained};
use crate::base::{Base, Place};
use crate::cur::Factors;
use crate::{Error, Result};

/// A whole matrix of the base, and its adapted parts.
pub(super) struct Matrix<'a> {
    /// Canonical name.
    pub(super) name: &'a str,
    /// Its place in the base.
    pub(super) place: Place<'a>,
    /// Outputs.
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// The first row of each part, and its target.
    parts: Vec<(usize, Target<'a>)>,
}

/// The matrices in the order of their first targets.
///
/// # Errors
/// A target that the base does not have, or one of several experts in one tensor.
pub(super) fn matrices<'a>(base: &'a Base, trained: Trained<'a>) -> Result<Vec<Matrix<'a>>> {
    let mut matrices: Vec<Matrix<'a>> = Vec::new();
    for target in trained.targets() {
        let part = base.find(target.name())?;
        if part.tensor.shape.len() != 2 || base.is_known() && part.name.ends_with(']') {
            let problem = "one of several experts in one tensor, for which other programs load no LoRA";
            let place = format!("tensor '{}'", target.name());
            return Err(Error::input(base.path(), place, problem, "merge the adapter instead"));
        }
        let first = part.rows.as_ref().map_or(0, |rows| rows.start as usize);
        let known = matrices.iter_mut().rev().find(|matrix| matrix.name == part.name);
        if let Some(matrix) = known {
            matrix.parts.push((first, target));
            continue;
        }
        let weight = base.weight(part.name)?;
        let (rows, cols) = (weight.rows(), weight.cols());
        let place = Place { rows: None, ..part };
        matrices.push(Matrix { name: place.name, place, rows, cols, parts: vec![(first, target)] });
    }
    Ok(matrices)
}

/// The matrices, of which those whose rows Hugging Face has in one tensor are one: of all its rows, under the name of its
/// first part.
pub(super) fn with_joined_rows<'a>(base: &Base, matrices: Vec<Matrix<'a>>) -> Vec<Matrix<'a>> {
    let mut all: Vec<Matrix<'a>> = Vec::new();
    let mut places: Vec<((&str, usize), usize)> = Vec::new();
    for mut matrix in matrices {
        let of = base.architecture().joined_rows_with(matrix.name);
        let of = of.and_then(|(joined, layer, part)| {
            Some((joined, layer, part, base.config().joined_rows(joined, layer)?.1))
        });
        let Some((joined, layer, part, rows)) = of else {
            all.push(matrix);
            continue;
        };
        let first: usize = rows[..part].iter().sum();
        matrix.rows = rows.iter().sum();
        matrix.parts.iter_mut().for_each(|(row, _)| *row += first);
        let place = (joined.hugging_face, layer);
        match places.iter().find(|(known, _)| *known == place) {
            Some((_, index)) => all[*index].parts.extend(matrix.parts),
            None => {
                places.push((place, all.len()));
                all.push(matrix);
            }
        }
    }
    all
}

impl Matrix<'_> {
    /// Columns of B: the ranks of all parts together.
    pub(super) fn rank(&self) -> usize {
        self.parts.iter().map(|(_, target)| target.rank()).sum()
    }

    /// The factors of all parts together. Each part's C (or B) is in its own rows and columns, with zeros
    /// elsewhere; the parts' `scale U R` (or A) are stacked.
    pub(super) fn factors(&self, base: &Base, scale: f32) -> Result<Factors> {
        let rank = self.rank();
        let (mut c, mut p) = (vec![0.0; self.rows * rank], Vec::with_capacity(rank * self.cols));
        let mut column = 0;
        for (first, target) in &self.parts {
            let factors = target.factors(base, scale)?;
            let rows = c[*first * rank..].chunks_exact_mut(rank);
            for (row, values) in rows.zip(factors.c.chunks_exact(factors.rank)) {
                row[column..][..factors.rank].copy_from_slice(values);
            }
            p.extend(factors.p);
            column += factors.rank;
        }
        Ok(Factors::new(c, p, rank, self.cols))
    }
}
