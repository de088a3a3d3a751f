//! The terms of LoRA and LoRA-XS: gradients against finite differences in f64, and changes that must not
//! affect the result.

use ndarray::{Array2, s};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::families::{self, each_family};
use super::{batch, check_gradients_of, distance, uniform, with_model};
use crate::base::Base;
use crate::kernels::Precision;
use crate::lora::{LoraMethod, LoraOptions, LoraTarget, TrainedLora};
use crate::model::Transformer;

const METHODS: [LoraMethod; 2] = [LoraMethod::Lora, LoraMethod::LoraXs];

/// Random matrices of rank 3 for every matrix of the last blocks whose name contains `only`.
fn targets(base: &Base, only: &str, method: LoraMethod) -> Vec<LoraTarget> {
    let mut stream = ChaCha20Rng::seed_from_u64(2);
    let mut random = |shape| Array2::from_shape_simple_fn(shape, || 0.3 * uniform(&mut stream));
    let mut names = families::of_last_blocks(base);
    names.retain(|name| name.contains(only));
    let target = |name: String| {
        let weight = base.weight(&name).unwrap();
        let (a, b) = (random((3, weight.cols())), random((weight.rows(), 3)));
        let u = (method == LoraMethod::LoraXs).then(|| random((3, 3)));
        LoraTarget { name, a, b, u }
    };
    names.into_iter().map(target).collect()
}

#[test]
fn gradients_equal_finite_differences() {
    // The pass ends at different points, and different matrices read their inputs.
    for only in ["", "blk.1.ffn_down", "blk.1.attn_output", "blk.0.attn_q", "blk.0.ffn", "blk.1.attn_v"] {
        with_model(|base| {
            for method in METHODS {
                let mut model = Transformer::<f64>::new(base).unwrap();
                model.attach_lora(&targets(base, only, method), 0.7).unwrap();
                check_gradients_of(model, only);
            }
        });
    }
}

#[test]
fn gradients_of_every_architecture_equal_finite_differences() {
    each_family(|name, base| {
        for method in METHODS {
            let mut model = Transformer::<f64>::new(base).unwrap();
            model.attach_lora(&targets(base, "", method), 0.7).unwrap();
            families::check_some_gradients(name, &mut model, &families::batch(base));
        }
    });
}

#[test]
fn a_term_equals_the_merged_matrix() {
    with_model(|base| {
        for method in METHODS {
            let mut adapted = Transformer::<f64>::new(base).unwrap();
            let targets = targets(base, "", method);
            adapted.attach_lora(&targets, 0.7).unwrap();
            let w = base.weight("blk.1.attn_q").unwrap();
            let x = Array2::from_shape_fn((5, w.cols()), |(i, j)| ((i * 7 + j * 3) % 11) as f64 - 5.0);
            let factors = targets.iter().find(|t| t.name == "blk.1.attn_q").unwrap().factors(0.7);
            let mut merged = Array2::zeros((w.rows(), w.cols()));
            for (i, mut row) in merged.rows_mut().into_iter().enumerate() {
                let mut change = vec![0.0; w.cols()];
                factors.add_to_row(i, &mut change);
                let w = &w.vector()[i * w.cols()..];
                row.iter_mut().zip(w).zip(change).for_each(|((x, &w), d)| *x = f64::from(w) + f64::from(d));
            }
            let q = adapted.blocks[1].mixer().unwrap().inputs()[0];
            let error = distance(&q.forward(&q.input(x.view())).0, &x.dot(&merged.t()));
            assert!(error < 1e-6, "{method:?}: {error}");
        }
    });
}

#[test]
fn recomputation_and_threads_change_no_byte() {
    each_family(|name, base| {
        for (precision, method) in
            [(Precision::F32, METHODS[0]), (Precision::Bf16, METHODS[0]), (Precision::F32, METHODS[1])]
        {
            let mut model = Transformer::<f32>::new(base).unwrap().with_precision(precision);
            model.attach_lora(&targets(base, "", method), 1.0).unwrap();
            let batch = families::batch(base);
            let tokens = batch.tokens().len() as u64;
            let (sequences, factors) = model.sequence_layout(&batch);
            let mut pass = model.pass(&sequences, &factors);
            let x = model.embed(batch.tokens(), &batch.positions());
            let saved = model.blocks[0].forward_saving(x, &mut pass, None).1;
            let bytes = model.activation_bytes_of(0) * tokens;
            assert_eq!(bytes, saved.bytes(), "{name}");
            let right = model.gradients(&batch, 0.1);
            let all = model.activation_bytes_per_token() * tokens;
            for bytes in [0, all - 1, all] {
                model.limit_activations(bytes);
                assert_eq!(model.gradients(&batch, 0.1), right, "{name}");
            }
            for threads in [1, 2, 4] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| model.gradients(&batch, 0.1)), right, "{name}");
            }
        }
    });
}

#[test]
fn a_new_lora_changes_nothing_and_depends_on_name_and_seed_alone() {
    with_model(|base| {
        let plain = Transformer::<f32>::new(base).unwrap().log_probs(&batch());
        for method in METHODS {
            let new = |targets: &str, seed| {
                let options = LoraOptions {
                    method,
                    rank: 4,
                    alpha: 8.0,
                    rslora: false,
                    targets: targets.into(),
                    layers: None,
                    seed,
                };
                TrainedLora::new(base, options).unwrap()
            };
            let (all, some, other) = (new("all", 1), new("q", 1), new("all", 2));
            assert!(some.targets.iter().all(|target| all.targets.contains(target)));
            // LoRA-XS draws nothing.
            assert_eq!(all.targets == other.targets, method == LoraMethod::LoraXs);
            let mut model = Transformer::<f32>::new(base).unwrap();
            model.attach_lora(&all.targets, all.options.scale()).unwrap();
            assert_eq!(model.log_probs(&batch()), plain);
            let outer = model.outer_slots();
            let trained = model.trainable_mut();
            assert!(outer.iter().all(|&slot| trained[slot].iter().all(|&x| x == 0.0)));
            assert_eq!(trained.iter().map(|x| x.len()).sum::<usize>(), all.trained_numbers());
        }
    });
}

#[test]
fn a_is_uniform_within_the_inverse_root_of_the_inputs() {
    with_model(|base| {
        let options = LoraOptions {
            method: LoraMethod::Lora,
            rank: 16,
            alpha: 8.0,
            rslora: true,
            targets: "down".into(),
            layers: None,
            seed: 3,
        };
        assert_eq!(options.scale(), 2.0);
        let lora = TrainedLora::new(base, options).unwrap();
        let a = &lora.targets[0].a;
        let bound = 1.0 / (a.ncols() as f32).sqrt();
        assert!(a.iter().all(|x| x.abs() <= bound));
        // The variance of a uniform distribution is bound^2 / 3; 640 numbers estimate it to within a tenth.
        let variance = a.iter().map(|x| x * x).sum::<f32>() / a.len() as f32;
        assert!((3.0 * variance / (bound * bound) - 1.0).abs() < 0.1, "{variance}");
        assert!(a.slice(s![0, ..]) != a.slice(s![1, ..]));
    });
}
