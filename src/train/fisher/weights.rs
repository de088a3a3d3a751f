//! The Fisher information of the matrices W that a LoRA changes, and the penalty made of it.
//!
//! A LoRA has no small trained matrix whose F could be exact: at B = 0 the gradient of A is zero, and F of W
//! has (m n)^2 numbers. So the change D = s B A of W `[m, n]` is penalized by K-FAC (Martens and Grosse 2015,
//! arXiv 1503.05671) alone:
//!
//! ```text
//! KL(base || adapted) a token ~ c/2 sum over matrices of tr(D^T Sg D Sx)
//! Sg = sum of g g^T [m, m]     Sx = sum of x x^T [n, n]     each with 1 % of its mean diagonal added
//! c  makes the trace of c Sg kron Sx that of (1/T) sum over texts s of vec(G_s) vec(G_s)^T, G_s = sum of g x^T
//! ```
//!
//! with the input x and the gradient g of each token, labels sampled from the model, and T predictions. The
//! gradients are thin products, through P = Sx A^T and Q = Sg B:
//!
//! ```text
//! dB = c s^2 Q (A P)           dA = c s^2 (B^T Q) P^T
//! ```
//!
//! Matrices that read the same input share Sx. Of a symmetric matrix, each pair of equal numbers is kept once
//! in bfloat16: a matrix takes about m^2 + n^2 bytes, and twice that while it is summed in f32.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, s};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use super::estimate::MAX_TOKENS;
use super::symmetric::{MomentSum, Symmetric};
use crate::kernels::matmul_single;
use crate::model::{AdaptedMatrix, Batch, TermSink, Transformer};
use crate::train::anchor::{Anchor, backward_with_sampled_labels};

/// Added to the diagonal of Sg and Sx, as a share of their mean diagonal.
const DAMPING: f32 = 0.01;

/// The Fisher information of every matrix W that a LoRA changes.
#[derive(Clone, Debug)]
pub struct WeightFisher {
    /// Sx of each input.
    inputs: Vec<Symmetric>,
    /// In the order of the LoRA's targets.
    weights: Vec<Factors>,
}

/// F of one matrix W.
#[derive(Clone, Debug)]
struct Factors {
    /// The index of its Sx.
    input: usize,
    /// Sg.
    outputs: Symmetric,
    /// c.
    factor: f32,
}

/// What is summed over the texts.
struct Sums {
    inputs: Vec<MomentSum>,
    outputs: Vec<MomentSum>,
    /// The sum of |G_s|^2 of each matrix.
    traces: Vec<f64>,
}

/// Takes the sums of the texts of a batch.
struct Texts<'a> {
    /// One sequence for each text.
    batch: &'a Batch,
    /// The input of each matrix, and whether it is the first to read it.
    groups: &'a [(usize, bool)],
    sums: &'a mut Sums,
    /// x x^T of each text, of the matrix whose A came last.
    grams: Vec<Array2<f32>>,
}

impl TermSink<f32> for Texts<'_> {
    /// A LoRA's A comes with x on the right, and then its B with g on the left.
    fn add(&mut self, slot: usize, left: ArrayView2<f32>, right: ArrayView2<f32>) {
        let matrix = slot / 2;
        let (input, is_first) = self.groups[matrix];
        let grams = |v: ArrayView2<f32>| -> Vec<Array2<f32>> {
            let of_text = |rows: &Range<usize>| {
                let v = v.slice(s![rows.clone(), ..]);
                let mut gram = Array2::zeros((rows.len(), rows.len()));
                matmul_single(gram.view_mut(), false, v, v.t());
                gram
            };
            self.batch.sequences_within(v.nrows()).par_iter().map(of_text).collect()
        };
        if slot.is_multiple_of(2) {
            self.grams = grams(right);
            if is_first {
                self.sums.inputs[input].add(right);
            }
            return;
        }
        let both = self.grams.iter().zip(grams(left));
        let squares =
            both.map(|(x, g)| x.iter().zip(&g).map(|(&x, &g)| f64::from(x) * f64::from(g)).sum::<f64>());
        self.sums.traces[matrix] += squares.sum::<f64>();
        self.sums.outputs[matrix].add(left);
    }
}

impl WeightFisher {
    /// The Fisher information of the matrices that the LoRA attached to `model` changes, on these texts. B
    /// must be zero. Labels are sampled with `seed`. Activations and packed weights take at most `memory`
    /// bytes, which does not change the result. `progress` gets the texts done and their number.
    pub fn estimate(
        model: &mut Transformer<'_, f32>,
        anchor: &Anchor,
        seed: u64,
        memory: u64,
        mut progress: impl FnMut(usize, usize),
    ) -> Self {
        model.divide_memory(memory, MAX_TOKENS);
        let adapted = model.adapted_matrices();
        let mut sums = Sums { inputs: Vec::new(), outputs: Vec::new(), traces: vec![0.0; adapted.len()] };
        let mut groups: Vec<(usize, bool)> = Vec::new();
        let mut seen = Vec::new();
        for AdaptedMatrix { input, shape: (m, n) } in adapted {
            let known = seen.iter().position(|&known| known == input);
            if known.is_none() {
                seen.push(input);
                sums.inputs.push(MomentSum::zeros(n));
            }
            groups.push((known.unwrap_or(seen.len() - 1), known.is_none()));
            sums.outputs.push(MomentSum::zeros(m));
        }
        let mut random = ChaCha20Rng::seed_from_u64(seed);
        let (mut predictions, mut done) = (0, 0);
        for batch in anchor.batches(MAX_TOKENS) {
            let mut sink = Texts { batch: &batch, groups: &groups, sums: &mut sums, grams: Vec::new() };
            backward_with_sampled_labels(model, &batch, &mut random, &mut sink);
            predictions += batch.predictions().len();
            done += batch.sequences().len();
            progress(done, anchor.texts.len());
        }
        let (inputs, input_traces): (Vec<_>, Vec<f64>) =
            sums.inputs.into_iter().map(|sum| sum.damped(DAMPING)).unzip();
        let outputs = sums.outputs.into_iter().zip(sums.traces).zip(groups);
        let weights = outputs.map(|((outputs, trace), (input, _))| {
            let (outputs, own) = outputs.damped(DAMPING);
            let own = own * input_traces[input];
            let factor = if own > 0.0 { trace / predictions as f64 / own } else { 0.0 };
            Factors { input, outputs, factor: factor as f32 }
        });
        Self { weights: weights.collect(), inputs }
    }

