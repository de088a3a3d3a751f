//! The low-rank difference of two models, as a LoRA: the leading singular part of `W' - W` of every matrix.
//!
//! `B A` of rank r is the nearest to the difference of all matrices of that rank (Eckart and Young 1936). B has the left
//! singular vectors times the roots of the singular values, A the right ones times the same roots, so that neither is
//! larger than the other. mergekit's `extract_lora` does the same. One matrix is in memory at a time.

mod rest;

use std::ops::RangeInclusive;

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;
use serde::Serialize;

use crate::base::Base;
use crate::card::Record;
use crate::cur::{Factors, fingerprint};
use crate::error::shortened;
use crate::kernels::svd::{Leading, squares};
use crate::lora::{LoraTarget, TrainedLora};
use crate::{Error, Result};

pub use rest::{Rest, rest};

/// The rank that is tried first where an error decides.
const FIRST_RANK: usize = 16;
/// The head's canonical name. It is no target of training.
const HEAD: &str = "output";

/// What to extract.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtractOptions {
    /// The rank; with `max_error` the largest.
    pub rank: usize,
    /// The error of a matrix, `|D - B A| / |D|`, that a smaller rank may leave. Default: `None`, which takes
    /// `rank` for all.
    pub max_error: Option<f64>,
    /// The matrices: words such as `q,k,v`, `all`, or canonical names, as [`Base::targets`] takes them, or `output`.
    pub targets: String,
    /// Only matrices of these blocks, counted from 0. Default: `None`, all blocks.
    pub layers: Option<RangeInclusive<usize>>,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self { rank: 32, max_error: None, targets: "all".into(), layers: None }
    }
}

/// What became of the difference of one matrix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MatrixReport {
    /// Canonical name.
    pub name: String,
    /// Rows of A.
    pub rank: usize,
    /// `|D - B A| / |D|`, Frobenius norms, measured.
    pub error: f64,
    /// `|D| / |W|`
    pub change: f64,
    /// `|D|^2`
    #[serde(skip)]
    squares: f64,
}

/// The LoRA of a difference.
#[derive(Clone, Debug)]
pub struct Extracted {
    /// Its matrices are those that differ.
    pub lora: TrainedLora,
    /// What became of each of them, sorted by name.
    pub matrices: Vec<MatrixReport>,
    /// The matrices that were asked for and are equal.
    pub equal: usize,
    /// What else differs, sorted by name.
    pub rest: Vec<Rest>,
}

impl Extracted {
    /// The error over all matrices of the LoRA: `|D - B A| / |D|`.
    pub fn error(&self) -> f64 {
        let lost: f64 = self.matrices.iter().map(|m| m.error * m.error * m.squares).sum();
        let all: f64 = self.matrices.iter().map(|m| m.squares).sum();
        (lost / all).sqrt()
    }

    /// What a model card says of it.
    fn record(&self, tuned: &Base) -> Record {
        let mut record = vec![
            ("Made of", "the difference of a tuned model and the base, by SVD".to_owned()),
            ("Tuned model", tuned.hugging_face_repository().unwrap_or_else(|| tuned.name())),
            ("Tuned model, SHA-256 of the digests of its tensors", fingerprint::base_sha256(tuned)),
            ("Error over all matrices", format!("{:.3e}", self.error())),
        ];
        if let Some(worst) = self.worst_first().first() {
            record.push(("Largest error of a matrix", format!("{:.3e} ({})", worst.error, worst.name)));
        }
        if !self.rest.is_empty() {
            record.push(("Tensors that differ and are not in it", self.rest.len().to_string()));
        }
        record
    }

    /// The matrices, those with the largest error first.
    pub fn worst_first(&self) -> Vec<&MatrixReport> {
        let mut matrices: Vec<_> = self.matrices.iter().collect();
        matrices.sort_by(|a, b| b.error.total_cmp(&a.error).then_with(|| a.name.cmp(&b.name)));
        matrices
    }
}

/// The difference `tuned - base` as a LoRA of the base. `progress` gets the number of finished matrices, and of all.
///
/// # Errors
/// Models of different architectures or shapes; those of [`Base::targets`]; a value that is not finite; models whose
/// matrices are equal.
pub fn extract(
    base: &Base,
    tuned: &Base,
    options: &ExtractOptions,
    progress: impl Fn(u64, u64),
) -> Result<Extracted> {
    if base.architecture_name() != tuned.architecture_name() {
        let [own, other] = [base, tuned].map(|model| shortened(model.architecture_name(), 40));
        let problem = format!("'{other}', and {} is '{own}'", base.path().display());
        return Err(Error::input(
            tuned.path(),
            "architecture",
            problem,
            "name two models of one architecture",
        ));
    }
    let names = names(base, options)?;
    let (mut targets, mut matrices, mut equal) = (Vec::new(), Vec::new(), 0);
    for (number, name) in names.iter().enumerate() {
        match of_matrix(base, tuned, name, options)? {
            None => equal += 1,
            Some((target, report)) => {
                targets.push(target);
                matrices.push(report);
            }
        }
        progress(number as u64 + 1, names.len() as u64);
    }
    let rest = rest(base, tuned, &names)?;
    if targets.is_empty() {
        let problem = format!("none of its {equal} matrices differs from those of {}", base.path().display());
        let help = match rest.first() {
            None => "name another model".to_owned(),
            Some(rest) => format!("only other tensors differ, such as '{}'", rest.name()),
        };
        return Err(Error::file(tuned.path(), problem, help));
    }
    let mut found =
        Extracted { lora: TrainedLora::of_targets(targets, Record::new()), matrices, equal, rest };
    found.lora.record = found.record(tuned);
    Ok(found)
}

