//! The invariants of an adapter, checked after reading and before writing.

use super::{Adapter, AdapterTarget};
use crate::digest::is_digest;
use crate::error::quoted;

/// A broken invariant: the place and the problem.
pub(super) struct Fault {
    pub(super) place: String,
    pub(super) problem: String,
}

/// Checks everything but the digests of the tensors and the order of the targets.
pub(super) fn check(adapter: &Adapter) -> Result<(), Fault> {
    let fault =
        |place: &str, problem: &str| Err(Fault { place: place.to_owned(), problem: problem.to_owned() });
    if !adapter.scale.is_finite() {
        return fault("scale", "it is not finite");
    }
    if adapter.rank == 0 {
        return fault("rank", "it is zero");
    }
    if adapter.targets.is_empty() {
        return fault("targets", "there are none");
    }
    for (name, digest) in &adapter.base.other_tensors {
        if !is_digest(digest) {
            return fault(
                &format!("base tensor {}", quoted(name)),
                "its SHA-256 is not 64 lower-case hex digits",
            );
        }
    }
    for target in &adapter.targets {
        if target.fisher.len() != adapter.kept_tasks() {
            return fault("targets", "some have the Fisher information of more tasks than others");
        }
        check_target(target, adapter.rank)
            .map_err(|problem| Fault { place: format!("target {}", quoted(&target.name)), problem })?;
    }
    Ok(())
}

fn check_target(target: &AdapterTarget, rank: u32) -> Result<(), String> {
    if target.name.is_empty() {
        return Err("its name is empty".to_owned());
    }
    let [out, in_] = target.shape;
    check_indices("cols", &target.cols, in_, rank)?;
    check_indices("rows", &target.rows, out, rank)?;
    if target.cols.len().checked_mul(target.rows.len()) != Some(target.u.len()) {
        let (c, r) = (target.cols.len(), target.rows.len());
        return Err(format!("U has {} values, but there are {c} columns and {r} rows", target.u.len()));
    }
    if let Some(index) = target.u.iter().position(|value| !value.is_finite()) {
        return Err(format!("value {index} of U is {}", target.u[index]));
    }
    if target.sketch.iter().flatten().any(|value| !value.is_finite()) {
        return Err("a number of its sketch is not finite".to_owned());
    }
    for fisher in &target.fisher {
        fisher.check(target.cols.len(), target.rows.len())?;
    }
    for (what, digest) in [("stored_sha256", &target.stored_sha256), ("values_sha256", &target.values_sha256)]
    {
        if !is_digest(digest) {
            return Err(format!("{what} is not 64 lower-case hex digits"));
        }
    }
    Ok(())
}

/// Checks that there is an index, at most `rank`, each below `length` and greater than the one before.
fn check_indices(what: &str, indices: &[u32], length: u64, rank: u32) -> Result<(), String> {
    if indices.is_empty() || indices.len() > rank as usize {
        return Err(format!("{what} has {} indices, but 1 to {rank} (the rank) are allowed", indices.len()));
    }
    if let Some(pair) = indices.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(format!("{what} is not ascending: {} comes before {}", pair[0], pair[1]));
    }
    match indices.last() {
        Some(&last) if u64::from(last) >= length => {
            Err(format!("{what} has index {last}, but the matrix has {length}"))
        }
        _ => Ok(()),
    }
}
