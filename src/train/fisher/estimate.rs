//! The estimate of a Fisher matrix from texts.

use half::bf16;
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use super::smooth::Smooth;
use super::{Block, CONTIGUOUS, Fisher, MATRIX_LIMIT};
use crate::kernels::{bf16 as rounding, matmul, matmul_single};
use crate::model::{Batch, TermSink, Transformer};
use crate::train::anchor::{Anchor, backward_with_sampled_labels};

/// Tokens that go through the model at a time, in whole texts.
pub(super) const MAX_TOKENS: usize = 1024;
/// Share of each text's samples in F, up to a limit; the rest is smooth. Training finds what few samples miss: with
/// 127 texts and a quarter of samples, SmolLM2 after SST-2 had a seventh of the true divergence on its samples.
const SHARE_A_TEXT: f32 = 1.0 / 1500.0;
const MOST_SHARE: f32 = 0.25;

/// What is summed for one matrix U `[c, r]`.
struct Moments {
    /// vec(G_s) of each text so far, `[texts, c r]`.
    samples: Array2<bf16>,
    /// Sums of h h^T `[c, c]` and z z^T `[r, r]`.
    factors: [Array2<f32>; 2],
}

/// Takes the moments of the texts of a batch.
struct Texts<'a> {
    /// One sequence for each text.
    batch: &'a Batch,
    /// The index of the first text in `samples`.
    first: usize,
    moments: &'a mut [Moments],
}

impl TermSink<f32> for Texts<'_> {
    fn add(&mut self, slot: usize, h: ArrayView2<f32>, z: ArrayView2<f32>) {
        let Moments { samples, factors: [sh, sz] } = &mut self.moments[slot];
        matmul(sh.view_mut(), true, h.t(), h);
        matmul(sz.view_mut(), true, z.t(), z);
        let texts = self.batch.sequences_within(h.nrows());
        let mut own = samples.slice_mut(s![self.first..self.first + texts.len(), ..]);
        own.axis_iter_mut(Axis(0)).into_par_iter().zip(texts).for_each(|(mut row, text)| {
            let mut g = Array2::zeros((h.ncols(), z.ncols()));
            let [h, z] = [h, z].map(|x| x.slice_move(s![text.clone(), ..]));
            matmul_single(g.view_mut(), false, h.t(), z);
            round(g.as_slice().expect(CONTIGUOUS), row.as_slice_mut().expect(CONTIGUOUS));
        });
    }
}

impl Fisher {
    /// The Fisher information of the matrices U that are attached to `model`, at their present values, on
    /// these texts. Labels are sampled with `seed`. Activations, packed weights and samples take at most
    /// `memory` bytes if that is possible; the result does not depend on it. `progress` gets the texts done and
    /// their number.
    pub fn estimate(
        model: &mut Transformer<'_, f32>,
        anchor: &Anchor,
        seed: u64,
        memory: u64,
        mut progress: impl FnMut(usize, usize),
    ) -> Self {
        let texts = anchor.texts.len();
        let shapes: Vec<_> = model.trainable_mut().iter().map(|u| u.dim()).collect();
        let samples: usize = shapes.iter().map(|(c, r)| texts * c * r * size_of::<bf16>()).sum();
        model.divide_memory(memory.saturating_sub(samples as u64), MAX_TOKENS);
        let mut moments: Vec<Moments> = shapes
            .into_iter()
            .map(|(c, r)| Moments {
                samples: Array2::from_elem((texts, c * r), bf16::ZERO),
                factors: [Array2::zeros((c, c)), Array2::zeros((r, r))],
            })
            .collect();
        let mut random = ChaCha20Rng::seed_from_u64(seed);
        let (mut predictions, mut done) = (0, 0);
        for batch in anchor.batches(MAX_TOKENS) {
            let mut sink = Texts { batch: &batch, first: done, moments: &mut moments };
            backward_with_sampled_labels(model, &batch, &mut random, &mut sink);
            predictions += batch.predictions().len();
            done += batch.sequences().len();
            progress(done, texts);
        }
        let blocks = moments.into_par_iter().map(|moments| moments.block(predictions)).collect();
        Self { blocks }
    }
}

impl Moments {
    /// F from the sums over this many predictions.
    fn block(self, predictions: usize) -> Block {
        let Moments { samples, factors: [sh, sz] } = self;
        let share = (SHARE_A_TEXT * samples.nrows() as f32).min(MOST_SHARE);
        let weight = share / predictions as f32;
        let smooth = Smooth::new([sh, sz], &samples, f64::from(1.0 - share) / predictions as f64);
        Block::Samples { samples, weight, smooth }.into_matrix_if_small()
    }
}

impl Block {
    /// F as a matrix, if U is small.
    pub(super) fn into_matrix_if_small(self) -> Self {
        let Block::Samples { samples, weight, smooth } = &self else { return self };
        let size = samples.ncols();
        if size > MATRIX_LIMIT {
            return self;
        }
        let mut f = Array2::zeros((size, size));
        let mut unit = Array2::zeros(smooth.along.dim());
        for (i, mut column) in f.columns_mut().into_iter().enumerate() {
            unit.iter_mut().enumerate().for_each(|(j, x)| *x = f32::from(u8::from(i == j)));
            column.assign(&Array1::from_iter(smooth.times(unit.view())));
        }
        let mut wide = Array2::zeros(samples.dim());
        for (mut wide, row) in wide.rows_mut().into_iter().zip(samples.rows()) {
            super::widen(row.as_slice().expect(CONTIGUOUS), wide.as_slice_mut().expect(CONTIGUOUS));
        }
        let scaled = &wide * *weight;
        matmul_single(f.view_mut(), true, scaled.t(), wide.view());
        Block::Matrix(f)
    }
}

fn round(wide: &[f32], rounded: &mut [bf16]) {
    use half::slice::HalfFloatSliceExt;
    rounding::to_bf16(wide, rounded.reinterpret_cast_mut());
}
