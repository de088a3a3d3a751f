//! The selection of columns and rows by the task's signal against the noise of general text.
//!
//! A term s C U R of a matrix W `[m, n]` sees of a token h = C^T g and z = R x: some numbers of
//!
//! ```text
//! h_full = g W    [n]    one for each column, g = dL/dy
//! y = x W^T       [m]    one for each row
//! ```
//!
//! Training moves U along sums of h z^T over the task's tokens; what that costs the model elsewhere is given
//! by second moments of h and z on its own text (the [Fisher information](super::fisher)). So columns J are
//! chosen by the second moments T of h_full on the task's examples, with their true labels, against S on the
//! anchor, with labels sampled from the model: greedily for tr(S_JJ^-1 T_JJ). Rows likewise by y. Columns and
//! rows of a matrix are chosen independently.
//!
//! S and T of all n columns would take n^2 numbers. A first pass sums the diagonals alone; the second pass
//! sums S and T in full of the [candidates](SignalOptions::candidates): the columns with the largest ratio
//! T_ii / S_ii.

mod greedy;
mod moments;
mod orders;

use curmerge_formats::sha256_hex;
use ndarray::Array2;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use super::anchor::{Anchor, backward_with_sampled_labels};
use super::batches::{self, BatchLimits};
use super::data::{Dataset, Example};
use crate::Result;
use crate::base::Base;
use crate::cur::{self, Axis};
use crate::model::{Batch, Probe, TermSink, Transformer};
use moments::Moments;

pub use moments::Diagonals;
pub use orders::Orders;

/// The default of [`SignalOptions::candidates`].
const CANDIDATES: usize = 128;
/// The fewest candidates for each one that is chosen.
const CANDIDATES_EACH: usize = 4;
/// Texts of the anchor that are used, spread evenly over it.
pub const TEXTS: usize = 50;
/// The most examples that are used.
pub const EXAMPLES: usize = 100;
/// The most tokens of examples that are used, for each of the anchor: so a budget for the anchor is one for
/// them, too.
const TOKENS_EACH: usize = 1;
/// Tokens that go through the model at a time, in whole texts: whatever the memory, so that sums are rounded
/// alike.
const TOKENS: usize = 512;
/// Added to the diagonal of S, as a share of its mean.
const RIDGE: f64 = 1e-3;
/// Columns and rows are ordered to this rank at least, so that smaller ones need no new passes.
const ORDERED: usize = 64;

/// How to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalOptions {
    /// Columns and rows of each matrix.
    pub rank: u32,
    /// Seed of the sampled labels, and of the choice among many examples.
    pub seed: u64,
    /// Upper limit of the bytes for activations and packed weights. The choice does not depend on it.
    pub memory: u64,
    /// Columns, and rows, of each matrix whose second moments are summed in full; at least four times the
    /// rank are. Default: 128.
    pub candidates: usize,
}

impl SignalOptions {
    /// With the default number of candidates.
    pub fn new(rank: u32, seed: u64, memory: u64) -> Self {
        Self { rank, seed, memory, candidates: CANDIDATES }
    }
}

/// The columns and rows of a matrix that are not zero, the largest first.
pub type Usable = [Vec<u32>; 2];

/// The columns and rows of each of these matrices that can be chosen.
///
/// # Errors
/// A matrix that the base does not have, that has a value that is not finite, or that has fewer nonzero
/// columns or rows than the rank.
pub fn usable(base: &Base, names: &[String], rank: u32) -> Result<Vec<Usable>> {
    let of = |name: &String| -> Result<Usable> {
        let norms = cur::finite_norms(&base.weight(name)?, name)?;
        let [cols, rows] = [(&norms.cols, Axis::Cols), (&norms.rows, Axis::Rows)].map(|(norms, axis)| {
            let norm = |i: u32| norms[i as usize];
            let mut usable: Vec<u32> = (0..norms.len() as u32).filter(|&i| norm(i) > 0.0).collect();
            usable.sort_by(|&a, &b| norm(b).total_cmp(&norm(a)));
            cur::enough(usable.len(), rank, name, axis).map(|()| usable)
        });
        Ok([cols?, rows?])
    };
    let all: Vec<_> = names.par_iter().map(|name| of(name).map_err(|e| e.in_file(base.path()))).collect();
    all.into_iter().collect()
}

/// Texts, examples and matrices of a selection.
#[derive(Debug)]
pub struct SignalSelection<'a> {
    /// The frozen model.
    model: Transformer<'a, f32>,
    names: &'a [String],
    usable: Vec<Usable>,
    /// Columns and rows of each matrix.
    shapes: Vec<[usize; 2]>,
    anchor: Anchor,
    examples: Vec<(usize, &'a Example)>,
    options: SignalOptions,
}

