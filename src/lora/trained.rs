//! A LoRA that curmerge trains: its thin matrices in memory, and how they begin.

use std::ops::RangeInclusive;

use ndarray::{Array2, Axis};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::svd::truncated_svd;
use super::{Lora, in_parts};
use crate::base::{Base, Weight};
use crate::card::Record;
use crate::cur::{Factors, squared_norms};
use crate::kernels::random::uniform;
use crate::{Error, Result};

/// Which of the thin matrices are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraMethod {
    /// A and B (LoRA, arXiv 2106.09685).
    Lora,
    /// U between frozen A and B (LoRA-XS, arXiv 2405.17604).
    LoraXs,
}

/// What a new LoRA is like.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraOptions {
    /// Which matrices are trained.
    pub method: LoraMethod,
    /// Rows of A and columns of B.
    pub rank: u32,
    /// The scale is alpha / rank.
    pub alpha: f32,
    /// The scale is alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732).
    pub rslora: bool,
    /// The matrices: words such as `q,k,v` or `all`, or canonical names; see [`Base::targets`].
    pub targets: String,
    /// Only matrices of these blocks, counted from 0; all without.
    pub layers: Option<RangeInclusive<usize>>,
    /// Seed of A.
    pub seed: u64,
}

impl LoraOptions {
    /// The factor s of the change.
    pub fn scale(&self) -> f32 {
        let rank = f64::from(self.rank);
        (f64::from(self.alpha) / if self.rslora { rank.sqrt() } else { rank }) as f32
    }
}

/// A LoRA in memory: the change of each target is `s B A`, or `s B U A`.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedLora {
    /// What it is like. Its `targets` and `layers` gave the list below.
    pub options: LoraOptions,
    /// The changed matrices, sorted by name.
    pub targets: Vec<LoraTarget>,
    /// What a model card says of how it was made.
    pub record: Record,
}

/// The thin matrices of one matrix W `[m, n]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraTarget {
    /// Canonical name of W.
    pub name: String,
    /// `[r, n]`.
    pub a: Array2<f32>,
    /// `[m, r]`, rows in canonical order.
    pub b: Array2<f32>,
    /// The trained matrix of LoRA-XS, `[r, r]`.
    pub u: Option<Array2<f32>>,
}

impl TrainedLora {
    /// A new LoRA of the base, which changes nothing yet.
    ///
    /// LoRA: A is uniform within 1 / sqrt(n) and B = 0, as in PEFT (Kaiming's uniform initialization with
    /// a = sqrt(5)). The stream is ChaCha20 keyed by SHA-256 of `"curmerge-lora-1\0"`, the seed (u64,
    /// little-endian) and the canonical name. A number is its next u64's upper 53 bits, row by row.
    /// LoRA-XS: B = P S and A = Q^T of the leading singular values of W = P S Q^T, and U = 0.
    ///
    /// # Errors
    /// Those of [`Base::targets`]; for LoRA-XS, a rank above a matrix's own size, or a value that is not
    /// finite.
    pub fn new(base: &Base, options: LoraOptions) -> Result<Self> {
        let names = base.targets(&options.targets, options.layers.clone())?;
        let targets: Vec<Result<LoraTarget>> = names
            .into_par_iter()
            .map(|name| {
                let weight = base.weight(&name)?;
                match options.method {
                    LoraMethod::Lora => Ok(uniform_target(&weight, name, &options)),
                    LoraMethod::LoraXs => {
                        singular_target(&weight, name, options.rank).map_err(|e| e.in_file(base.path()))
                    }
                }
            })
            .collect();
        // Of several errors, the first in order and not in time.
        Ok(Self { targets: targets.into_iter().collect::<Result<_>>()?, options, record: Record::new() })
    }

    /// A LoRA of another program as it is.
    ///
    /// # Errors
    /// Those of [`Lora::factors`]; an adapter that its own scale turns off.
    pub fn of(lora: &Lora, base: &Base) -> Result<Self> {
        let (targets, scale) = lora.unscaled_targets(base)?;
        Ok(Self::with(targets, scale, 0))
    }