/// The matrices that the options select.
fn names(base: &Base, options: &ExtractOptions) -> Result<Vec<String>> {
    let words: Vec<&str> =
        options.targets.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let others: Vec<&str> = words.iter().copied().filter(|word| *word != HEAD).collect();
    let mut names = match others.is_empty() && !words.is_empty() {
        true => Vec::new(),
        false => base.targets(&others.join(","), options.layers.clone())?,
    };
    if others.len() < words.len() {
        if base.place(HEAD).is_none() {
            let problem = "it has no head of its own: the embedding serves as one";
            return Err(Error::input(base.path(), "tensor 'output'", problem, "leave it out of the targets"));
        }
        names.push(HEAD.into());
        names.sort();
        names.dedup();
    }
    Ok(names)
}

/// The LoRA of one matrix. `None` if it is equal in both models.
fn of_matrix(
    base: &Base,
    tuned: &Base,
    name: &str,
    options: &ExtractOptions,
) -> Result<Option<(LoraTarget, MatrixReport)>> {
    if tuned.place(name).is_none() {
        let problem = format!("it has no such tensor, and {} has", base.path().display());
        let help = "name two models of one size";
        return Err(Error::input(tuned.path(), format!("tensor '{name}'"), problem, help));
    }
    let (own, other) = (base.weight(name)?, tuned.weight(name)?);
    let shapes = [&own, &other].map(|weight| (weight.rows(), weight.cols()));
    if shapes[0] != shapes[1] {
        let problem = format!("is {:?}, and {:?} in {}", shapes[1], shapes[0], base.path().display());
        let help = "name two models of one size";
        return Err(Error::input(tuned.path(), format!("tensor '{name}'"), problem, help));
    }
    let (mut difference, w) = (other.vector(), own.vector());
    difference.par_iter_mut().zip(&w).for_each(|(x, w)| *x -= w);
    let of_base = squares(ArrayView2::from_shape(shapes[0], &w).expect(WHOLE));
    drop(w);
    let difference = Array2::from_shape_vec(shapes[0], difference).expect(WHOLE);
    let all = squares(difference.view());
    if !all.is_finite() || !of_base.is_finite() {
        let problem =
            format!("holds a value that is not a finite number, or does in {}", base.path().display());
        let help = "one of the files is damaged; download it again";
        return Err(Error::input(tuned.path(), format!("tensor '{name}'"), problem, help));
    }
    if all == 0.0 {
        return Ok(None);
    }
    let leading = match options.max_error {
        None => Leading::of_matrix(difference.view(), options.rank),
        Some(error) => within(&difference, all, error, options.rank),
    };
    let root = |k: usize| leading.values[k].sqrt();
    let b =
        Array2::from_shape_fn(leading.left.t().dim(), |(row, k)| (root(k) * leading.left[[k, row]]) as f32);
    let a = Array2::from_shape_fn(leading.right.dim(), |(k, col)| (root(k) * leading.right[[k, col]]) as f32);
    let target = LoraTarget { name: name.to_owned(), a, b, u: None };
    let report = MatrixReport {
        name: name.to_owned(),
        rank: target.a.nrows(),
        error: (lost(&difference, &target.factors(1.0)) / all).sqrt(),
        change: if of_base == 0.0 { 0.0 } else { (all / of_base).sqrt() },
        squares: all,
    };
    Ok(Some((target, report)))
}

const WHOLE: &str = "a weight has rows * cols numbers";

/// The singular part of the smallest rank that leaves at most this error, or of the largest rank.
fn within(difference: &Array2<f32>, all: f64, error: f64, largest: usize) -> Leading {
    let most = largest.min(difference.nrows()).min(difference.ncols());
    let mut rank = FIRST_RANK.min(most);
    loop {
        let leading = Leading::of_matrix(difference.view(), rank);
        let mut left = all;
        for (k, value) in leading.values.iter().enumerate() {
            left -= value * value;
            if left <= error * error * all {
                return leading.truncated(k + 1);
            }
        }
        if rank == most {
            return leading;
        }
        rank = (2 * rank).min(most);
    }
}

/// `|D - B A|^2`, row by row.
fn lost(difference: &Array2<f32>, factors: &Factors) -> f64 {
    let of_row = |row: usize| -> f64 {
        let mut sum = vec![0.0; difference.ncols()];
        factors.add_to_row(row, &mut sum);
        let apart = difference
            .row(row)
            .iter()
            .zip(&sum)
            .map(|(x, y)| f64::from(*x) - f64::from(*y))
            .collect::<Vec<_>>();
        apart.iter().map(|x| x * x).sum()
    };
    let rows: Vec<f64> = (0..difference.nrows()).into_par_iter().map(of_row).collect();
    rows.iter().sum()
}
