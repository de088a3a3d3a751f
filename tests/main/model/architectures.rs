//! Every architecture in both containers: logits and gradients against transformers, log-probabilities
//! against llama.cpp. fixtures/arch/make.py made the goldens.

use curmerge::base::Base;
use curmerge::kernels::Real;
use curmerge::model::{Batch, Transformer};
use curmerge_formats::adapter::AdapterTarget;

use crate::support::families::{CONTAINERS, Container, Family};
use crate::support::goldens::{error, integers, log_softmax, numbers};

/// The error that F32 allows: the goldens store logits in it, a GGUF file options and rotary factors.
const EXACT: f64 = 1e-6;

/// The error of loss and gradients in float64, which the goldens store with twelve digits. Norms with a unit
/// offset are rounded to F32, as in a GGUF file.
fn exact(name: &str, container: Container) -> f64 {
    if container == Container::Gguf || Family::open(name).has_unit_offset() { EXACT } else { 1e-8 }
}

fn base(family: &Family, container: Container) -> Base {
    Base::open(family.path(container)).unwrap_or_else(|e| panic!("{e}"))
}

/// The logits at the places of the goldens.
fn logits<T: Real>(family: &Family, container: Container) -> Vec<Vec<f64>> {
    let base = base(family, container);
    let mut model = Transformer::<T>::new(&base).unwrap();
    let mut rows = Vec::new();
    for sequence in family.sequences() {
        model.for_context(sequence.ids.len()).unwrap();
        let mut batch = Batch::default();
        batch.push_sequence(&sequence.ids);
        sequence.places.iter().for_each(|&place| batch.predict(place, 0));
        let logits = model.logits(&batch);
        rows.extend(logits.rows().into_iter().map(|row| row.iter().map(|x| x.as_f64()).collect()));
    }
    rows
}

#[track_caller]
fn assert_rows(what: &str, found: &[Vec<f64>], right: &[Vec<f64>], tolerance: f64) {
    assert_eq!(found.len(), right.len());
    for (i, (found, right)) in found.iter().zip(right).enumerate() {
        let error = error(found.iter().copied(), right);
        println!("{what}, place {i}: {error:.1e}");
        assert!(error < tolerance, "{what}, place {i}: {error:e}");
    }
}

fn check_logits(name: &str) {
    let family = Family::open(name);
    for container in CONTAINERS {
        let right = family.rows(&format!("{}.logits", family.reading(container)));
        assert_rows(&format!("{container:?}, f64"), &logits::<f64>(&family, container), &right, EXACT);
        assert_rows(&format!("{container:?}, f32"), &logits::<f32>(&family, container), &right, 1e-4);
    }
    if !family.gguf_differs() {
        let [folder, gguf] = CONTAINERS.map(|container| logits::<f64>(&family, container));
        assert_rows("folder and GGUF file", &folder, &gguf, EXACT);
    }
}

fn check_llama_cpp(name: &str) {
    let family = Family::open(name);
    let found: Vec<_> = logits::<f32>(&family, Container::Gguf).iter().map(|row| log_softmax(row)).collect();
    // llama.cpp takes GELU from a table of F16.
    let tolerance = if family.has_gelu_table() { 2e-3 } else { 1e-3 };
    assert_rows("llama.cpp", &found, &family.rows("llama.log_probs"), tolerance);
}

/// The targets of the goldens.
fn targets(family: &Family) -> Vec<AdapterTarget> {
    let targets = family.goldens["targets"].as_object().unwrap().iter();
    let target = |(name, target): (&String, &serde_json::Value)| {
        let shape = integers(&target["shape"]);
        AdapterTarget {
            name: name.clone(),
            cols: integers(&target["cols"]),
            rows: integers(&target["rows"]),
            u: numbers(&target["u"]).into_iter().map(|x| x as f32).collect(),
            shape: [shape[0].into(), shape[1].into()],
            stored_dtype: String::new(),
            stored_sha256: String::new(),
            values_sha256: String::new(),
            sketch: None,
            fisher: vec![],
        }
    };
    targets.map(target).collect()
}

