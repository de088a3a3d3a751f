//! How far an adapted model is from its base: KL(base || adapted), agreement on the most probable token,
//! and both perplexities, as llama.cpp's `llama-perplexity --kl-divergence` counts them.
//!
//! Perplexity alone misleads: a signed first-order term can hide what was forgotten. KL a token cannot be
//! negative.

use serde::Serialize;

use crate::kernels::Real;
use crate::model::{Batch, Comparison, Transformer};
use crate::{Error, Result};

/// How far a model's predictions are from a reference's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Divergence {
    /// Mean KL(reference || model), nats a token.
    pub kl: f64,
    /// Standard error of `kl`, from the spread of single predictions.
    pub kl_standard_error: f64,
    /// Share of predictions whose most probable token is the same.
    pub same_top: f64,
    /// exp of the model's mean negative log-probability.
    pub perplexity: f64,
    /// exp of the reference's mean negative log-probability.
    pub reference_perplexity: f64,
    /// Predictions that were counted.
    pub predictions: usize,
}

/// Compares a model with a reference on the predictions of these batches. `progress` gets the number of
/// finished sequences.
///
/// # Errors
/// When the models have vocabularies of different sizes.
pub fn divergence<T: Real>(
    model: &Transformer<'_, T>,
    reference: &Transformer<'_, T>,
    batches: &[Batch],
    mut progress: impl FnMut(usize),
) -> Result<Divergence> {
    let [own, other] = [model, reference].map(|model| model.config().vocab);
    if own != other {
        return Err(Error::request(
            format!("the models have {own} and {other} tokens, so their predictions do not compare"),
            "compare models of one family",
        ));
    }
    let (mut rows, mut done) = (Vec::new(), 0);
    for batch in batches {
        rows.extend(model.compare(reference, batch));
        done += batch.sequences().len();
        progress(done);
    }
    Ok(summary(&rows))
}

fn summary(rows: &[Comparison]) -> Divergence {
    let count = rows.len() as f64;
    let mean = |number: &dyn Fn(&Comparison) -> f64| rows.iter().map(number).sum::<f64>() / count;
    let kl = mean(&|row| row.kl);
    let variance = mean(&|row| (row.kl - kl) * (row.kl - kl)) * count / (count - 1.0).max(1.0);
    Divergence {
        kl,
        kl_standard_error: (variance / count).sqrt(),
        same_top: mean(&|row| f64::from(u8::from(row.same_top))),
        perplexity: (-mean(&|row| row.model.log_prob)).exp(),
        reference_perplexity: (-mean(&|row| row.reference.log_prob)).exp(),
        predictions: rows.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Prediction;

    #[test]
    fn means_are_over_predictions() {
        let [reference, model] = [-2.0, -1.0].map(|log_prob| Prediction { log_prob, is_top: true });
        let row = |kl, same_top| Comparison { reference, model, kl, same_top };
        let d = summary(&[row(0.1, true), row(0.3, false)]);
        assert!((d.kl - 0.2).abs() < 1e-12 && (d.kl_standard_error - 0.1).abs() < 1e-12);
        assert_eq!((d.same_top, d.predictions), (0.5, 2));
        assert!((d.perplexity - 1f64.exp()).abs() < 1e-12);
        assert!((d.reference_perplexity - 2f64.exp()).abs() < 1e-12);
    }
}
