//! The Fisher information of the matrices U at U = 0, and the penalty made of it (elastic weight
//! consolidation, Kirkpatrick et al. 2017, arXiv 1612.00796).
//!
//! Near U = 0, the divergence of the adapted model from its base is quadratic in U:
//!
//! ```text
//! KL(base || adapted) a token ~ 1/2 sum over matrices of u^T F u       u = vec(U), row-major
//! F = (1/T) sum over texts s of vec(G_s) vec(G_s)^T                    G_s = sum over tokens of h z^T, [c, r]
//! ```
//!
//! G_s is the gradient of the log-probability of a text whose labels are sampled from the model itself
//! (so F is the true Fisher matrix, not the empirical one), and T the number of predictions. A few
//! hundred texts sample a matrix of r^2 rows poorly, so F is this to a small part, up to a quarter with
//! 375 texts, and otherwise what `smooth` makes of the same texts, which is less exact and less noisy.
//!
//! The penalty adds `lambda F u` to the gradient of U after it is clipped, which costs no pass through
//! the model. A LoRA has no such small matrix: [`WeightFisher`] is for it.

mod estimate;
mod kept;
mod smooth;
mod stored;
mod symmetric;
mod weights;

pub use kept::{EarlierTasks, of_task};
pub use weights::WeightFisher;

use half::bf16;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::kernels::{bf16 as rounding, elementwise, reduce};
use smooth::Smooth;

/// The version of the estimate, for those who keep results: another one gives other numbers.
pub const ESTIMATE: u32 = 2;
/// Up to this many numbers in U, F is kept as a matrix; above, as its samples.
const MATRIX_LIMIT: usize = 256;

/// The Fisher information of every trained matrix, as one block each.
#[derive(Clone, Debug)]
pub struct Fisher {
    blocks: Vec<Block>,
}

/// F of one matrix U `[c, r]`.
#[derive(Clone, Debug)]
enum Block {
    /// F itself, `[c r, c r]`.
    Matrix(Array2<f32>),
    /// F as the sum of `weight g g^T` over the rows g of `samples` `[texts, c r]`, and `smooth`.
    Samples { samples: Array2<bf16>, weight: f32, smooth: Smooth },
}

impl Fisher {
    /// F u of each matrix, shaped as the matrices: `[c, r]`.
    pub fn times(&self, matrices: &[Array2<f32>]) -> Vec<Array2<f32>> {
        self.blocks.par_iter().zip(matrices).map(|(block, u)| block.times(u.view())).collect()
    }

    /// The divergence that these matrices should cost by this F: 1/2 sum of u^T F u, nats a token.
    pub fn divergence(&self, matrices: &[Array2<f32>]) -> f64 {
        let products = self.times(matrices);
        0.5 * products.iter().zip(matrices).map(|(fu, u)| dot(fu, u)).sum::<f64>()
    }
}

fn dot(a: &Array2<f32>, b: &Array2<f32>) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

impl Block {
    fn times(&self, u: ArrayView2<f32>) -> Array2<f32> {
        let flat: Vec<f32> = u.iter().copied().collect();
        match self {
            Block::Matrix(f) => {
                let mut product = Array2::zeros(u.dim());
                product.iter_mut().zip(f.rows()).for_each(|(p, row)| {
                    *p = reduce::dot(row.as_slice().expect(CONTIGUOUS), &flat);
                });
                product
            }
            Block::Samples { samples, weight, smooth } => {
                let mut product = smooth.times(u);
                let mut wide = vec![0.0f32; flat.len()];
                let sum = product.as_slice_mut().expect(CONTIGUOUS);
                for row in samples.rows() {
                    widen(row.as_slice().expect(CONTIGUOUS), &mut wide);
                    let along = weight * reduce::dot(&wide, &flat);
                    elementwise::add_scaled(sum, along, &wide);
                }
                product
            }
        }
    }
}

const CONTIGUOUS: &str = "fresh arrays are contiguous";

