//! The Fisher information of a task, kept in an adapter: it protects the task when the adapter is trained
//! further on another (elastic weight consolidation, Kirkpatrick et al. 2017, arXiv 1612.00796; as there are
//! several, all around the latest weights, as Huszár 2018, arXiv 1712.03847, has it).

use curmerge_formats::{AdapterTarget, TargetFisher};
use ndarray::Array2;

use super::smooth::Smooth;
use super::{Block, Fisher};
use crate::model::Transformer;
use crate::train::anchor::Anchor;
use crate::train::data::Dataset;

/// The most examples that a task's Fisher information is measured on.
const EXAMPLES: usize = 128;

/// Tasks that an adapter was trained on before.
#[derive(Clone, Debug)]
pub struct EarlierTasks {
    tasks: Vec<Fisher>,
    /// The matrices U that training starts from.
    start: Vec<Array2<f32>>,
}

impl EarlierTasks {
    /// Those that these targets keep, if there are any. Training starts from the targets' U.
    pub fn of(targets: &[AdapterTarget]) -> Option<Self> {
        let tasks = targets.first().map_or(0, |target| target.fisher.len());
        let start = targets.iter().map(|target| {
            let shape = (target.cols.len(), target.rows.len());
            Array2::from_shape_vec(shape, target.u.clone()).expect("a read adapter's U fits its indices")
        });
        let kept = |task| Fisher { blocks: targets.iter().map(|target| block(target, task)).collect() };
        (tasks > 0).then(|| Self { tasks: (0..tasks).map(kept).collect(), start: start.collect() })
    }

    /// The sum of F (u - start) over the tasks, for each matrix.
    pub fn times(&self, matrices: &[Array2<f32>]) -> Vec<Array2<f32>> {
        let changes: Vec<_> = matrices.iter().zip(&self.start).map(|(u, start)| u - start).collect();
        let mut sum: Vec<_> = matrices.iter().map(|u| Array2::zeros(u.dim())).collect();
        for task in &self.tasks {
            sum.iter_mut().zip(task.times(&changes)).for_each(|(sum, one)| *sum += &one);
        }
        sum
    }
}

/// The Fisher information at the present U on answers to the first examples that training sees. For the
/// other arguments see [`Fisher::estimate`].
pub fn of_task(model: &mut Transformer<'_, f32>, data: &Dataset, seed: u64, memory: u64) -> Fisher {
    let order = data.order(seed, 0);
    let texts = order.into_iter().take(EXAMPLES).map(|i| data.examples[i].clone()).collect();
    Fisher::estimate(model, &Anchor { texts }, seed, memory, |_, _| ())
}

impl Fisher {
    /// What an adapter keeps of each matrix.
    pub fn into_targets(self) -> impl Iterator<Item = TargetFisher> {
        self.blocks.into_iter().map(|block| match block {
            Block::Matrix(f) => TargetFisher::Matrix(values(f)),
            Block::Samples { samples, weight, smooth: Smooth { left, right, along } } => {
                TargetFisher::Sampled {
                    samples: values(samples),
                    weight,
                    left: values(left),
                    right: values(right),
                    along: values(along),
                }
            }
        })
    }
}

fn values<T>(array: Array2<T>) -> Vec<T> {
    array.into_raw_vec_and_offset().0
}

/// What a target keeps of a task.
fn block(target: &AdapterTarget, task: usize) -> Block {
    fn array<T: Clone>(rows: usize, columns: usize, values: &[T]) -> Array2<T> {
        Array2::from_shape_vec((rows, columns), values.to_vec()).expect("a read adapter's parts fit its U")
    }
    let (c, r) = (target.cols.len(), target.rows.len());
    match &target.fisher[task] {
        TargetFisher::Matrix(matrix) => Block::Matrix(array(c * r, c * r, matrix)),
        TargetFisher::Sampled { samples, weight, left, right, along } => Block::Samples {
            samples: array(samples.len() / (c * r), c * r, samples),
            weight: *weight,
            smooth: Smooth { left: array(c, c, left), right: array(r, r, right), along: array(c, r, along) },
        },
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::EarlierTasks;
    use crate::cur::{SelectionOptions, new_adapter};
    use crate::train::fisher::Fisher;
    use crate::train::fisher::tests::{MEMORY, random, with_demo};

    #[test]
    fn what_an_adapter_keeps_is_the_same_fisher_information_around_its_matrices() {
        with_demo(|base, plain, anchor| {
            for rank in [4, 20] {
                let mut model = plain.clone();
                let selection = SelectionOptions { rank, targets: "all".into(), ..Default::default() };
                let mut adapter = new_adapter(base, &selection).unwrap();
                model.attach(&adapter.targets, 1.0).unwrap();
                let mut stream = ChaCha20Rng::seed_from_u64(3);
                for u in model.trainable_mut() {
                    *u = random(u.dim(), 0.02, &mut stream);
                }
                let fisher = Fisher::estimate(&mut model, anchor, 2, MEMORY, |_, _| ());
                model.store(&mut adapter.targets);
                assert!(EarlierTasks::of(&adapter.targets).is_none());
                for _ in 0..2 {
                    let targets = adapter.targets.iter_mut().zip(fisher.clone().into_targets());
                    targets.for_each(|(target, kept)| target.fisher.push(kept));
                }
                let earlier = EarlierTasks::of(&adapter.targets).unwrap();
                assert_eq!(earlier.tasks.len(), 2);
                let start: Vec<Array2<f32>> = model.trainable_mut().into_iter().map(|u| u.clone()).collect();
                assert!(earlier.times(&start).iter().flatten().all(|&x| x == 0.0));
                let changed: Vec<_> = start.iter().map(|u| u + 0.5).collect();
                let by = start.iter().map(|u| Array2::from_elem(u.dim(), 0.5)).collect::<Vec<_>>();
                for (found, right) in earlier.times(&changed).iter().zip(fisher.times(&by)) {
                    assert!((found - &(right * 2.0)).iter().all(|x| x.abs() < 1e-3), "{found}");
                }
            }
        });
    }
}
