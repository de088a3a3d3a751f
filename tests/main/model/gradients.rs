//! The transformer's logits, loss and gradients against PyTorch's in float64. fixtures/demo/goldens.py makes
//! goldens.json with transformers' Llama and its own CURLoRA layer, which forms `C U R`.
//!
//! The goldens have nine digits. Errors are relative to the largest number of an array.

use curmerge::base::Base;
use curmerge::kernels::Real;
use curmerge::model::{Batch, Transformer};
use curmerge_formats::adapter::AdapterTarget;
use serde_json::Value;

use crate::support::fixture::demo;
use crate::support::goldens::{error, integers as ids, numbers};

/// The error that nine digits allow.
const EXACT: f64 = 1e-8;

fn goldens() -> Value {
    serde_json::from_slice(&std::fs::read(demo("goldens.json")).unwrap()).unwrap()
}

fn base() -> Base {
    Base::open(demo("model.gguf")).unwrap()
}

/// The adapter of the goldens: seven targets, one of each kind, with nonzero U.
fn targets(base: &Base, goldens: &Value) -> Vec<AdapterTarget> {
    let listed = goldens["curlora"]["targets"].as_object().unwrap();
    let target = |(name, target): (&String, &Value)| {
        let shape = &base.tensors()[name].shape;
        AdapterTarget {
            name: name.clone(),
            cols: ids(&target["cols"]),
            rows: ids(&target["rows"]),
            u: numbers(&target["u"]).into_iter().map(|x| x as f32).collect(),
            shape: [shape[0], shape[1]],
            stored_dtype: String::new(),
            stored_sha256: String::new(),
            values_sha256: String::new(),
            sketch: None,
            fisher: vec![],
        }
    };
    listed.iter().map(target).collect()
}

/// The goldens' two sequences, and the weight that makes the loss a mean over all predicted tokens.
fn training_batch(goldens: &Value) -> (Batch, f64) {
    let mut batch = Batch::default();
    for sequence in goldens["curlora"]["batch"].as_array().unwrap() {
        let mask: Vec<bool> = ids(&sequence["mask"]).into_iter().map(|m| m == 1).collect();
        batch.push(&ids(&sequence["ids"]), &mask);
    }
    let weight = 1.0 / batch.predictions().len() as f64;
    (batch, weight)
}

fn check_logits<T: Real>(tolerance: f64) {
    let (base, goldens) = (base(), goldens());
    let model = Transformer::<T>::new(&base).unwrap();
    for sequence in goldens["sequences"].as_array().unwrap() {
        let tokens = ids(&sequence["ids"]);
        let mut batch = Batch::default();
        let first = batch.push_sequence(&tokens);
        let places = sequence["logits"].as_object().unwrap();
        places.keys().for_each(|place| batch.predict(first + place.parse::<usize>().unwrap(), 0));
        for ((place, right), row) in places.iter().zip(model.logits(&batch).rows()) {
            let error = error(row.iter().map(|x| x.as_f64()), &numbers(right));
            assert!(error < tolerance, "logits after token {place} of {}: {error:e}", sequence["text"]);
        }
        let mut batch = Batch::default();
        batch.push(&tokens, &vec![true; tokens.len()]);
        let mean = -model.log_probs(&batch).iter().sum::<f64>() / (tokens.len() - 1) as f64;
        let error = error([mean], &numbers(&sequence["mean_nll"]));
        assert!(error < tolerance, "loss of {}: {mean}, {error:e}", sequence["text"]);
    }
}

fn check_gradients<T: Real>(loss_tolerance: f64, tolerance: f64) {
    let (base, goldens) = (base(), goldens());
    let curlora = &goldens["curlora"];
    let (batch, weight) = training_batch(&goldens);
    let mut model = Transformer::<T>::new(&base).unwrap();
    let loss = |log_probs: &[f64]| -weight * log_probs.iter().sum::<f64>();
    let before = error([loss(&model.log_probs(&batch))], &numbers(&curlora["base_loss"]));
    assert!(before < loss_tolerance, "loss without the adapter: {before:e}");

    let targets = targets(&base, &goldens);
    model.attach(&targets, 1.0).unwrap();
    let (log_probs, gradients) = model.gradients(&batch, weight);
    let with = error([loss(&log_probs)], &numbers(&curlora["loss"]));
    assert!(with < loss_tolerance, "loss with the adapter: {with:e}");
    for (target, gradient) in targets.iter().zip(&gradients) {
        let right = numbers(&curlora["targets"][&target.name]["grad"]);
        let error = error(gradient.iter().map(|x| x.as_f64()), &right);
        println!("{:<20} {error:.1e}", target.name);
        assert!(error < tolerance, "gradient of {}: {error:e}", target.name);
    }
}

#[test]
fn logits_equal_those_of_torch_in_f64() {
    check_logits::<f64>(EXACT);
}

#[test]
fn logits_equal_those_of_torch_in_f32() {
    check_logits::<f32>(1e-5);
}

#[test]
fn gradients_equal_those_of_torch_in_f64() {
    check_gradients::<f64>(EXACT, EXACT);
}

#[test]
fn gradients_equal_those_of_torch_in_f32() {
    check_gradients::<f32>(1e-5, 1e-4);
}