impl<'a> SignalSelection<'a> {
    /// Of the matrices `names` of a model without terms, with their [`usable`] columns and rows.
    ///
    /// # Errors
    /// A matrix that the base has not.
    pub fn new(
        base: &'a Base,
        model: &Transformer<'a, f32>,
        (names, usable): (&'a [String], Vec<Usable>),
        (anchor, data): (&Anchor, &'a Dataset),
        options: SignalOptions,
    ) -> Result<Self> {
        let shapes = names.iter().map(|name| base.weight(name).map(|w| [w.cols(), w.rows()]));
        let anchor = spread(anchor);
        let tokens = TOKENS_EACH * anchor.texts.iter().map(|text| text.tokens.len()).sum::<usize>();
        Ok(Self {
            model: model.clone(),
            names,
            usable,
            shapes: shapes.collect::<Result<_>>()?,
            anchor,
            examples: some_of(data, options.seed, tokens),
            options,
        })
    }

    /// What the diagonals S_ii follow from besides the model: a digest.
    pub fn noise_sha256(&self) -> String {
        let words = format!("{} {} {}", self.names.join(" "), self.anchor.sha256(), self.options.seed);
        sha256_hex(words.as_bytes())
    }

    /// What [`Self::orders`] follows from besides the model: a digest.
    pub fn sha256(&self) -> String {
        let mut words = format!("{} {} {}", self.noise_sha256(), self.ordered(), self.candidates());
        for (_, example) in &self.examples {
            words += &format!(" {:?} {:?}", example.tokens, example.loss_mask);
        }
        sha256_hex(words.as_bytes())
    }

    /// Columns and rows of each matrix.
    pub fn shapes(&self) -> impl Iterator<Item = [usize; 2]> {
        self.shapes.iter().copied()
    }

    /// How many columns, and rows, are ordered of a matrix that has as many.
    pub fn ordered(&self) -> usize {
        ORDERED.max(self.options.rank as usize)
    }

    fn candidates(&self) -> usize {
        self.options.candidates.max(CANDIDATES_EACH * self.options.rank as usize)
    }

    /// The number of texts and examples of a pass over both, for `progress`.
    pub fn lengths(&self) -> [usize; 2] {
        [self.anchor.texts.len(), self.examples.len()]
    }

    /// S_ii of all columns and rows. `progress` gets the texts done.
    ///
    /// # Errors
    /// A matrix that the model has not.
    pub fn noise(&self, progress: impl FnMut(usize)) -> Result<Diagonals> {
        let mut sums = Diagonals::zeros(self.shapes());
        self.pass_over_anchor(&self.probed(self.everything(), 0)?, &mut sums, progress);
        Ok(sums)
    }

    /// The columns and rows of each matrix in the order in which they are chosen, from the diagonals of S.
    /// `progress` gets the texts and examples done, of twice the examples and once the texts.
    ///
    /// # Errors
    /// A matrix that the model has not.
    pub fn orders(&self, noise: &Diagonals, mut progress: impl FnMut(usize)) -> Result<Orders> {
        let mut signal = Diagonals::zeros(self.shapes());
        let [_, examples] = self.lengths();
        self.pass_over_examples(&self.probed(self.everything(), 0)?, &mut signal, &mut progress);
        let candidates = self.choose_candidates(noise, &signal);
        let counts = || candidates.iter().map(|sides| [0, 1].map(|side| sides[side].len()));
        let [mut noises, mut signals] = [Moments::zeros(counts()), Moments::zeros(counts())];
        let sums = noises.bytes() + signals.bytes();
        let probed = self.probed(candidates.iter().cloned(), sums)?;
        self.pass_over_examples(&probed, &mut signals, |done| progress(examples + done));
        self.pass_over_anchor(&probed, &mut noises, |done| progress(2 * examples + done));
        let moments = noises.into_matrices().into_par_iter().zip(signals.into_matrices());
        let orders = moments.enumerate().map(|(matrix, ([s_cols, s_rows], [t_cols, t_rows]))| {
            let order = |side: usize, moments| {
                let ridge = ridge(&noise.of(matrix)[side]);
                self.order(moments, ridge, &candidates[matrix][side], &self.usable[matrix][side])
            };
            [order(0, [s_cols, t_cols]), order(1, [s_rows, t_rows])]
        });
        Ok(Orders::new(orders.collect()))
    }

    /// The order of a side of a matrix. What has no signal follows by its size.
    fn order(
        &self,
        [noise, signal]: [Array2<f32>; 2],
        ridge: f64,
        candidates: &[u32],
        usable: &[u32],
    ) -> Vec<u32> {
        let mut noise = noise.mapv(f64::from);
        noise.diag_mut().iter_mut().for_each(|s| *s += ridge);
        let chosen = greedy::order(noise, signal.mapv(f64::from), self.ordered());
        let mut order: Vec<u32> = chosen.into_iter().map(|i| candidates[i]).collect();
        let rest: Vec<u32> = usable.iter().copied().filter(|i| !order.contains(i)).collect();
        order.extend(rest.into_iter().take(self.ordered().saturating_sub(order.len())));
        order
    }

    /// The columns and rows of each matrix with the largest ratios of the diagonals, ascending.
    fn choose_candidates(&self, noise: &Diagonals, signal: &Diagonals) -> Vec<[Vec<u32>; 2]> {
        let side = |matrix: usize, side: usize| {
            let (noise, signal) = (&noise.of(matrix)[side], &signal.of(matrix)[side]);
            let ridge = ridge(noise);
            let ratio = |i: u32| signal[i as usize] / (noise[i as usize] + ridge);
            let mut candidates = self.usable[matrix][side].clone();
            candidates.sort_by(|&a, &b| ratio(b).total_cmp(&ratio(a)).then(a.cmp(&b)));
            candidates.truncate(self.candidates());
            candidates.sort_unstable();
            candidates
        };
        (0..self.names.len()).into_par_iter().map(|matrix| [side(matrix, 0), side(matrix, 1)]).collect()
    }

    /// All columns and rows of each matrix.
    fn everything(&self) -> impl Iterator<Item = [Vec<u32>; 2]> {
        self.shapes().map(|shape| shape.map(|length| (0..length as u32).collect()))
    }

    /// The model with probes of these columns and rows, whose sums take so many bytes of the memory.
    fn probed(&self, sides: impl Iterator<Item = [Vec<u32>; 2]>, sums: u64) -> Result<Transformer<'a, f32>> {
        let mut model = self.model.clone();
        for (slot, (name, [cols, rows])) in self.names.iter().zip(sides).enumerate() {
            model.attach_probe(name, Probe { slot, cols, rows })?;
        }
        model.divide_memory(self.options.memory.saturating_sub(sums), TOKENS);
        Ok(model)
    }

    fn pass_over_anchor(
        &self,
        model: &Transformer<'_, f32>,
        sink: &mut dyn TermSink<f32>,
        mut progress: impl FnMut(usize),
    ) {
        let mut random = ChaCha20Rng::seed_from_u64(self.options.seed);
        let mut done = 0;
        for batch in self.anchor.batches(TOKENS) {
            backward_with_sampled_labels(model, &batch, &mut random, sink);
            done += batch.sequences().len();
            progress(done);
        }
    }

    fn pass_over_examples(
        &self,
        model: &Transformer<'_, f32>,
        sink: &mut dyn TermSink<f32>,
        mut progress: impl FnMut(usize),
    ) {
        let limits = BatchLimits { max_tokens: TOKENS, share_prefixes: false };
        let mut done = 0;
        for micro_batch in batches::micro_batches(self.examples.iter().copied(), limits) {
            backward(model, &micro_batch.batch, sink);
            done += micro_batch.examples.len();
            progress(done);
        }
    }
}

/// A backward pass of the batch's own labels.
fn backward(model: &Transformer<'_, f32>, batch: &Batch, sink: &mut dyn TermSink<f32>) {
    let tokens: Vec<u32> = batch.predictions().iter().map(|(_, token)| *token).collect();
    model.backward_from(model.forward_frozen(batch), batch, sink, |head, hidden| {
        head.loss_backward(hidden, &tokens, 1.0)
    });
}

/// What is added to the diagonal of S, from the diagonal of all columns; 1 where S is zero, so that the
/// signal alone decides.
fn ridge(diagonal: &[f64]) -> f64 {
    let mean = diagonal.iter().sum::<f64>() / diagonal.len().max(1) as f64;
    if mean > 0.0 && mean.is_finite() { RIDGE * mean } else { 1.0 }
}

/// At most [`TEXTS`] texts of the anchor, spread evenly over it.
fn spread(anchor: &Anchor) -> Anchor {
    let (all, count) = (anchor.texts.len(), anchor.texts.len().min(TEXTS));
    Anchor { texts: (0..count).map(|i| anchor.texts[i * all / count].clone()).collect() }
}

/// The tokens of examples that a selection with this seed reads, beside [`TEXTS`] texts of `length` tokens.
pub fn example_tokens(data: &Dataset, seed: u64, length: usize) -> usize {
    let examples = some_of(data, seed, TOKENS_EACH * TEXTS * length);
    examples.iter().map(|(_, example)| example.tokens.len()).sum()
}

/// At most [`EXAMPLES`] examples of `most` tokens, but at least one: those that training sees first.
fn some_of(data: &Dataset, seed: u64, most: usize) -> Vec<(usize, &Example)> {
    let order = data.order(seed, 0);
    let mut tokens = 0;
    let within = |(_, example): &(usize, &Example)| {
        let first = tokens == 0;
        tokens += example.tokens.len();
        first || tokens <= most
    };
    order.into_iter().map(|i| (i, &data.examples[i])).take(EXAMPLES).take_while(within).collect()
}

#[cfg(test)]
mod tests;
