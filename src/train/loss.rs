//! The mean loss over target tokens, and its gradients, summed over micro-batches in order.

use ndarray::Array2;

use super::batches::{self, BatchLimits, MicroBatch};
use super::data::Dataset;
use super::frozen_cache::FrozenCache;
use crate::Result;
use crate::model::Transformer;

/// The mean loss over all target tokens of a data set, nats a token.
pub fn mean_loss(model: &Transformer<'_, f32>, data: &Dataset) -> f64 {
    // Without a cache file nothing can fail.
    mean_loss_cached(model, data, None).unwrap_or(f64::NAN)
}

/// [`mean_loss`] with the output of the frozen blocks out of a cache. Fails if the cache's file does.
pub(super) fn mean_loss_cached(
    model: &Transformer<'_, f32>,
    data: &Dataset,
    mut cache: Option<&mut FrozenCache>,
) -> Result<f64> {
    let (mut sum, mut count) = (0.0, 0);
    let limits = BatchLimits { max_tokens: batches::MAX_TOKENS, share_prefixes: cache.is_none() };
    for micro_batch in batches::micro_batches(data.examples.iter().enumerate(), limits) {
        let x = hidden_states(model, &micro_batch, &mut cache)?;
        sum -= model.log_probs_from(x, &micro_batch.batch).iter().sum::<f64>();
        count += micro_batch.batch.predictions().len();
    }
    Ok(sum / count as f64)
}

/// The mean loss over the target tokens of these micro-batches, and its gradients `[c, r]`, one a target.
pub(super) fn loss_and_gradients(
    model: &Transformer<'_, f32>,
    micro_batches: &[MicroBatch],
    mut cache: Option<&mut FrozenCache>,
) -> Result<(f64, Vec<Array2<f32>>)> {
    let targets: usize = micro_batches.iter().map(|m| m.batch.predictions().len()).sum();
    let weight = 1.0 / targets as f64;
    let mut sum = 0.0;
    let mut total: Vec<Array2<f32>> = Vec::new();
    for micro_batch in micro_batches {
        let x = hidden_states(model, micro_batch, &mut cache)?;
        let (log_probs, gradients) = model.gradients_from(x, &micro_batch.batch, weight);
        sum -= log_probs.iter().sum::<f64>();
        if total.is_empty() {
            total = gradients;
        } else {
            total.iter_mut().zip(&gradients).for_each(|(t, g)| *t += g);
        }
    }
    Ok((sum * weight, total))
}

/// The output of the frozen blocks `[tokens, d_model]`.
fn hidden_states(
    model: &Transformer<'_, f32>,
    micro_batch: &MicroBatch,
    cache: &mut Option<&mut FrozenCache>,
) -> Result<Array2<f32>> {
    match cache {
        Some(cache) => cache.hidden_states(model, micro_batch),
        None => Ok(model.forward_frozen(&micro_batch.batch)),
    }
}
