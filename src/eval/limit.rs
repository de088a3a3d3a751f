//! Scaling what a model learned down to a limit of forgetting.

use ndarray::Array2;

use super::{Divergence, divergence};
use crate::Result;
use crate::kernels::Real;
use crate::model::{Batch, Transformer};

/// The search ends when the divergence is within this share of the limit.
const CLOSE: f64 = 0.9;
/// Each step aims at this share of the limit.
const AIM: f64 = 0.96;
/// Scales tried at most, so that the search ends.
const TRIALS: usize = 10;

/// Multiplies all trained matrices with the largest factor found, at most 1, at which KL(base || model) on
/// the predictions of these batches is at most `max_kl`, nats a token. The divergence is about quadratic in
/// the factor, so a few trials find it. Returns the factor and the divergence there. The matrices are scaled
/// as one, so this needs terms whose change is linear in them, as CURLoRA's is.
///
/// # Errors
/// Those of [`divergence`].
pub fn limit_divergence<T: Real>(
    model: &mut Transformer<'_, T>,
    base: &Transformer<'_, T>,
    batches: &[Batch],
    max_kl: f64,
) -> Result<(f64, Divergence)> {
    let trained: Vec<Array2<T>> = model.trainable_mut().into_iter().map(|u| u.clone()).collect();
    let mut scale = |factor: f64| {
        for (u, trained) in model.trainable_mut().into_iter().zip(&trained) {
            u.zip_mut_with(trained, |u, &trained| *u = T::from_f64(factor) * trained);
        }
        divergence(model, base, batches, |_| ())
    };
    let mut best = (0.0, None);
    let mut factor = 1.0f64;
    for _ in 0..TRIALS {
        let measured = scale(factor)?;
        let kl = measured.kl.max(0.0);
        if kl <= max_kl && factor > best.0 {
            best = (factor, Some(measured));
        }
        if kl <= max_kl && (factor == 1.0 || kl >= CLOSE * max_kl) {
            break;
        }
        let next = (factor * (AIM * max_kl / kl).sqrt()).min(1.0);
        // A trial below the best so far can only do worse.
        if next <= best.0 {
            break;
        }
        factor = next;
    }
    let measured = scale(best.0)?;
    Ok((best.0, best.1.unwrap_or(measured)))
}
