//! Gradients against finite differences in f64, and changes that must not affect the result.

mod divergence;
mod families;
mod lora;
mod probe;
mod write;

use std::path::Path;

use curmerge_formats::adapter::AdapterTarget;
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{GgufLayout, NewTensor, Value};
use ndarray::Array2;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{Batch, Generator, Transformer};
use crate::base::Base;
use crate::kernels::Precision;

const D: u64 = 24;
const HEADS: u64 = 4;
const KV: u64 = 2;
const HEAD: u64 = 6;
const FF: u64 = 40;
const VOCAB: u64 = 50;
const LAYERS: usize = 2;

pub(super) fn uniform(stream: &mut ChaCha20Rng) -> f32 {
    (stream.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// A random llama in F32 with an untied head and heads wider than d_model / heads.
fn write_model(path: &Path) {
    let number = |key: &str, value: u64| (format!("llama.{key}"), Value::U32(value as u32));
    let metadata = vec![
        ("general.architecture".to_string(), Value::String("llama".into())),
        number("block_count", LAYERS as u64),
        number("embedding_length", D),
        number("feed_forward_length", FF),
        number("attention.head_count", HEADS),
        number("attention.head_count_kv", KV),
        number("attention.key_length", HEAD),
        number("context_length", 64),
        ("llama.attention.layer_norm_rms_epsilon".to_string(), Value::F32(1e-5)),
    ];
    let mut tensors = Vec::new();
    let mut add = |name: String, dims: &[u64]| {
        tensors.push(NewTensor { name: format!("{name}.weight"), dtype: DType::F32, dims: dims.to_vec() });
    };
    add("token_embd".into(), &[D, VOCAB]);
    add("output_norm".into(), &[D]);
    add("output".into(), &[D, VOCAB]);
    for layer in 0..LAYERS {
        let (q, kv) = (HEADS * HEAD, KV * HEAD);
        for (part, dims) in [
            ("attn_norm", &[D][..]),
            ("attn_q", &[D, q]),
            ("attn_k", &[D, kv]),
            ("attn_v", &[D, kv]),
            ("attn_output", &[q, D]),
            ("ffn_norm", &[D]),
            ("ffn_gate", &[D, FF]),
            ("ffn_up", &[D, FF]),
            ("ffn_down", &[FF, D]),
        ] {
            add(format!("blk.{layer}.{part}"), dims);
        }
    }
    let layout = GgufLayout::new(3, 32, &metadata, tensors).unwrap();
    let mut file = layout.header().to_vec();
    let mut stream = ChaCha20Rng::seed_from_u64(1);
    for tensor in layout.tensors() {
        file.resize(tensor.offset as usize, 0);
        let size = if tensor.dims.len() == 1 { 1.0 } else { 0.4 };
        for _ in 0..tensor.bytes / 4 {
            file.extend((size * uniform(&mut stream)).to_le_bytes());
        }
    }
    file.resize(layout.file_bytes() as usize, 0);
    std::fs::write(path, file).unwrap();
}

fn with_model(work: impl FnOnce(&Base)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    write_model(&path);
    work(&Base::open(&path).unwrap());
}

/// Random terms for every matrix of both blocks, or for those whose name contains `only`.
fn targets(base: &Base, only: &str) -> Vec<AdapterTarget> {
    let mut stream = ChaCha20Rng::seed_from_u64(2);
    base.targets("all", None)
        .unwrap()
        .into_iter()
        .filter(|name| name.contains(only))
        .map(|name| {
            let shape = &base.tensors()[&name].shape;
            AdapterTarget {
                shape: [shape[0], shape[1]],
                cols: vec![1, 4, 5],
                rows: vec![0, 3, 7, 11],
                u: (0..12).map(|_| 0.3 * uniform(&mut stream)).collect(),
                stored_dtype: "F32".into(),
                stored_sha256: String::new(),
                values_sha256: String::new(),
                sketch: None,
                fisher: vec![],
                name,
            }
        })
        .collect()
}

/// Three sequences of different lengths; the loss falls on some tokens of two of them.
fn batch() -> Batch {
    let mut stream = ChaCha20Rng::seed_from_u64(3);
    let mut batch = Batch::default();
    for (length, from) in [(9usize, 4usize), (2, 1), (70, 60)] {
        let tokens: Vec<u32> = (0..length).map(|_| stream.next_u32() % VOCAB as u32).collect();
        batch.push(&tokens, &(0..length).map(|i| i >= from).collect::<Vec<_>>());
    }
    batch
}

fn loss(model: &Transformer<'_, f64>, batch: &Batch) -> f64 {
    -0.1 * model.log_probs(batch).iter().sum::<f64>()
}

/// The largest difference, relative to the largest number.
fn distance(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    let size = b.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    (a - b).iter().fold(0.0f64, |m, x| m.max(x.abs())) / size
}

/// The gradient of `value` with respect to the trained matrix in this slot, by central differences.
fn numeric_gradient<'b>(
    model: &mut Transformer<'b, f64>,
    slot: usize,
    value: impl Fn(&Transformer<'b, f64>) -> f64,
) -> Array2<f64> {
    const STEP: f64 = 1e-5;
    let mut numeric = Array2::zeros(model.trainable_mut()[slot].dim());
    for at in ndarray::indices(numeric.dim()) {
        let mut shifted = |by: f64| {
            model.trainable_mut()[slot][at] += by;
            let value = value(model);
            model.trainable_mut()[slot][at] -= by;
            value
        };
        numeric[at] = (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP);
    }
    numeric
}

fn check_gradients(base: &Base, only: &str) {
    let mut model = Transformer::<f64>::new(base).unwrap();
    model.attach(&targets(base, only), 0.7).unwrap();
    check_gradients_of(model, only);
}

/// Every gradient of the terms that are attached.
fn check_gradients_of(mut model: Transformer<'_, f64>, only: &str) {
    let batch = batch();
    let (log_probs, gradients) = model.gradients(&batch, 0.1);
    assert_eq!(log_probs, model.log_probs(&batch));
    for (slot, gradient) in gradients.iter().enumerate() {
        let numeric = numeric_gradient(&mut model, slot, |model| loss(model, &batch));
        let error = distance(gradient, &numeric);
        assert!(error < 1e-7, "slot {slot} of '{only}': relative error {error}");
    }
}

#[test]
fn gradients_equal_finite_differences() {
    with_model(|base| check_gradients(base, ""));
}

#[test]
fn a_backward_pass_that_ends_early_gives_the_same_gradients() {
    // The pass ends at a different point when the lowest block has terms in its feed-forward network, in o,
    // or in q alone.
    for only in ["blk.1.ffn_down", "blk.1.attn_output", "blk.0.attn_q", "blk.0.ffn", "blk.1"] {
        with_model(|base| check_gradients(base, only));
    }
}

#[test]
fn an_untrained_term_changes_nothing_and_f32_is_near_f64() {
    with_model(|base| {
        let batch = batch();
        let plain = Transformer::<f32>::new(base).unwrap();
        let mut zero = plain.clone();
        let mut targets = targets(base, "");
        targets.iter_mut().for_each(|t| t.u.fill(0.0));
        zero.attach(&targets, 1.0).unwrap();
        assert_eq!(plain.log_probs(&batch), zero.log_probs(&batch));
        let exact = Transformer::<f64>::new(base).unwrap().log_probs(&batch);
        for (a, b) in plain.log_probs(&batch).iter().zip(exact) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    });
}

#[test]
fn a_term_equals_the_merged_matrix() {
    // The gather identity against C U R formed by its definition, on every matrix at once.
    with_model(|base| {
        let mut adapted = Transformer::<f64>::new(base).unwrap();
        let targets = targets(base, "");
        adapted.attach(&targets, 0.7).unwrap();
        let x = Array2::from_shape_fn((5, D as usize), |(i, j)| ((i * 7 + j * 3) % 11) as f64 - 5.0);
        let q = adapted.blocks[1].mixer().unwrap().inputs()[0];
        let target = targets.iter().find(|t| t.name == "blk.1.attn_q").unwrap();
        let w = base.weight("blk.1.attn_q").unwrap();
        let dense = |rows: usize, cols: usize, values: Vec<f32>| {
            Array2::from_shape_vec((rows, cols), values.into_iter().map(f64::from).collect()).unwrap()
        };
        let c = dense(w.rows(), 3, w.gather_columns(&target.cols));
        let r = dense(4, w.cols(), w.gather_rows(&target.rows));
        let u = dense(3, 4, target.u.clone());
        let merged = dense(w.rows(), w.cols(), w.vector()) + c.dot(&u).dot(&r) * f64::from(0.7f32);
        assert!(distance(&q.forward(&q.input(x.view())).0, &x.dot(&merged.t())) < 1e-12);
    });
}

#[test]
fn sequences_of_a_batch_do_not_see_each_other() {
    with_model(|base| {
        let model = Transformer::<f64>::new(base).unwrap();
        let together = model.log_probs(&batch());
        let mut alone = Vec::new();
        let whole = batch();
        for sequence in whole.sequences() {
            let mut batch = Batch::default();
            batch.push_sequence(&whole.tokens()[sequence.clone()]);
            for (row, token) in whole.predictions().iter().filter(|(row, _)| sequence.contains(row)) {
                batch.predict(row - sequence.start, *token);
            }
            alone.extend(model.log_probs(&batch));
        }
        for (a, b) in together.iter().zip(&alone) {
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
    });
}

#[test]
fn token_by_token_gives_the_logits_of_one_pass() {
    with_model(|base| {
        let mut model = Transformer::<f64>::new(base).unwrap();
        model.attach(&targets(base, ""), 0.5).unwrap();
        let tokens = [3, 1, 4, 1, 5, 9, 2, 6];
        let mut batch = Batch::default();
        let first = batch.push_sequence(&tokens);
        batch.predict(first + tokens.len() - 1, 0);
        let whole = model.logits(&batch).row(0).to_owned();
        let mut generator = Generator::new(&model);
        generator.read(&tokens[..3]).unwrap();
        let mut last = generator.read(&tokens[3..4]).unwrap();
        for token in &tokens[4..] {
            last = generator.read(&[*token]).unwrap();
        }
        assert_eq!(generator.len(), tokens.len());
        for (a, b) in last.iter().zip(&whole) {
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
    });
}

#[test]
fn activations_and_weights_that_are_computed_again_change_no_byte() {
    with_model(|base| {
        for precision in [Precision::F32, Precision::Bf16] {
            let mut model = Transformer::<f32>::new(base).unwrap().with_precision(precision);
            model.attach(&targets(base, ""), 1.0).unwrap();
            let (batch, tokens) = (batch(), batch().tokens().len());
            let (sequences, factors) = model.sequence_layout(&batch);
            let mut pass = model.pass(&sequences, &factors);
            let x = model.embed(batch.tokens(), &batch.positions());
            let saved = model.blocks[0].forward_saving(x, &mut pass, None).1;
            assert_eq!(model.activation_bytes_of(0) * tokens as u64, saved.bytes());
            let all = model.activation_bytes_per_token() * tokens as u64;
            assert_eq!(all, LAYERS as u64 * saved.bytes());

            let right = model.gradients(&batch, 0.1);
            for (bytes, first_saved) in [(0, LAYERS), (all - 1, 1), (all, 0), (u64::MAX, 0)] {
                model.limit_activations(bytes);
                assert_eq!(model.first_saved(tokens), first_saved);
                assert_eq!(model.gradients(&batch, 0.1), right);
            }
            for bytes in [40_000, u64::MAX] {
                model.cache_packed_weights(bytes);
                assert_eq!(model.gradients(&batch, 0.1), right);
                assert_eq!(model.gradients(&batch, 0.1), right);
            }
        }
    });
}

#[test]
fn a_shared_beginning_gives_what_each_sequence_gives_alone() {
    with_model(|base| {
        let mut stream = ChaCha20Rng::seed_from_u64(4);
        let beginning: Vec<u32> = (0..69).map(|_| stream.next_u32() % VOCAB as u32).collect();
        let sequences: Vec<Vec<u32>> = [vec![1, 2, 3], vec![2; 70], vec![4, 5]]
            .into_iter()
            .map(|own| [&beginning[..], &own].concat())
            .collect();
        let predicted = |tokens: &Vec<u32>| (0..tokens.len()).map(|i| i > 66).collect::<Vec<_>>();
        let flags: Vec<Vec<bool>> = sequences.iter().map(predicted).collect();
        let all: Vec<(&[u32], &[bool])> =
            sequences.iter().zip(&flags).map(|(tokens, flags)| (&tokens[..], &flags[..])).collect();
        let (mut apart, mut together) = (Batch::default(), Batch::default());
        all.iter().for_each(|(tokens, flags)| apart.push(tokens, flags));
        together.push_with_shared_prefix(&all);
        assert_eq!(together.tokens().len(), 69 + 2 + 69 + 1);
        for only in ["", "blk.1.attn_v"] {
            let mut model = Transformer::<f64>::new(base).unwrap();
            model.attach(&targets(base, only), 0.7).unwrap();
            let (right, found) = (model.gradients(&apart, 0.1), model.gradients(&together, 0.1));
            for (a, b) in right.0.iter().zip(&found.0) {
                assert!((a - b).abs() < 1e-12, "{a} {b}");
            }
            for (a, b) in right.1.iter().zip(&found.1) {
                assert!(distance(b, a) < 1e-12);
            }
        }
    });
}

#[test]
fn bytes_do_not_depend_on_the_thread_count() {
    with_model(|base| {
        let mut model = Transformer::<f32>::new(base).unwrap();
        model.attach(&targets(base, ""), 1.0).unwrap();
        for precision in [Precision::F32, Precision::Bf16] {
            model = model.with_precision(precision);
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| model.gradients(&batch(), 0.1))
            };
            assert_eq!(run(1), run(2));
            assert_eq!(run(1), run(4));
        }
    });
}

#[test]
fn bfloat16_products_give_loss_and_gradients_near_those_of_f32() {
    // A bfloat16 has 8 significant bits, so the relative error of a product is up to 2^-8. Sums of products
    // of mixed signs are off by less than a tenth of their size, even after two blocks.
    with_model(|base| {
        let run = |precision| {
            let mut model = Transformer::<f32>::new(base).unwrap().with_precision(precision);
            model.attach(&targets(base, ""), 0.7).unwrap();
            model.gradients(&batch(), 0.1)
        };
        let (exact, rounded) = (run(Precision::F32), run(Precision::Bf16));
        for (a, b) in exact.0.iter().zip(&rounded.0) {
            assert!((a - b).abs() < 0.05, "log-probability {b} for {a}");
        }
        for (slot, (a, b)) in exact.1.iter().zip(&rounded.1).enumerate() {
            let error = distance(&b.mapv(f64::from), &a.mapv(f64::from));
            assert!(error < 0.1, "slot {slot}: relative error {error}");
        }
    });
}
