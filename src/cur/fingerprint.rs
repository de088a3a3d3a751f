//! What ties an adapter to its base: two digests of every target, of the stored bytes and of the values.
//!
//! Equal values pass whatever the container, because C and R are then the same numbers. Anything else is refused, since
//! a merge would quietly write another change than the one that was trained.

use std::collections::HashSet;

use curmerge_formats::adapter::{Adapter, AdapterTarget, BaseInfo};
use rayon::prelude::*;

use super::sketch::{distance, sketch};
use super::{Selection, select};
use crate::base::{Base, BaseTensor};
use crate::report::terminal;
use crate::{Error, Result};

/// How a tensor of the base compares with the one that the adapter was made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// The same stored bytes.
    Bytes,
    /// Other bytes, the same values: another container or type.
    Values,
    /// Other values.
    Different,
    /// Another shape, or no such tensor.
    Unfit,
}

/// Targets for a new adapter: indices drawn, U zero, shapes and digests taken. Fails when a name is no matrix of the
/// base or has too few rows or columns that are not zero.
pub fn prepare(
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
            Ok(AdapterTarget {
                name: name.clone(),
                u: vec![0.0; indices.cols.len() * indices.rows.len()],
                shape: [weight.rows() as u64, weight.cols() as u64],
                stored_dtype: base.find(name)?.tensor.type_name(),
                stored_sha256: weight.stored_sha256(),
                values_sha256: weight.values_sha256(),
                sketch: Some(sketch(&weight, &indices.cols, &indices.rows)),
                cols: indices.cols,
                rows: indices.rows,
            })
        })
        .collect();
    // Of several errors the first in order, not in time.
    made.into_iter().collect()
}

/// The base as an adapter with these targets records it, with digests of the stored bytes of all that is no target: other
/// tensors, and the other parts of a tensor of which some parts are targets. Parts that have no names of the table's, as
/// experts, are recorded with the whole tensor.
pub fn base_info(base: &Base, targets: &[AdapterTarget]) -> BaseInfo {
    let adapted: HashSet<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    let mut others: Vec<(String, Option<&BaseTensor>)> = Vec::new();
    for (name, tensor) in base.tensors().iter().filter(|(name, _)| !adapted.contains(name.as_str())) {
        let parts = base.parts(name);
        if parts.iter().any(|(part, _)| adapted.contains(part.as_str())) {
            let rest = parts.into_iter().filter(|(part, _)| !adapted.contains(part.as_str()));
            others.extend(rest.map(|(part, _)| (part, None)));
        } else {
            others.push((name.clone(), Some(tensor)));
        }
    }
    let digests = others.into_par_iter().filter_map(|(name, tensor)| {
        let digest = match tensor {
            Some(tensor) if tensor.nbits.is_none() && tensor.slice.is_none() => {
                curmerge_formats::sha256_hex(base.bytes(tensor))
            }
            // That a part cannot be read says no less of the base than another digest.
            _ => base.weight(&name).ok()?.stored_sha256(),
        };
        Some((name, digest))
    });
    BaseInfo {
        name: base.name(),
        architecture: base.architecture_name().into(),
        container: base.container().into(),
        other_tensors: digests.collect(),
    }
}

/// Each target of the adapter beside the base's tensor of that name, in the adapter's order.
pub fn compare_targets(base: &Base, adapter: &Adapter) -> Vec<Likeness> {
    adapter
        .targets
        .par_iter()
        .map(|target| {
            let Ok(weight) = base.weight(&target.name) else { return Likeness::Unfit };
            if [weight.rows() as u64, weight.cols() as u64] != target.shape {
                Likeness::Unfit
            } else if weight.stored_sha256() == target.stored_sha256 {
                Likeness::Bytes
            } else if weight.values_sha256() == target.values_sha256 {
                Likeness::Values
            } else {
                Likeness::Different
            }
        })
        .collect()
}

