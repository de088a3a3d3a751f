//! Properties of every architecture: gradients against finite differences in f64, and changes that must not
//! affect a result. The models are those of fixtures/arch, which tests/main/model/architectures.rs compares
//! with other programs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use curmerge_formats::adapter::AdapterTarget;
use ndarray::Array2;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{Batch, Generator, Transformer, distance, loss, uniform};
use crate::arch;
use crate::base::Base;
use crate::kernels::{Precision, RowProducts};
use crate::model::Sequence;

pub(super) fn each_family(work: impl Fn(&str, &Base)) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/arch");
    let mut families: Vec<PathBuf> =
        std::fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()).collect();
    families.retain(|family| family.join("goldens.json").exists());
    families.sort();
    let mut classes = BTreeSet::new();
    for family in families {
        for container in ["model.gguf", "hf"] {
            let base = Base::open(family.join(container)).unwrap();
            let name = family.file_name().unwrap().display();
            work(&format!("{name}/{container}"), &base);
            classes.insert(base.architecture().hugging_face.class);
        }
    }
    let known: BTreeSet<&str> = arch::ALL.iter().map(|known| known.hugging_face.class).collect();
    assert_eq!(classes, known, "every architecture has a fixture");
}

/// The matrices of the last eight blocks that may have a term.
pub(super) fn of_last_blocks(base: &Base) -> Vec<String> {
    let last = (0..base.config().layers).rev().take(8);
    let last: Vec<String> = last.map(|layer| format!("blk.{layer}.")).collect();
    let mut names = base.adaptable().unwrap();
    names.retain(|name| last.iter().any(|block| name.starts_with(block)));
    names
}

/// Random terms for the matrices of the last blocks.
fn targets(base: &Base) -> Vec<AdapterTarget> {
    let mut stream = ChaCha20Rng::seed_from_u64(2);
    let target = |name: String| {
        let weight = base.weight(&name).unwrap();
        // The gates of linear attention have a row a head.
        let rows: Vec<u32> =
            [0, 3, 7, 11].into_iter().filter(|&row| (row as usize) < weight.rows()).collect();
        AdapterTarget {
            shape: [weight.rows() as u64, weight.cols() as u64],
            cols: vec![1, 4, 5],
            u: (0..3 * rows.len()).map(|_| 0.3 * uniform(&mut stream)).collect(),
            rows,
            stored_dtype: weight.dtype().name().into(),
            stored_sha256: String::new(),
            values_sha256: String::new(),
            sketch: None,
            fisher: vec![],
            name,
        }
    };
    of_last_blocks(base).into_iter().map(target).collect()
}

/// Two sequences with a shared prefix and one alone, all longer than a window.
fn sequences(base: &Base) -> Vec<Vec<u32>> {
    let mut stream = ChaCha20Rng::seed_from_u64(3);
    let vocab = base.config().vocab as u32;
    let mut tokens = |count: usize| (0..count).map(|_| stream.next_u32() % vocab).collect::<Vec<_>>();
    let beginning = tokens(17);
    vec![[&beginning[..], &tokens(9)].concat(), [&beginning[..], &tokens(5)].concat(), tokens(30)]
}

fn predicted(tokens: &[u32]) -> Vec<bool> {
    (0..tokens.len()).map(|i| i > 12).collect()
}

pub(super) fn batch(base: &Base) -> Batch {
    let mut batch = Batch::default();
    sequences(base).iter().for_each(|tokens| batch.push(tokens, &predicted(tokens)));
    batch
}

#[test]
fn gradients_equal_finite_differences() {
    each_family(|name, base| {
        let mut model = Transformer::<f64>::new(base).unwrap();
        model.attach(&targets(base), 0.7).unwrap();
        check_some_gradients(name, &mut model, &batch(base));
    });
}

/// Two numbers of the gradient of each trained matrix, against finite differences.
pub(super) fn check_some_gradients(name: &str, model: &mut Transformer<'_, f64>, batch: &Batch) {
    const STEP: f64 = 1e-5;
    let (log_probs, gradients) = model.gradients(batch, 0.1);
    assert_eq!(log_probs, model.log_probs(batch), "{name}");
    let size = |gradient: &Array2<f64>| gradient.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (slot, gradient) in gradients.iter().enumerate() {
        let (rows, cols) = (gradient.nrows().min(3), gradient.ncols().min(4));
        for at in [(slot % rows, slot % cols), ((slot + 1) % rows, (slot + 2) % cols)] {
            let mut shifted = |by: f64| {
                model.trainable_mut()[slot][at] += by;
                let loss = loss(model, batch);
                model.trainable_mut()[slot][at] -= by;
                loss
            };
            let numeric = (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP);
            let error = (gradient[at] - numeric).abs() / size(gradient);
            assert!(error < 1e-6, "{name}, slot {slot} at {at:?}: {} {numeric}", gradient[at]);
        }
    }
}