fn check_gradients<T: Real>(name: &str, tolerances: impl Fn(Container) -> [f64; 2]) {
    let family = Family::open(name);
    // All sequences are one batch, except if the rotary factors depend on the length of the sequence.
    let mut batches: Vec<(usize, Batch)> = Vec::new();
    for sequence in family.sequences() {
        if name.ends_with("long") || batches.is_empty() {
            batches.push((sequence.ids.len(), Batch::default()));
        }
        let (_, batch) = batches.last_mut().unwrap();
        batch.push(&sequence.ids, &sequence.predicted);
    }
    let scale = family.goldens["scale"].as_f64().unwrap() as f32;
    for container in CONTAINERS {
        let [loss_tolerance, tolerance] = tolerances(container);
        let right = &family.goldens[family.reading(container)];
        let base = base(&family, container);
        let mut model = Transformer::<T>::new(&base).unwrap();
        let before: f64 = batches
            .iter()
            .map(|(context, batch)| {
                model.for_context(*context).unwrap();
                -model.log_probs(batch).iter().sum::<f64>()
            })
            .sum();
        let before = error([before], &numbers(&right["base_loss"]));
        assert!(before < loss_tolerance, "{container:?}: loss without terms: {before:e}");
        let targets = targets(&family);
        model.attach(&targets, scale).unwrap_or_else(|e| panic!("{e}"));
        let mut loss = 0.0;
        let mut gradients: Vec<Vec<f64>> = targets.iter().map(|target| vec![0.0; target.u.len()]).collect();
        for (context, batch) in &batches {
            model.for_context(*context).unwrap();
            let (log_probs, found) = model.gradients(batch, 1.0);
            loss -= log_probs.iter().sum::<f64>();
            for (sum, found) in gradients.iter_mut().zip(&found) {
                sum.iter_mut().zip(found).for_each(|(sum, x)| *sum += x.as_f64());
            }
        }
        let with = error([loss], &numbers(&right["loss"]));
        assert!(with < loss_tolerance, "{container:?}: loss with terms: {with:e}");
        assert_eq!(targets.len(), gradients.len());
        for (target, gradient) in targets.iter().zip(&gradients) {
            let right = numbers(&right["gradients"][&target.name]);
            let error = error(gradient.iter().copied(), &right);
            println!("{container:?}, {:<20} {error:.1e}", target.name);
            assert!(error < tolerance, "{container:?}: gradient of {}: {error:e}", target.name);
        }
    }
}

fn check_tokens(name: &str) {
    let family = Family::open(name);
    let tokenizers = CONTAINERS.map(|container| base(&family, container).tokenizer().unwrap());
    let words = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/arch/vocabularies.py"));
    let texts = words.lines().chain(["", "a", " a  b\t\nc", "\n\n1234567", "Grüße, мир 🙂 世界's"]);
    for text in texts {
        let [folder, gguf] = tokenizers.each_ref().map(|t| t.encode(text, true).unwrap());
        assert_eq!(folder, gguf, "{text:?}");
    }
}

macro_rules! tests {
    ($($module:ident: $name:literal),* $(,)?) => {
        $(mod $module {
            use super::*;

            #[test]
            fn logits_equal_those_of_transformers() {
                check_logits($name);
            }

            #[test]
            fn log_probabilities_equal_those_of_llama_cpp() {
                check_llama_cpp($name);
            }

            #[test]
            fn gradients_equal_those_of_torch() {
                check_gradients::<f64>($name, |container| [exact($name, container); 2]);
                check_gradients::<f32>($name, |_| [1e-4, 1e-3]);
            }

            #[test]
            fn tokens_of_both_containers_are_equal() {
                check_tokens($name);
            }
        })*
    };
}

each_family!(tests);
