//! Gradients on the anchor, with labels from the model.

use rand_chacha::ChaCha20Rng;

use crate::kernels::random::uniform;
use crate::model::{Batch, TermSink, Transformer};

/// A backward pass of the batch's log-probability, with each label sampled from the model's own prediction:
/// second moments of such gradients are the true Fisher information, not the empirical one.
pub fn backward_with_sampled_labels(
    model: &Transformer<'_, f32>,
    batch: &Batch,
    random: &mut ChaCha20Rng,
    sink: &mut dyn TermSink<f32>,
) {
    model.backward_from(model.forward_frozen(batch), batch, sink, |head, hidden| {
        let points: Vec<f64> = (0..hidden.nrows()).map(|_| uniform(random)).collect();
        let labels = head.sample(hidden, &points, None);
        ((), head.loss_backward(hidden, &labels, 1.0).1)
    });
}
