//! Logits and greedy continuations of a model.

use curmerge::model::{Batch, Transformer};

/// The logits after the last token, and the greatest logit after each token.
pub fn logits(model: &Transformer<f32>, ids: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let mut batch = Batch::default();
    let first = batch.push_sequence(ids);
    (0..ids.len()).for_each(|i| batch.predict(first + i, 0));
    let logits = model.logits(&batch);
    let greatest = |row: ndarray::ArrayView1<f32>| row.fold(f32::NEG_INFINITY, |a, &b| a.max(b)).into();
    let last = logits.row(ids.len() - 1).iter().map(|&x| x.into()).collect();
    (last, logits.rows().into_iter().map(greatest).collect())
}

/// The `count` tokens that a model generates greedily.
pub fn written(model: &Transformer<f32>, ids: &[u32], count: usize) -> Vec<u64> {
    let mut ids = ids.to_vec();
    for _ in 0..count {
        let (last, _) = logits(model, &ids);
        let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
        ids.push(best as u32);
    }
    ids[ids.len() - count..].iter().map(|&id| id.into()).collect()
}
