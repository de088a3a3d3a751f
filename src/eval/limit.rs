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

/// Multiplies what the model gained ([`Transformer::outer_mut`]) with the largest factor found, at most 1, at
/// which KL(base || model) on the predictions of these batches is at most `max_kl`, nats a token. The
/// divergence is about quadratic in the factor, so a few trials find it. Returns the factor and the
/// divergence there.
///
/// # Errors
/// Those of [`divergence()`].
pub fn limit_divergence<T: Real>(
    model: &mut Transformer<'_, T>,
    base: &Transformer<'_, T>,
    batches: &[Batch],
    max_kl: f64,
) -> Result<(f64, Divergence)> {
    let trained: Vec<Array2<T>> = model.outer_mut().into_iter().map(|u| u.clone()).collect();
    let mut scale = |factor: f64| {
        for (u, trained) in model.outer_mut().into_iter().zip(&trained) {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::Base;
    use crate::cur::{SelectionOptions, new_adapter};
    use crate::eval::Chunks;

    #[test]
    fn the_factor_is_the_largest_that_keeps_the_limit() {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo");
        let base = Base::open(demo.join("model.gguf")).unwrap();
        let plain = Transformer::<f32>::new(&base).unwrap();
        let mut model = plain.clone();
        let selection = SelectionOptions { rank: 4, targets: "all".into(), ..Default::default() };
        model.attach(&new_adapter(&base, &selection).unwrap().targets, 1.0).unwrap();
        for (i, u) in model.trainable_mut().into_iter().enumerate() {
            u.iter_mut().enumerate().for_each(|(j, u)| *u = 0.02 * ((i + 3 * j) % 5) as f32 - 0.04);
        }
        let text = std::fs::read_to_string(demo.join("text.txt")).unwrap();
        let chunks = Chunks::new(&base.tokenizer().unwrap(), &text, 64, Some(4)).unwrap();
        let whole = divergence(&model, &plain, &chunks.batches, |_| ()).unwrap();
        let mut limited = |max_kl| limit_divergence(&mut model, &plain, &chunks.batches, max_kl).unwrap();
        assert_eq!(limited(whole.kl), (1.0, whole), "what keeps the limit is not changed");
        let (factor, found) = limited(0.1 * whole.kl);
        assert!(
            factor < 1.0 && found.kl <= 0.1 * whole.kl && found.kl > 0.05 * whole.kl,
            "{factor} {found:?}"
        );
        let again = divergence(&model, &plain, &chunks.batches, |_| ()).unwrap();
        assert_eq!(again, found, "the model has the scaled matrices");
    }
}
