//! A tensor of the base and what adapters add to it.

use std::path::Path;

use curmerge_formats::dtype::DType;

use super::deltas::{self, Delta};
use super::report::{Sums, TensorReport};
use crate::base::Weight;

/// A tensor of the base that adapters change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adapted<'a> {
    /// Canonical name.
    pub(super) name: &'a str,
    /// What is added.
    pub(super) deltas: &'a [Delta<'a>],
    /// The whole tensor.
    pub(super) weight: Weight<'a>,
    /// How much a rounding error in each column counts where the type changes; for each expert.
    pub(super) importance: Option<&'a [f32]>,
    /// The type of the output.
    pub(super) dtype: DType,
    /// The base, for errors.
    pub(super) path: &'a Path,
}

impl Adapted<'_> {
    /// The report on the tensor, from the sums over all its rows.
    pub(super) fn report(&self, dtype: &str, sums: &Sums) -> TensorReport {
        TensorReport::new(self.name, deltas::parts(self.deltas), dtype, sums)
    }
}