    /// The gradients of the penalty with respect to A and B of each target, in that order, for a LoRA of this
    /// scale.
    pub fn gradients(&self, matrices: &[Array2<f32>], scale: f32) -> Vec<Array2<f32>> {
        let pairs = self.weights.par_iter().zip(matrices.par_chunks_exact(2));
        pairs
            .flat_map_iter(|(weight, pair)| {
                let (a, b) = (pair[0].view(), pair[1].view());
                let p = self.inputs[weight.input].times(a.t());
                let q = weight.outputs.times(b);
                let rank = a.nrows();
                let [mut apa, mut bqb] = [(); 2].map(|()| Array2::zeros((rank, rank)));
                matmul_single(apa.view_mut(), false, a, p.view());
                matmul_single(bqb.view_mut(), false, b.t(), q.view());
                let factor = weight.factor * scale * scale;
                apa *= factor;
                bqb *= factor;
                let (mut da, mut db) = (Array2::zeros(a.dim()), Array2::zeros(b.dim()));
                matmul_single(da.view_mut(), false, bqb.view(), p.t());
                matmul_single(db.view_mut(), false, q.view(), apa.view());
                [da, db]
            })
            .collect()
    }

    /// The divergence that a LoRA of these A and B should cost by this F, nats a token.
    pub fn divergence(&self, matrices: &[Array2<f32>], scale: f32) -> f64 {
        // The form is quadratic in B.
        let gradients = self.gradients(matrices, scale);
        0.5 * matrices.iter().zip(&gradients).skip(1).step_by(2).map(|(b, db)| super::dot(b, db)).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::super::tests::{MEMORY, random, with_demo};
    use super::*;
    use crate::lora::{LoraMethod, LoraOptions, TrainedLora};

    const SCALE: f32 = 0.5;

    fn options() -> LoraOptions {
        let targets = "all".into();
        LoraOptions {
            method: LoraMethod::Lora,
            rank: 4,
            alpha: 2.0,
            rslora: false,
            targets,
            layers: None,
            seed: 1,
        }
    }

    #[test]
    fn the_gradients_are_those_of_the_divergence() {
        with_demo(|base, plain, anchor| {
            let mut model = plain.clone();
            model.attach_lora(&TrainedLora::new(base, options()).unwrap().targets, SCALE).unwrap();
            let fisher = WeightFisher::estimate(&mut model, anchor, 2, MEMORY, |_, _| ());
            let mut stream = ChaCha20Rng::seed_from_u64(3);
            let shapes: Vec<_> = model.trainable_mut().iter().map(|x| x.dim()).collect();
            let matrices: Vec<_> = shapes.iter().map(|&shape| random(shape, 0.3, &mut stream)).collect();
            let gradients = fisher.gradients(&matrices, SCALE);
            // Along a random direction, a step of a hundredth: the fourth-order form bends little.
            for slot in [0, 1, 6, 7, matrices.len() - 2, matrices.len() - 1] {
                let direction = random(shapes[slot], 0.003, &mut stream);
                let at = |sign: f32| {
                    let mut moved = matrices.clone();
                    moved[slot].scaled_add(sign, &direction);
                    fisher.divergence(&moved, SCALE)
                };
                let measured = 0.5 * (at(1.0) - at(-1.0));
                let predicted = super::super::dot(&gradients[slot], &direction);
                let size = f64::from(gradients[slot].iter().map(|x| x * x).sum::<f32>().sqrt())
                    * f64::from(direction.iter().map(|x| x * x).sum::<f32>().sqrt());
                assert!(
                    (measured - predicted).abs() < 2e-2 * size,
                    "{slot}: {measured} {predicted} of {size}"
                );
            }
        });
    }

    #[test]
    fn half_the_quadratic_form_is_about_the_divergence() {
        with_demo(|base, plain, anchor| {
            let mut model = plain.clone();
            model.attach_lora(&TrainedLora::new(base, options()).unwrap().targets, SCALE).unwrap();
            let fisher = WeightFisher::estimate(&mut model, anchor, 2, MEMORY, |_, _| ());
            let mut stream = ChaCha20Rng::seed_from_u64(3);
            for _ in 0..3 {
                let mut trained = model.trainable_mut();
                trained.iter_mut().skip(1).step_by(2).for_each(|b| {
                    let value = random(b.dim(), 0.02, &mut stream);
                    b.assign(&value);
                });
                let matrices: Vec<_> = trained.iter().map(|x| (*x).clone()).collect();
                let rows: Vec<_> =
                    anchor.batches(1024).iter().flat_map(|batch| model.compare(plain, batch)).collect();
                let measured = rows.iter().map(|row| row.kl).sum::<f64>() / rows.len() as f64;
                let ratio = fisher.divergence(&matrices, SCALE) / measured;
                // K-FAC takes inputs and gradients for independent, so it is less exact than F of a small U.
                assert!((0.4..2.5).contains(&ratio), "predicted / measured {measured} = {ratio}");
            }
        });
    }
}
