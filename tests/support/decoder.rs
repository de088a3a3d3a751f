//! What a model says after some tokens, and an adapter that makes it say something else.

use curmerge::base::Base;
use curmerge::cur::{Selection, fingerprint};
use curmerge::model::{Batch, Transformer};
use curmerge_formats::adapter::Adapter;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;

/// The logits behind the last token, and the greatest behind each.
pub fn logits(model: &Transformer<f32>, ids: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let mut batch = Batch::default();
    let first = batch.push_sequence(ids);
    (0..ids.len()).for_each(|i| batch.predict(first + i, 0));
    let logits = model.logits(&batch);
    let greatest = |row: ndarray::ArrayView1<f32>| row.fold(f32::NEG_INFINITY, |a, &b| a.max(b)).into();
    let last = logits.row(ids.len() - 1).iter().map(|&x| x.into()).collect();
    (last, logits.rows().into_iter().map(greatest).collect())
}

/// The largest difference, relative to the largest number of `right`.
pub fn error(found: &[f64], right: &[f64]) -> f64 {
    assert_eq!(found.len(), right.len());
    let largest = |numbers: &mut dyn Iterator<Item = f64>| {
        numbers.map(|x| if x.is_nan() { f64::INFINITY } else { x.abs() }).fold(0.0, f64::max)
    };
    largest(&mut found.iter().zip(right).map(|(a, b)| a - b)) / largest(&mut right.iter().copied())
}

pub fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

/// An adapter of every matrix whose U is not small.
pub fn adapter(base: &Base) -> Adapter {
    let names = base.targets("all", None).unwrap();
    let mut targets = fingerprint::prepare(base, &names, 4, Selection::Inverse, 1).unwrap();
    let mut stream = ChaCha20Rng::seed_from_u64(4);
    for u in targets.iter_mut().flat_map(|target| &mut target.u) {
        *u = 0.5 * ((stream.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0);
    }
    Adapter {
        base: fingerprint::base_info(base, &targets),
        rank: 4,
        scale: 0.5,
        selection: "inverse".into(),
        seed: 1,
        training: None,
        targets,
    }
}

/// What a model writes greedily.
pub fn written(model: &Transformer<f32>, ids: &[u32], count: usize) -> Vec<u64> {
    let mut ids = ids.to_vec();
    for _ in 0..count {
        let (last, _) = logits(model, &ids);
        let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
        ids.push(best as u32);
    }
    ids[ids.len() - count..].iter().map(|&id| id.into()).collect()
}
