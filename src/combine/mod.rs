//! Several adapters combined into one, as PEFT's `add_weighted_adapter` does.
//!
//! The change of adapter k is `s_k B_k A_k`, and w_k is its weight. Sums run over the adapters that change the
//! matrix:
//!
//! - `cat`: B = [B_1 B_2 ...], A = [w_1 s_1 A_1; w_2 s_2 A_2; ...]: the sum of the changes.
//! - `linear`, `ties`, `dare_linear`, `dare_ties`, `magnitude_prune`: A and B are combined number by number, B
//!   with the weights sqrt|w s|, A with these and the sign of w s. The product has mixed terms B_1 A_2, so it is
//!   not the sum of the changes.
//! - `svd` and those that end in `_svd`: the changes s_k B_k A_k are combined number by number with the weights
//!   w_k, and cut to a rank: B = P S and A = Q^T of the leading singular part.
//!
//! Numbers are combined as follows. `linear`: the weighted sum. `magnitude_prune`: that of the largest numbers
//! of each adapter. `dare_linear`: that of the numbers that a draw kept, divided by the density. `ties` and
//! `dare_ties`: the mean of the weighted numbers whose sign is the majority's, after such pruning. The result
//! has the scale 1. Sources: `LoraModel.add_weighted_adapter` and `merge_utils` in peft 0.21.
//!
//! Two of PEFT's results are not kept. If its first adapter has rsLoRA, the result has alpha = r over sqrt(r),
//! and is sqrt(r) times too strong. And PEFT takes one adapter alone by `linear`, whatever it is asked for.
//!
//! Adapters of curmerge stay such where that is exact: `own` says how. An SVD makes a LoRA of them.

mod numbers;
mod options;
mod own;
mod thin;

use curmerge_formats::adapter::Adapter;
use ndarray::{Array2, Axis, concatenate};
use rayon::prelude::*;

use crate::base::Base;
use crate::cur::Factors;
use crate::kernels::svd::Leading;
use crate::lora::{LoraTarget, TrainedLora};
use crate::merge::Source;
use crate::{Error, Result};

use numbers::{Draw, Numbers, combined};
pub use options::{Combination, CombineOptions, MajoritySign};
use thin::Thin;

const FITS: &str = "the adapters were checked against one base";

/// One adapter made of several.
#[derive(Clone, Debug)]
pub enum Combined {
    /// Of curmerge's own adapters.
    Cur(Box<Adapter>),
    /// Of LoRAs, of both kinds, or by an SVD.
    Lora(TrainedLora),
}

impl Combined {
    /// The adapter as a merge takes it.
    pub fn source(&self) -> Source<'_> {
        match self {
            Self::Cur(adapter) => Source::Cur(adapter),
            Self::Lora(lora) => Source::Trained(lora),
        }
    }
}

