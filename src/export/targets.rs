//! An adapter's targets by the tensors that other programs know: parts of a fused matrix become one pair of
//! factors, A stacked, B in blocks.

use curmerge_formats::adapter::{Adapter, AdapterTarget};

use crate::base::{Base, Place};
use crate::cur::Factors;
use crate::{Error, Result};

/// A whole matrix of the base, and what is adapted of it.
pub(super) struct Matrix<'a> {
    /// Canonical name.
    pub(super) name: &'a str,
    /// Where it lies.
    pub(super) place: Place<'a>,
    /// Outputs and inputs.
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Each with the first of its rows.
    parts: Vec<(usize, &'a AdapterTarget)>,
}

/// The matrices in the order of their first targets.
///
/// # Errors
/// A target that the base has not; one of several experts that lie in one tensor.
pub(super) fn matrices<'a>(base: &'a Base, adapter: &'a Adapter) -> Result<Vec<Matrix<'a>>> {
    let mut matrices: Vec<Matrix<'a>> = Vec::new();
    for target in &adapter.targets {
        let part = base.find(&target.name)?;
        if part.tensor.shape.len() != 2 || base.is_known() && part.name.ends_with(']') {
            let problem = "one of several experts, for which other programs load no LoRA";
            let place = format!("tensor '{}'", target.name);
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

impl Matrix<'_> {
    /// Columns of B: those of all targets.
    pub(super) fn rank(&self) -> usize {
        self.parts.iter().map(|(_, target)| target.cols.len()).sum()
    }

    /// C of all targets, each in its rows and columns and zeros elsewhere, and their `scale U R` one below
    /// the other.
    pub(super) fn factors(&self, base: &Base, scale: f32) -> Result<Factors> {
        let rank = self.rank();
        let (mut c, mut p) = (vec![0.0; self.rows * rank], Vec::with_capacity(rank * self.cols));
        let mut column = 0;
        for &(first, target) in &self.parts {
            let weight = base.weight(&target.name)?;
            let factors = Factors::of_target(base.path(), &weight, target, scale)?;
            let rows = c[first * rank..].chunks_exact_mut(rank);
            for (row, values) in rows.zip(factors.c.chunks_exact(factors.rank)) {
                row[column..][..factors.rank].copy_from_slice(values);
            }
            p.extend(factors.p);
            column += factors.rank;
        }
        Ok(Factors::new(c, p, rank, self.cols))
    }
}