/// Names of the base's other tensors, and of parts beside the targets, that are missing, new, or differ in a byte from
/// those recorded. `None` when the adapter was made on another container or on other types, whose bytes say nothing about
/// this base's.
pub fn compare_others(base: &Base, adapter: &Adapter) -> Option<Vec<String>> {
    let stored_otherwise = |target: &AdapterTarget| {
        base.place(&target.name).is_some_and(|place| place.tensor.type_name() != target.stored_dtype)
    };
    if adapter.base.container != base.container() || adapter.targets.iter().any(stored_otherwise) {
        return None;
    }
    let found = base_info(base, &adapter.targets).other_tensors;
    let recorded = &adapter.base.other_tensors;
    let mut names: Vec<String> = recorded
        .iter()
        .filter(|(name, digest)| found.get(*name) != Some(digest))
        .map(|(n, _)| n.clone())
        .collect();
    names.extend(found.into_keys().filter(|name| !recorded.contains_key(name)));
    names.sort();
    Some(names)
}

/// Refuse an adapter that was made on another model: every target must have its shape and the same bytes or values.
/// With `allow_other_base` other values only give a warning, returned, of how far C and R are from those trained on.
pub fn check(base: &Base, adapter: &Adapter, allow_other_base: bool) -> Result<Option<String>> {
    if adapter.base.architecture != base.architecture_name() {
        let made_on = terminal::shortened(&adapter.base.architecture, 40);
        let own = terminal::shortened(base.architecture_name(), 40);
        let problem = format!("'{own}', and the adapter was made on '{made_on}'");
        return Err(Error::input(base.path(), "architecture", problem, "use the adapter's own base"));
    }
    let mut other = Vec::new();
    for (target, likeness) in adapter.targets.iter().zip(compare_targets(base, adapter)) {
        let refuse = |problem: String, help: &str| {
            let place = format!("tensor '{}'", target.name);
            Err(Error::input(base.path(), place, problem, help))
        };
        match likeness {
            Likeness::Bytes | Likeness::Values => {}
            Likeness::Different if allow_other_base => other.push(target),
            Likeness::Different => {
                let made_on = terminal::shortened(&adapter.base.name, 80);
                return refuse(
                    format!("other values than those the adapter was made on ('{made_on}')"),
                    "use that file, or --allow-other-base for another quantization of the same model",
                );
            }
            Likeness::Unfit => {
                let weight = base.weight(&target.name)?;
                return refuse(
                    format!(
                        "shape [{}, {}], and the adapter was made for {:?}",
                        weight.rows(),
                        weight.cols(),
                        target.shape
                    ),
                    "use the base that the adapter was made on",
                );
            }
        }
    }
    Ok((!other.is_empty()).then(|| how_far(base, &other, adapter.targets.len())))
}

/// How far C and R of the targets with other values are from those trained on.
fn how_far(base: &Base, other: &[&AdapterTarget], of: usize) -> String {
    let distances: Vec<(&str, [f64; 2])> = other
        .par_iter()
        .filter_map(|target| {
            let weight = base.weight(&target.name).ok()?;
            let recorded = target.sketch.as_ref()?;
            Some((target.name.as_str(), distance(recorded, &weight, &target.cols, &target.rows)?))
        })
        .collect();
    let count = other.len();
    let other_values =
        format!("{count} of {of} tensors have other values than those the adapter was trained on");
    let Some((worst, _)) = distances.iter().max_by(|a, b| (a.1[0] + a.1[1]).total_cmp(&(b.1[0] + b.1[1])))
    else {
        return format!("{other_values}; how far C and R are off was not recorded");
    };
    let mean = |k: usize| {
        let squares: f64 = distances.iter().map(|(_, d)| d[k] * d[k]).sum();
        100.0 * (squares / distances.len() as f64).sqrt()
    };
    format!("{other_values}; C is off by about {:.1} %, R by {:.1} %, most in {worst}", mean(0), mean(1))
}