/// Combines adapters of one base, each with its weight. Those of curmerge must have been checked against the
/// base ([`fingerprint::check`](crate::cur::fingerprint::check)). `progress` gets the number of finished matrices,
/// and of all.
///
/// # Errors
/// An option that the way needs or does not use; a weight that is not finite; for ways that combine thin matrices
/// number by number, LoRAs of different ranks, adapters of curmerge with different index sets, and adapters of both
/// kinds; a result that f32 does not hold.
pub fn combine(
    base: &Base,
    adapters: &[(Source<'_>, f32)],
    options: &CombineOptions,
    progress: impl Fn(u64, u64),
) -> Result<Combined> {
    options.check(adapters.len())?;
    if let Some((_, weight)) = adapters.iter().find(|(_, weight)| !weight.is_finite()) {
        return Err(Error::request(format!("a factor of {weight} cannot be used"), "give a finite one"));
    }
    let of_curmerge: Vec<(&Adapter, f32)> = adapters
        .iter()
        .filter_map(|(source, weight)| match source {
            Source::Cur(adapter) => Some((*adapter, *weight)),
            Source::Lora(_) | Source::Trained(_) => None,
        })
        .collect();
    let way = options.combination;
    if of_curmerge.len() == adapters.len() && !way.is_svd() {
        return own::combine(base, &of_curmerge, options).map(|one| Combined::Cur(Box::new(one)));
    }
    if !of_curmerge.is_empty() && !way.is_svd() && way != Combination::Cat {
        let problem = format!("{} combines adapters of one kind, and both kinds are given", way.name());
        return Err(Error::request(problem, "use cat or one of the ways whose name ends in svd"));
    }
    let matrices = thin::matrices(base, adapters)?;
    let all = matrices.len() as u64;
    let ranks = matrices.iter().flat_map(|matrix| matrix.ranks(adapters));
    let rank = options.svd_rank.unwrap_or_else(|| ranks.max().unwrap_or_default());
    let mut targets = Vec::new();
    for matrix in matrices {
        let parts = matrix.thin(base, adapters)?;
        let (a, b) = match way {
            Combination::Cat => side_by_side(&parts),
            Combination::Svd => truncated(&sum_of_products(&parts, rank), options),
            way if way.is_svd() => truncated(&of_whole_changes(&matrix.name, parts, rank, options), options),
            _ => number_by_number(&matrix.name, parts, options)?,
        };
        if !a.iter().chain(&b).all(|x| x.is_finite()) {
            let problem = format!("the combination of '{}' is beyond what f32 holds", matrix.name);
            return Err(Error::request(problem, "use smaller factors"));
        }
        targets.push(LoraTarget { name: matrix.name, a, b, u: None });
        progress(targets.len() as u64, all);
    }
    Ok(Combined::Lora(TrainedLora::of_targets(targets, options.record(adapters))))
}

/// A and B of `cat`.
fn side_by_side(parts: &[Thin]) -> (Array2<f32>, Array2<f32>) {
    let a: Vec<Array2<f32>> = parts.iter().map(|part| &part.a * part.factor() as f32).collect();
    let a: Vec<_> = a.iter().map(|x| x.view()).collect();
    let b: Vec<_> = parts.iter().map(|part| part.b.view()).collect();
    (concatenate(Axis(0), &a).expect(FITS), concatenate(Axis(1), &b).expect(FITS))
}

/// A and B whose numbers are combined.
fn number_by_number(
    name: &str,
    parts: Vec<Thin>,
    options: &CombineOptions,
) -> Result<(Array2<f32>, Array2<f32>)> {
    let shapes = parts.first().map(|part| (part.a.dim(), part.b.dim())).unwrap_or_default();
    if let Some(other) = parts.iter().find(|part| part.a.dim() != shapes.0) {
        let problem = format!(
            "the adapters have the ranks {} and {} of '{name}', and {} takes equal ones",
            shapes.0.0,
            other.a.nrows(),
            options.combination.name()
        );
        return Err(Error::request(problem, "use cat or one of the ways whose name ends in svd"));
    }
    let of = |part: &str, values: &dyn Fn(&Thin) -> &Array2<f32>, signed: bool, dim: (usize, usize)| {
        let numbers = parts.iter().map(|own| {
            let weight = own.factor().abs().sqrt() as f32;
            let weight = if signed && own.factor() < 0.0 { -weight } else { weight };
            Numbers { adapter: own.adapter, values: values(own).iter().copied().collect(), weight }
        });
        let numbers = combined(numbers.collect(), Draw { name, part, cols: dim.1 }, options);
        Array2::from_shape_vec(dim, numbers).expect(FITS)
    };
    Ok((of("A", &|own| &own.a, true, shapes.0), of("B", &|own| &own.b, false, shapes.1)))
}

/// The leading part of the weighted sum of the changes.
fn sum_of_products(parts: &[Thin], rank: usize) -> Leading {
    let wide = |x: &Array2<f32>| x.mapv(f64::from);
    let a: Vec<Array2<f64>> = parts.iter().map(|part| wide(&part.a) * part.factor()).collect();
    let b: Vec<Array2<f64>> = parts.iter().map(|part| wide(&part.b)).collect();
    let a: Vec<_> = a.iter().map(|x| x.view()).collect();
    let b: Vec<_> = b.iter().map(|x| x.view()).collect();
    let (a, b) = (concatenate(Axis(0), &a).expect(FITS), concatenate(Axis(1), &b).expect(FITS));
    Leading::of_product(b.view(), a.view(), rank)
}

/// The leading part of the combination of the whole changes, which are in memory all at once.
fn of_whole_changes(name: &str, parts: Vec<Thin>, rank: usize, options: &CombineOptions) -> Leading {
    let dim = parts.first().map(|part| (part.b.nrows(), part.a.ncols())).unwrap_or_default();
    let numbers = parts.into_iter().map(|part| {
        let Thin { adapter, a, b, scale, weight } = part;
        let factors = Factors::new(
            b.iter().copied().collect(),
            a.iter().map(|x| scale as f32 * x).collect(),
            a.nrows(),
            a.ncols(),
        );
        let mut values = vec![0.0; dim.0 * dim.1];
        let rows = values.par_chunks_exact_mut(dim.1.max(1)).enumerate();
        rows.for_each(|(row, out)| factors.add_to_row(row, out));
        Numbers { adapter, values, weight }
    });
    let values = combined(numbers.collect(), Draw { name, part: "dW", cols: dim.1 }, options);
    let values = Array2::from_shape_vec(dim, values).expect(FITS);
    Leading::of_matrix(values.view(), rank)
}

/// A and B of a singular part, and clamped if that was asked for.
fn truncated(leading: &Leading, options: &CombineOptions) -> (Array2<f32>, Array2<f32>) {
    let mut b = Array2::from_shape_fn(leading.left.t().dim(), |(row, k)| {
        (leading.left[[k, row]] * leading.values[k]) as f32
    });
    let mut a = leading.right.mapv(|x| x as f32);
    if let Some(clamp) = options.svd_clamp {
        let limit = quantile(b.iter().chain(&a).copied().collect(), clamp);
        // As torch.clamp: where the lower limit is above the upper, all become the upper.
        for x in b.iter_mut().chain(&mut a) {
            *x = x.max(-limit).min(limit);
        }
    }
    (a, b)
}

/// The quantile of numbers, linear between two of them, as torch.quantile.
fn quantile(mut numbers: Vec<f32>, share: f64) -> f32 {
    numbers.sort_unstable_by(f32::total_cmp);
    let place = share * (numbers.len().max(1) - 1) as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    let at = |i: usize| numbers.get(i).copied().map_or(0.0, f64::from);
    let high = if part > 0.0 { at(low + 1) } else { at(low) };
    (at(low) + part * (high - at(low))) as f32
}

#[cfg(test)]
mod tests {
    use super::quantile;

    /// fixtures/combine/make.py has torch's quantile of the numbers of two matrices.
    #[test]
    fn a_quantile_is_that_of_torch() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/combine/goldens.json");
        let goldens: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let golden = &goldens["clamped"];
        let both = ["B", "A"].map(|part| golden[part].as_array().unwrap().clone()).concat();
        let numbers: Vec<f32> = both.iter().map(|x| x.as_f64().unwrap() as f32).collect();
        let found = quantile(numbers.clone(), golden["quantile"].as_f64().unwrap());
        assert!((f64::from(found) - golden["limit"].as_f64().unwrap()).abs() < 1e-6);
        let largest = numbers.iter().copied().fold(f32::MIN, f32::max);
        assert_eq!(quantile(numbers, 1.0), largest);
    }
}