/// The backward pass ends at the lowest block with a term; the blocks before those whose keys are read are computed once.
#[test]
fn blocks_below_the_terms_change_no_gradient() {
    each_family(|name, base| {
        let mut all = targets(base);
        let last = format!("blk.{}.", base.config().layers - 1);
        let is_of_last = |target: &AdapterTarget| target.name.starts_with(&last);
        for below in all.iter_mut().filter(|target| !is_of_last(target)) {
            below.u.fill(0.0);
        }
        let of_last: Vec<AdapterTarget> = all.iter().filter(|target| is_of_last(target)).cloned().collect();
        let gradients = |targets: &[AdapterTarget]| {
            let mut model = Transformer::<f64>::new(base).unwrap();
            model.attach(targets, 0.7).unwrap();
            model.gradients(&batch(base), 0.1)
        };
        let (right, found) = (gradients(&all), gradients(&of_last));
        let slots = all.iter().enumerate().filter(|(_, target)| is_of_last(target)).map(|(slot, _)| slot);
        for (a, b) in right.0.iter().zip(&found.0) {
            assert!((a - b).abs() < 1e-11, "{name}: {a} {b}");
        }
        for (slot, found) in slots.zip(&found.1) {
            assert!(distance(found, &right.1[slot]) < 1e-10, "{name}");
        }
    });
}

#[test]
fn token_by_token_gives_the_logits_of_one_pass() {
    each_family(|name, base| {
        let mut model = Transformer::<f64>::new(base).unwrap();
        model.attach(&targets(base), 0.5).unwrap();
        let tokens = &sequences(base)[2];
        let mut batch = Batch::default();
        batch.push_sequence(tokens);
        batch.predict(tokens.len() - 1, 0);
        let whole = model.logits(&batch).row(0).to_owned();
        let mut generator = Generator::new(&model);
        generator.read(&tokens[..13]).unwrap();
        let mut last = generator.read(&tokens[13..14]).unwrap();
        for token in &tokens[14..] {
            last = generator.read(&[*token]).unwrap();
        }
        for (a, b) in last.iter().zip(&whole) {
            assert!((a - b).abs() < 1e-11 * b.abs().max(1.0), "{name}: {a} {b}");
        }
    });
}

/// Products with stored rows, of every container's order of rows and every kind of matrix.
#[test]
fn row_products_give_the_logits_of_one_pass() {
    each_family(|name, base| {
        let model = |products: Option<RowProducts>| {
            let mut model = Transformer::<f32>::new(base).unwrap();
            model.attach(&targets(base), 0.5).unwrap();
            match products {
                Some(products) => model.with_row_products(products),
                None => model,
            }
        };
        let tokens = &sequences(base)[2];
        let written = |model: &Transformer<f32>| {
            let mut sequence = Sequence::new(model);
            let mut last = sequence.read(model, &tokens[..13]).unwrap();
            for token in &tokens[13..] {
                last = sequence.read(model, &[*token]).unwrap();
            }
            last
        };
        let right = written(&model(None));
        let size = right.iter().fold(0.0f32, |size, logit| size.max(logit.abs()));
        // A router may choose other experts where two are alike, so rounded activations have no bound there.
        let bound = if base.config().experts.is_some() { f32::INFINITY } else { 0.3 };
        for (products, most) in [(RowProducts::Exact, 3e-4), (RowProducts::EightBits, bound)] {
            let found = written(&model(Some(products)));
            let apart = found.iter().zip(&right).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart <= most * size, "{name}, {products:?}: {apart} of {size}");
        }
    });
}

#[test]
fn a_shared_beginning_gives_what_each_sequence_gives_alone() {
    each_family(|name, base| {
        let mut model = Transformer::<f64>::new(base).unwrap();
        model.attach(&targets(base), 0.7).unwrap();
        let sequences = sequences(base);
        let flags: Vec<Vec<bool>> = sequences.iter().map(|tokens| predicted(tokens)).collect();
        let all: Vec<(&[u32], &[bool])> =
            sequences.iter().zip(&flags).map(|(tokens, flags)| (&tokens[..], &flags[..])).collect();
        let (mut apart, mut together) = (Batch::default(), Batch::default());
        all[..2].iter().for_each(|(tokens, flags)| apart.push(tokens, flags));
        together.push_with_shared_prefix(&all[..2]);
        assert!(together.tokens().len() < apart.tokens().len());
        let (right, found) = (model.gradients(&apart, 0.1), model.gradients(&together, 0.1));
        for (a, b) in right.0.iter().zip(&found.0) {
            assert!((a - b).abs() < 1e-11, "{name}: {a} {b}");
        }
        for (a, b) in right.1.iter().zip(&found.1) {
            assert!(distance(b, a) < 1e-10, "{name}");
        }
    });
}

#[test]
fn recomputation_and_threads_change_no_byte() {
    each_family(|name, base| {
        for precision in [Precision::F32, Precision::Bf16] {
            let mut model = Transformer::<f32>::new(base).unwrap().with_precision(precision);
            model.attach(&targets(base), 1.0).unwrap();
            let batch = batch(base);
            let tokens = batch.tokens().len() as u64;
            let (sequences, factors) = model.sequence_layout(&batch);
            let mut pass = model.pass(&sequences, &factors);
            let x = model.embed(batch.tokens(), &batch.positions());
            let saved = model.blocks[0].forward_saving(x, &mut pass, None).1;
            assert_eq!(model.activation_bytes_of(0) * tokens, saved.bytes(), "{name}");
            let right = model.gradients(&batch, 0.1);
            let all = model.activation_bytes_per_token() * tokens;
            for bytes in [0, all - 1, all] {
                model.limit_activations(bytes);
                assert_eq!(model.gradients(&batch, 0.1), right, "{name}");
            }
            for bytes in [40_000, u64::MAX] {
                model.cache_packed_weights(bytes);
                assert_eq!(model.gradients(&batch, 0.1), right, "{name}");
                assert_eq!(model.gradients(&batch, 0.1), right, "{name}");
            }
            for threads in [1, 2, 4] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| model.gradients(&batch, 0.1)), right, "{name}");
            }
        }
    });
}
