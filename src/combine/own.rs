//! Combinations of curmerge's own adapters, which stay such.
//!
//! C and R are parts of the base, so adapters of one matrix differ in their index sets and in U alone. Where
//! the index sets are equal, U is combined, and `linear` is the exact sum of the changes. `cat` takes the union
//! of the index sets: `C1 U1 R1 + C2 U2 R2 = [C1 C2] diag(U1, U2) [R1; R2]`, and a column or row that both have
//! is there once, with the numbers of U added.

use std::collections::{BTreeMap, BTreeSet};

use curmerge_formats::adapter::{Adapter, AdapterTarget};

use super::numbers::{Draw, Numbers, combined};
use super::options::{Combination, CombineOptions};
use crate::base::Base;
use crate::cur::{Indices, adapter_of};
use crate::{Error, Result};

/// What the adapter says of how its columns and rows were chosen.
const SELECTION: &str = "combined";

/// An adapter's matrices U of one matrix of the base, each with its place among the adapters and its weight
/// times the adapter's scale.
type Parts<'a> = Vec<(usize, &'a AdapterTarget, f32)>;

/// One adapter of several, each with its weight.
///
/// # Errors
/// Unless the way is `cat`, adapters with other index sets of a matrix.
pub(super) fn combine(
    base: &Base,
    adapters: &[(&Adapter, f32)],
    options: &CombineOptions,
) -> Result<Adapter> {
    let mut by_name = BTreeMap::<&str, Parts<'_>>::new();
    for (number, (adapter, weight)) in adapters.iter().enumerate() {
        for target in &adapter.targets {
            by_name.entry(&target.name).or_default().push((number, target, weight * adapter.scale));
        }
    }
    let (mut indices, mut us) = (Vec::new(), Vec::new());
    for (name, parts) in &by_name {
        let own = union(parts);
        if options.combination != Combination::Cat
            && let Some((_, other, _)) =
                parts.iter().find(|(_, t, _)| (&t.cols, &t.rows) != (&own.cols, &own.rows))
        {
            let problem = format!(
                "the adapters have other columns and rows of '{}', so their matrices U cannot be combined by {}",
                other.name,
                options.combination.name()
            );
            let help = "use cat, which is exact, or svd; or train them with one --select and --seed";
            return Err(Error::request(problem, help));
        }
        us.push(match options.combination {
            Combination::Cat => sum(parts, &own),
            _ => {
                let numbers = parts.iter().map(|(adapter, target, weight)| Numbers {
                    adapter: *adapter,
                    values: target.u.clone(),
                    weight: *weight,
                });
                combined(numbers.collect(), Draw { name, part: "U", cols: own.rows.len() }, options)
            }
        });
        indices.push((name.to_string(), own));
    }
    let rank = indices.iter().map(|(_, own)| own.cols.len().max(own.rows.len())).max().unwrap_or_default();
    let mut adapter = adapter_of(base, indices, rank as u32, SELECTION, 0)?;
    for (target, u) in adapter.targets.iter_mut().zip(us) {
        if let Some(x) = u.iter().find(|x| !x.is_finite()) {
            let problem = format!("the combination of '{}' holds {x}", target.name);
            return Err(Error::request(problem, "use smaller factors"));
        }
        target.u = u;
    }
    Ok(adapter)
}

/// All columns and rows that one of them has.
fn union(parts: &Parts<'_>) -> Indices {
    let all = |of: &dyn Fn(&AdapterTarget) -> Vec<u32>| {
        let set: BTreeSet<u32> = parts.iter().flat_map(|(_, target, _)| of(target)).collect();
        set.into_iter().collect()
    };
    Indices { cols: all(&|target| target.cols.clone()), rows: all(&|target| target.rows.clone()) }
}

/// The weighted sum of the matrices U, each at its places among all columns and rows, in f64.
fn sum(parts: &Parts<'_>, all: &Indices) -> Vec<f32> {
    let mut sums = vec![0.0f64; all.cols.len() * all.rows.len()];
    let places = |own: &[u32], all: &[u32]| -> Vec<usize> {
        own.iter().map(|index| all.partition_point(|other| other < index)).collect()
    };
    for (_, target, weight) in parts {
        let (cols, rows) = (places(&target.cols, &all.cols), places(&target.rows, &all.rows));
        for (col, u) in cols.into_iter().zip(target.u.chunks_exact(rows.len().max(1))) {
            for (row, u) in rows.iter().zip(u) {
                sums[col * all.rows.len() + row] += f64::from(*weight) * f64::from(*u);
            }
        }
    }
    sums.into_iter().map(|x| x as f32).collect()
}
