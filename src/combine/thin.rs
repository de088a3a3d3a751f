//! The thin matrices of several adapters, grouped by the matrices that they change.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::{Array2, s};

use crate::Result;
use crate::base::Base;
use crate::cur::Factors;
use crate::lora::LoraTarget;
use crate::merge::Source;

/// One adapter's change of one matrix W `[m, n]`: `scale B A`.
pub(super) struct Thin {
    /// Its place among the adapters, from 0.
    pub(super) adapter: usize,
    /// `[r, n]`
    pub(super) a: Array2<f32>,
    /// `[m, r]`, rows in canonical order.
    pub(super) b: Array2<f32>,
    /// The adapter's own scale.
    pub(super) scale: f64,
    /// Its weight.
    pub(super) weight: f32,
}

impl Thin {
    /// The factor of `B A` in a sum.
    pub(super) fn factor(&self) -> f64 {
        self.scale * f64::from(self.weight)
    }
}

/// A matrix that adapters change.
pub(super) struct Matrix {
    /// Canonical name.
    pub(super) name: String,
    /// The names under which the adapters change it: its own, or those of its parts.
    names: BTreeSet<String>,
}

/// The matrices that the adapters change, sorted. A fused matrix is one if an adapter changes it as a whole,
/// else each of its parts is.
pub(super) fn matrices(base: &Base, adapters: &[(Source<'_>, f32)]) -> Result<Vec<Matrix>> {
    let mut by_tensor = BTreeMap::<&str, BTreeSet<String>>::new();
    for name in adapters.iter().flat_map(|(source, _)| names(*source)) {
        by_tensor.entry(base.find(&name)?.name).or_default().insert(name);
    }
    let mut matrices = Vec::new();
    for (tensor, names) in by_tensor {
        if names.contains(tensor) {
            matrices.push(Matrix { name: tensor.to_owned(), names });
            continue;
        }
        matrices.extend(names.into_iter().map(|name| Matrix { names: [name.clone()].into(), name }));
    }
    Ok(matrices)
}

fn names(source: Source<'_>) -> Vec<String> {
    match source {
        Source::Cur(adapter) => adapter.targets.iter().map(|target| target.name.clone()).collect(),
        Source::Lora(lora) => lora.targets().map(str::to_owned).collect(),
        Source::Trained(lora) => lora.targets.iter().map(|target| target.name.clone()).collect(),
    }
}

impl Matrix {
    /// What each adapter that changes it adds to it, in their order.
    pub(super) fn thin(&self, base: &Base, adapters: &[(Source<'_>, f32)]) -> Result<Vec<Thin>> {
        let mut all = Vec::new();
        for (adapter, &(source, weight)) in adapters.iter().enumerate() {
            let mut parts = Vec::new();
            let mut scale = 1.0f32;
            for name in &self.names {
                if let Some((target, own)) = target(base, source, name)? {
                    parts.push(target);
                    scale = own;
                }
            }
            let scale = f64::from(scale);
            if let Some(LoraTarget { a, b, .. }) = self.joined(base, parts)? {
                all.push(Thin { adapter, a, b, scale, weight });
            }
        }
        Ok(all)
    }

    /// The rank of what each adapter that changes it adds to it.
    pub(super) fn ranks(&self, adapters: &[(Source<'_>, f32)]) -> Vec<usize> {
        let of = |source: Source<'_>| self.names.iter().filter_map(|name| rank(source, name)).sum();
        adapters.iter().map(|(source, _)| of(*source)).collect()
    }

    /// The parts' thin matrices as those of the whole: A is stacked, B in blocks.
    fn joined(&self, base: &Base, mut parts: Vec<LoraTarget>) -> Result<Option<LoraTarget>> {
        if parts.len() < 2 && parts.iter().all(|part| part.name == self.name) {
            return Ok(parts.pop());
        }
        let weight = base.weight(&self.name)?;
        let rank = parts.iter().map(|part| part.a.nrows()).sum();
        let (mut a, mut b) = (Array2::zeros((rank, weight.cols())), Array2::zeros((weight.rows(), rank)));
        let mut first = 0;
        for part in parts {
            let rows = base.find(&part.name)?.rows.map_or(0, |rows| rows.start as usize);
            let (rank, of_part) = (part.a.nrows(), part.b.nrows());
            a.slice_mut(s![first..first + rank, ..]).assign(&part.a);
            b.slice_mut(s![rows..rows + of_part, first..first + rank]).assign(&part.b);
            first += rank;
        }
        Ok(Some(LoraTarget { name: self.name.clone(), a, b, u: None }))
    }
}

/// The rank of an adapter's change of the matrix of this name.
fn rank(source: Source<'_>, name: &str) -> Option<usize> {
    match source {
        Source::Cur(adapter) => {
            adapter.targets.iter().find(|target| target.name == name).map(|target| target.cols.len())
        }
        Source::Lora(lora) => lora.rank(name),
        Source::Trained(lora) => {
            lora.targets.iter().find(|target| target.name == name).map(|target| target.a.nrows())
        }
    }
}

/// An adapter's thin matrices of this name, and the scale of their product.
fn target(base: &Base, source: Source<'_>, name: &str) -> Result<Option<(LoraTarget, f32)>> {
    match source {
        Source::Cur(adapter) => {
            let Some(target) = adapter.targets.iter().find(|target| target.name == name) else {
                return Ok(None);
            };
            let factors = Factors::of_target(base.path(), &base.weight(name)?, target, 1.0)?;
            Ok(Some((of_factors(name, factors), adapter.scale)))
        }
        Source::Lora(lora) => match lora.rank(name) {
            None => Ok(None),
            Some(_) => lora.target(base, name).map(Some),
        },
        Source::Trained(lora) => {
            let own = lora.targets.iter().find(|target| target.name == name);
            Ok(own.map(|target| (of_factors(name, target.factors(1.0)), lora.options.scale())))
        }
    }
}

/// C as B, and P as A.
fn of_factors(name: &str, Factors { c, p, rank, .. }: Factors) -> LoraTarget {
    const WHOLE: &str = "factors have whole rows";
    let (rows, cols) = (c.len() / rank.max(1), p.len() / rank.max(1));
    let b = Array2::from_shape_vec((rows, rank), c).expect(WHOLE);
    let a = Array2::from_shape_vec((rank, cols), p).expect(WHOLE);
    LoraTarget { name: name.to_owned(), a, b, u: None }
}