/// Widens bfloat16, exactly.
fn widen(rounded: &[bf16], wide: &mut [f32]) {
    use half::slice::HalfFloatSliceExt;
    rounding::from_bf16(rounded.reinterpret_cast(), wide);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::base::Base;
    use crate::cur::{SelectionOptions, new_adapter};
    use crate::kernels::random::uniform;
    use crate::model::Transformer;
    use crate::train::anchor::{Anchor, AnchorOptions};

    pub(super) const MEMORY: u64 = 100_000_000;

    pub(super) fn random(shape: (usize, usize), size: f32, stream: &mut ChaCha20Rng) -> Array2<f32> {
        Array2::from_shape_simple_fn(shape, || size * (2.0 * uniform(stream) - 1.0) as f32)
    }

    #[test]
    fn a_matrix_and_its_samples_give_the_same_products() {
        let mut stream = ChaCha20Rng::seed_from_u64(1);
        let (c, r, texts) = (3, 5, 7);
        let samples = random((texts, c * r), 1.0, &mut stream).mapv(bf16::from_f32);
        let factors = [(c, c), (r, r)].map(|shape| {
            let x = random(shape, 1.0, &mut stream);
            x.dot(&x.t())
        });
        let smooth = Smooth::new(factors, &samples, 0.3);
        // The trace of both parts is the same.
        let trace = 0.3 * samples.iter().map(|g| g.to_f32() * g.to_f32()).sum::<f32>();
        assert!((smooth.along.sum() / trace - 1.0).abs() < 1e-5);
        let block = Block::Samples { samples, weight: 0.3, smooth };
        let u = random((c, r), 1.0, &mut stream);
        let [Block::Matrix(f), samples] = [block.clone().into_matrix_if_small(), block] else {
            panic!("a small F is a matrix")
        };
        assert!((&f - &f.t()).iter().all(|x| x.abs() < 1e-5), "F is symmetric");
        let [a, b] = [Block::Matrix(f), samples].map(|block| block.times(u.view()));
        assert!((&a - &b).iter().all(|x| x.abs() < 1e-5), "{a} {b}");
    }

    /// The demo model, and texts that it wrote.
    pub(super) fn with_demo(work: impl FnOnce(&Base, &Transformer<'_, f32>, &Anchor)) {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo/model.gguf");
        let base = Base::open(base).unwrap();
        let mut model = Transformer::new(&base).unwrap();
        let options = AnchorOptions { texts: 96, length: 32, seed: 1 };
        let anchor =
            Anchor::self_written(&mut model, &base.tokenizer().unwrap(), None, &options, MEMORY, |_, _| ());
        work(&base, &model, &anchor.unwrap());
    }

    #[test]
    fn half_the_quadratic_form_is_the_divergence() {
        with_demo(|base, plain, anchor| {
            let mut model = plain.clone();
            let selection = SelectionOptions { rank: 4, targets: "all".into(), ..Default::default() };
            model.attach(&new_adapter(base, &selection).unwrap().targets, 1.0).unwrap();
            let shapes: Vec<_> = model.trainable_mut().iter().map(|u| u.dim()).collect();
            let fisher = Fisher::estimate(&mut model, anchor, 2, MEMORY, |_, _| ());
            let mut stream = ChaCha20Rng::seed_from_u64(3);
            for _ in 0..3 {
                let matrices: Vec<_> = shapes.iter().map(|&shape| random(shape, 0.02, &mut stream)).collect();
                model.trainable_mut().into_iter().zip(&matrices).for_each(|(u, value)| u.assign(value));
                let rows: Vec<_> =
                    anchor.batches(1024).iter().flat_map(|batch| model.compare(plain, batch)).collect();
                let measured = rows.iter().map(|row| row.kl).sum::<f64>() / rows.len() as f64;
                let ratio = fisher.divergence(&matrices) / measured;
                assert!((0.7..1.4).contains(&ratio), "predicted / measured {measured} = {ratio}");
            }
        });
    }
}