    /// A LoRA that is to be trained further: A and B of the file, and its scale. Fused matrices are divided
    /// into their parts, which a model runs. `seed` is that of the run.
    ///
    /// # Errors
    /// Those of [`Self::of`].
    pub fn further(lora: &Lora, base: &Base, seed: u64) -> Result<Self> {
        let (targets, scale) = lora.unscaled_targets(base)?;
        let mut targets: Vec<_> = targets.into_iter().flat_map(|target| in_parts(base, target)).collect();
        targets.iter_mut().for_each(LoraTarget::drop_what_other_parts_use);
        Ok(Self::with(targets, scale, seed))
    }

    /// A LoRA of these matrices, whose change is `B A` itself, and what a model card says of how it was made.
    pub fn of_targets(targets: Vec<LoraTarget>, record: Record) -> Self {
        Self { record, ..Self::with(targets, 1.0, 0) }
    }

    fn with(mut targets: Vec<LoraTarget>, scale: f32, seed: u64) -> Self {
        targets.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        // Matrices may differ in rank.
        let rank = targets.iter().map(|target| target.a.nrows()).max().unwrap_or_default();
        let options = LoraOptions {
            method: LoraMethod::Lora,
            rank: rank as u32,
            alpha: scale * rank as f32,
            rslora: false,
            targets: names.join(","),
            layers: None,
            seed,
        };
        Self { options, targets, record: Record::new() }
    }

    /// Numbers that are trained.
    pub fn trained_numbers(&self) -> usize {
        let numbers = |t: &LoraTarget| t.u.as_ref().map_or(t.a.len() + t.b.len(), Array2::len);
        self.targets.iter().map(numbers).sum()
    }
}

impl LoraTarget {
    /// Of a part of a fused matrix: drops the columns of B that are zero, with their rows of A. They are those
    /// of other parts, and would multiply with every run.
    fn drop_what_other_parts_use(&mut self) {
        let used: Vec<usize> =
            (0..self.b.ncols()).filter(|&k| self.b.column(k).iter().any(|x| *x != 0.0)).collect();
        // B of a LoRA that was never trained is zero.
        if self.name.ends_with(']') && !used.is_empty() {
            (self.a, self.b) = (self.a.select(Axis(0), &used), self.b.select(Axis(1), &used));
        }
    }

    /// Its change times `scale` as two factors: B, and A or U A times `scale`, summed in f64.
    pub fn factors(&self, scale: f32) -> Factors {
        let (rank, n) = self.a.dim();
        let p = match &self.u {
            None => self.a.iter().map(|x| scale * x).collect(),
            Some(u) => {
                let product = u.mapv(f64::from).dot(&self.a.mapv(f64::from));
                product.iter().map(|x| (f64::from(scale) * x) as f32).collect()
            }
        };
        Factors::new(self.b.iter().copied().collect(), p, rank, n)
    }
}

fn uniform_target(weight: &Weight<'_>, name: String, options: &LoraOptions) -> LoraTarget {
    let (m, n, rank) = (weight.rows(), weight.cols(), options.rank as usize);
    let mut hash = Sha256::new();
    hash.update(b"curmerge-lora-1\0");
    hash.update(options.seed.to_le_bytes());
    hash.update(name.as_bytes());
    let mut stream = ChaCha20Rng::from_seed(hash.finalize().into());
    let bound = 1.0 / (n as f64).sqrt();
    let a = Array2::from_shape_simple_fn((rank, n), || (bound * (2.0 * uniform(&mut stream) - 1.0)) as f32);
    LoraTarget { name, a, b: Array2::zeros((m, rank)), u: None }
}

fn singular_target(weight: &Weight<'_>, name: String, rank: u32) -> Result<LoraTarget> {
    let most = weight.rows().min(weight.cols());
    if rank as usize > most {
        let problem = format!("tensor '{name}' has {most} singular values, fewer than rank {rank}");
        let help = format!("use a rank of at most {most}, or leave this tensor out of the targets");
        return Err(Error::request(problem, help));
    }
    let norms = squared_norms(weight);
    if !norms.total().is_finite() {
        let problem = format!("tensor '{name}' holds a value that is not a finite number");
        return Err(Error::request(problem, "the base file is damaged; download it again"));
    }
    let (b, a) = truncated_svd(weight, &norms, rank as usize);
    let rank = rank as usize;
    Ok(LoraTarget { name, a, b, u: Some(Array2::zeros((rank, rank))) })
}
