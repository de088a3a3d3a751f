//! A new adapter: the columns and rows of every target selected, U = 0.

use std::ops::RangeInclusive;

use curmerge_formats::adapter::{Adapter, AdapterTarget};
use rayon::prelude::*;

use super::sketch::sketch;
use super::{Indices, Selection, fingerprint, select};
use crate::Result;
use crate::base::Base;

/// Which matrices a new adapter changes, and through which of their columns and rows.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectionOptions {
    /// Columns and rows of each matrix; U has `rank * rank` numbers. Default: 16.
    pub rank: u32,
    /// The matrices: words such as `q,k,v` or `all`, or canonical names; see [`Base::targets`].
    /// Default: `q,k,v`.
    pub targets: String,
    /// Only matrices of these blocks, counted from 0. Default: `None`, all blocks.
    pub layers: Option<RangeInclusive<usize>>,
    /// How columns and rows are drawn. Default: [`Selection::Reference`].
    pub selection: Selection,
    /// Seed of the draw. Default: 0.
    pub seed: u64,
}

impl Default for SelectionOptions {
    fn default() -> Self {
        Self { rank: 16, targets: "q,k,v".into(), layers: None, selection: Selection::Reference, seed: 0 }
    }
}

/// A new adapter of the base, with scale 1 and U = 0, so that it changes nothing yet.
///
/// # Errors
/// Those of [`Base::targets`] and [`new_targets`].
pub fn new_adapter(base: &Base, options: &SelectionOptions) -> Result<Adapter> {
    let names = base.targets(&options.targets, options.layers.clone())?;
    let targets = new_targets(base, &names, options.rank, options.selection, options.seed)?;
    Ok(of_targets(base, targets, options.rank, options.selection.name(), options.seed))
}

/// A new adapter of these matrices and index sets, with scale 1 and U = 0. `selection` names the way in which
/// the `rank` columns and rows of each were chosen.
///
/// # Errors
/// A name that is no matrix of the base.
pub fn adapter_of(
    base: &Base,
    indices: Vec<(String, Indices)>,
    rank: u32,
    selection: &str,
    seed: u64,
) -> Result<Adapter> {
    let targets: Vec<Result<_>> =
        indices.into_par_iter().map(|(name, indices)| target(base, &name, indices)).collect();
    let targets = targets.into_iter().collect::<Result<_>>()?;
    Ok(of_targets(base, targets, rank, selection, seed))
}

fn of_targets(base: &Base, targets: Vec<AdapterTarget>, rank: u32, selection: &str, seed: u64) -> Adapter {
    let selection = selection.to_owned();
    let base = fingerprint::base_info(base, &targets);
    Adapter { base, rank, scale: 1.0, selection, seed, training: None, targets }
}

/// Targets for a new adapter: indices drawn, U zero, shapes and digests taken, in the order of `names`.
///
/// # Errors
/// A name that is no matrix of the base, or a matrix with too few non-zero rows or columns.
pub fn new_targets(
    base: &Base,
    names: &[String],
    rank: u32,
    selection: Selection,
    seed: u64,
) -> Result<Vec<AdapterTarget>> {
    let made: Vec<Result<AdapterTarget>> = names
        .par_iter()
        .map(|name| {
            let weight = base.weight(name)?;
            let indices = select(&weight, name, rank, selection, seed).map_err(|e| e.in_file(base.path()))?;
            target(base, name, indices)
        })
        .collect();
    // Of several errors, the first in order and not in time.
    made.into_iter().collect()
}

/// The target of a matrix of the base.
fn target(base: &Base, name: &str, Indices { cols, rows }: Indices) -> Result<AdapterTarget> {
    let weight = base.weight(name)?;
    Ok(AdapterTarget {
        name: name.to_owned(),
        u: vec![0.0; cols.len() * rows.len()],
        shape: [weight.rows() as u64, weight.cols() as u64],
        stored_dtype: base.find(name)?.tensor.type_name(),
        stored_sha256: weight.stored_sha256(),
        values_sha256: weight.values_sha256(),
        sketch: Some(sketch(&weight, &cols, &rows)),
        fisher: Vec::new(),
        cols,
        rows,
    })
}
