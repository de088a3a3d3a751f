//! The fingerprint that ties an adapter to its base: two digests of every target, of the stored bytes and of
//! the values.
//!
//! Equal values pass whatever the container, because C and R are then the same numbers. Anything else is
//! refused: a merge would silently write another change than the one that was trained.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use curmerge_formats::adapter::{Adapter, AdapterTarget, BaseInfo};
use rayon::prelude::*;

use super::sketch::distance;
use crate::base::{Base, BaseTensor, Weight};
use crate::error::shortened;
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

/// The record of the base in an adapter with these targets, with digests of the stored bytes of everything
/// that is not a target: other tensors, and the remaining parts of a tensor with some parts as targets. Parts
/// that the architecture does not name, such as experts, are recorded with the whole tensor.
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
            Some(tensor) if tensor.is_plain() && tensor.slice.is_none() => {
                curmerge_formats::sha256_hex(base.bytes(tensor))
            }
            // A part that cannot be read distinguishes the base as well as another digest does.
            _ => base.weight(&name).ok()?.stored_sha256(),
        };
        Some((name, digest))
    });
    let numbers = base.numbers_of_metadata().into_iter();
    let numbers = numbers.map(|(name, number)| (name, curmerge_formats::sha256_hex(&number.to_le_bytes())));
    BaseInfo {
        name: base.name(),
        architecture: base.architecture_name().into(),
        container: base.container().into(),
        other_tensors: digests.collect::<BTreeMap<_, _>>().into_iter().chain(numbers).collect(),
    }
}

/// One digest of all tensors of a base: the SHA-256 of the lines `NAME DIGEST`, sorted, of their stored bytes.
pub fn base_sha256(base: &Base) -> String {
    let tensors = base_info(base, &[]).other_tensors;
    let words: Vec<_> = tensors.into_iter().map(|(name, digest)| format!("{name} {digest}")).collect();
    curmerge_formats::sha256_hex(words.join("\n").as_bytes())
}

/// Compares each target with the tensor of that name in the base, in the adapter's order.
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

/// The names of the other tensors of the base, and of other parts of targeted tensors, that are missing, new,
/// or differ in a byte from those recorded. `None` if the adapter was made on another container or on other
/// types, whose bytes cannot be compared.
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

/// How far the C and R of a base are from those that an adapter was trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct Deviation {
    /// Targets whose values differ.
    pub differing: usize,
    /// All targets.
    pub targets: usize,
    /// By how much, if the adapter recorded what that takes.
    pub distance: Option<Distance>,
}

/// Relative distances of C and R over all differing targets: root mean squares, known to about a fifth.
#[derive(Clone, Debug, PartialEq)]
pub struct Distance {
    /// `|C - C'| / |C|`.
    pub c: f64,
    /// `|R - R'| / |R|`.
    pub r: f64,
    /// The target that differs most.
    pub worst: String,
}

/// Whether an adapter must have been made on the values of its base. C and R are parts of the base, so other
/// values make another change than the one that was trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BaseCheck {
    /// Refuses an adapter that was made on other values, with [`Error::OtherValues`].
    #[default]
    SameValues,
    /// Accepts other values, and reports how far they differ: see [`Deviation`].
    AllowOtherValues,
    /// Checks nothing, for a caller that has checked: the digests take a pass over every target.
    Skip,
}

/// Refuses an adapter that was made on another model: every target must have its shape, and the same bytes or
/// values, unless `base_check` allows other values.
///
/// `Ok(None)` means that every target has the values that the adapter was made on, or that nothing was
/// checked ([`BaseCheck::Skip`]). `Ok(Some)` says how far allowed values differ.
///
/// # Errors
/// [`Error::OtherBase`] and [`Error::OtherValues`].
pub fn check(base: &Base, adapter: &Adapter, base_check: BaseCheck) -> Result<Option<Deviation>> {
    if base_check == BaseCheck::Skip {
        return Ok(None);
    }
    if adapter.base.architecture != base.architecture_name() {
        let made_on = shortened(&adapter.base.architecture, 40);
        let own = shortened(base.architecture_name(), 40);
        let problem = format!("'{own}', and the adapter was made on '{made_on}'");
        return Err(Error::OtherBase { path: base.path().into(), place: "architecture".into(), problem });
    }
    let mut other = Vec::new();
    for (target, likeness) in adapter.targets.iter().zip(compare_targets(base, adapter)) {
        match likeness {
            Likeness::Bytes | Likeness::Values => {}
            Likeness::Different if base_check == BaseCheck::AllowOtherValues => other.push(target),
            Likeness::Different => {
                return Err(Error::OtherValues {
                    path: base.path().into(),
                    tensor: target.name.clone(),
                    made_on: shortened(&adapter.base.name, 80),
                });
            }
            Likeness::Unfit => {
                let weight = base.weight(&target.name)?;
                return Err(other_shape(base.path(), &weight, target));
            }
        }
    }
    Ok((!other.is_empty()).then(|| deviation(base, &other, adapter.targets.len())))
}

/// The error of a target that was made for a matrix of another shape.
pub(super) fn other_shape(path: &Path, weight: &Weight<'_>, target: &AdapterTarget) -> Error {
    let shape = [weight.rows(), weight.cols()];
    Error::OtherBase {
        path: path.into(),
        place: format!("tensor '{}'", target.name),
        problem: format!("shape {shape:?}, and the adapter was made for {:?}", target.shape),
    }
}

fn deviation(base: &Base, other: &[&AdapterTarget], targets: usize) -> Deviation {
    let distances: Vec<(&str, [f64; 2])> = other
        .par_iter()
        .filter_map(|target| {
            let weight = base.weight(&target.name).ok()?;
            let recorded = target.sketch.as_ref()?;
            Some((target.name.as_str(), distance(recorded, &weight, &target.cols, &target.rows)?))
        })
        .collect();
    let root_mean_square = |k: usize| {
        let squares: f64 = distances.iter().map(|(_, d)| d[k] * d[k]).sum();
        (squares / distances.len() as f64).sqrt()
    };
    let worst = distances.iter().max_by(|a, b| (a.1[0] + a.1[1]).total_cmp(&(b.1[0] + b.1[1])));
    let distance = worst.map(|(worst, _)| Distance {
        c: root_mean_square(0),
        r: root_mean_square(1),
        worst: worst.to_string(),
    });
    Deviation { differing: other.len(), targets, distance }
}
