//! What else differs between two models than the matrices of a LoRA: embeddings, norms, biases, experts.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use serde::Serialize;

use crate::Result;
use crate::base::{Base, Weight};

/// A tensor, or a part of one, that no matrix of the LoRA stands for.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// It has other values, of the same shape.
    Differs {
        /// Canonical name.
        name: String,
        /// `|W' - W| / |W|`
        change: f64,
    },
    /// It has another shape, or cannot be compared.
    OtherShape {
        /// Canonical name.
        name: String,
    },
    /// Only the base has it.
    OnlyBase {
        /// Canonical name.
        name: String,
    },
    /// Only the tuned model has it.
    OnlyTuned {
        /// Canonical name.
        name: String,
    },
}

impl Rest {
    /// The canonical name.
    pub fn name(&self) -> &str {
        match self {
            Self::Differs { name, .. }
            | Self::OtherShape { name }
            | Self::OnlyBase { name }
            | Self::OnlyTuned { name } => name,
        }
    }
}

/// What differs besides the matrices of these names, sorted.
///
/// # Errors
/// A tensor that cannot be read.
pub fn rest(base: &Base, tuned: &Base, names: &[String]) -> Result<Vec<Rest>> {
    let [own, others] = [base, tuned].map(|model| remaining(model, names));
    let all: BTreeSet<&String> = own.iter().chain(&others).collect();
    let mut found = Vec::new();
    for name in all {
        let name = name.clone();
        match (own.contains(&name), others.contains(&name)) {
            (true, false) => found.push(Rest::OnlyBase { name }),
            (false, _) => found.push(Rest::OnlyTuned { name }),
            (true, true) => match change(base, tuned, &name) {
                None => found.push(Rest::OtherShape { name }),
                Some(change) if change > 0.0 => found.push(Rest::Differs { name, change }),
                Some(_) => {}
            },
        }
    }
    let numbers =
        |model: &Base| -> BTreeMap<String, f32> { model.numbers_of_metadata().into_iter().collect() };
    let (own, others) = (numbers(base), numbers(tuned));
    for (name, number) in &own {
        if let Some(other) = others.get(name)
            && other != number
        {
            let change = f64::from((other - number).abs()) / f64::from(number.abs().max(f32::MIN_POSITIVE));
            found.push(Rest::Differs { name: name.clone(), change });
        }
    }
    Ok(found)
}

/// The tensors, and parts of tensors, that none of the names stands for.
fn remaining(model: &Base, names: &[String]) -> BTreeSet<String> {
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut remaining = BTreeSet::new();
    for name in model.tensors().keys().filter(|name| !names.contains(name.as_str())) {
        let parts: Vec<String> = model.parts(name).into_iter().map(|(part, _)| part).collect();
        match parts.iter().any(|part| names.contains(part.as_str())) {
            true => remaining.extend(parts.into_iter().filter(|part| !names.contains(part.as_str()))),
            false => drop(remaining.insert(name.clone())),
        }
    }
    remaining
}

/// `|W' - W| / |W|`; `None` if they have other shapes, or values that are not finite or cannot be read.
fn change(base: &Base, tuned: &Base, name: &str) -> Option<f64> {
    let (own, other) = (base.weight(name).ok()?, tuned.weight(name).ok()?);
    if (own.rows(), own.cols()) != (other.rows(), other.cols()) {
        return None;
    }
    let (moved, all) = apart(&own, &other);
    let change = if moved == 0.0 { 0.0 } else { (moved / all.max(f64::MIN_POSITIVE)).sqrt() };
    change.is_finite().then_some(change)
}

/// `|W' - W|^2` and `|W|^2`, a few rows at a time.
fn apart(own: &Weight<'_>, other: &Weight<'_>) -> (f64, f64) {
    let block = own.block_rows();
    let blocks: Vec<usize> = (0..own.rows()).step_by(block).collect();
    let of_block = |&first: &usize| {
        let rows = first..(first + block).min(own.rows());
        let mut values = [(); 2].map(|()| vec![0.0; rows.len() * own.cols()]);
        own.decode_rows(rows.clone(), &mut values[0]);
        other.decode_rows(rows, &mut values[1]);
        let [own, other] = values;
        own.iter().zip(&other).fold((0.0, 0.0), |(moved, all), (x, y)| {
            let (x, y) = (f64::from(*x), f64::from(*y));
            (moved + (y - x) * (y - x), all + x * x)
        })
    };
    let sums: Vec<(f64, f64)> = blocks.par_iter().map(of_block).collect();
    sums.iter().fold((0.0, 0.0), |(moved, all), (m, a)| (moved + m, all + a))
}
