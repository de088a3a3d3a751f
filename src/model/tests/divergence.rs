//! Comparisons of two models, the gradient of their divergence, and sampling, against plain softmaxes.

use ndarray::{Array2, ArrayView1};

use super::{batch, distance, numeric_gradient, targets, with_model};
use crate::base::Base;
use crate::model::{Batch, Transformer};

/// The base, and the base with random terms.
fn pair(base: &Base) -> [Transformer<'_, f64>; 2] {
    let plain = Transformer::<f64>::new(base).unwrap();
    let mut adapted = plain.clone();
    adapted.attach(&targets(base, ""), 0.7).unwrap();
    [plain, adapted]
}

fn log_softmax(logits: ArrayView1<f64>) -> Vec<f64> {
    let max = logits.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let log_sum = max + logits.iter().map(|l| (l - max).exp()).sum::<f64>().ln();
    logits.iter().map(|l| l - log_sum).collect()
}

fn top(row: &[f64]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

fn kl(reference: &[f64], row: &[f64]) -> f64 {
    reference.iter().zip(row).map(|(p0, p)| p0.exp() * (p0 - p)).sum()
}

#[test]
fn comparisons_equal_those_of_all_logits() {
    with_model(|base| {
        let ([plain, adapted], batch) = (pair(base), batch());
        let compared = adapted.compare(&plain, &batch);
        let [reference, logits] = [&plain, &adapted].map(|model| model.logits(&batch));
        assert_eq!(compared.len(), logits.nrows());
        for (i, c) in compared.iter().enumerate() {
            let [p0, p] = [&reference, &logits].map(|l| log_softmax(l.row(i)));
            let token = batch.predictions()[i].1 as usize;
            for (found, right) in
                [(c.reference.log_prob, p0[token]), (c.model.log_prob, p[token]), (c.kl, kl(&p0, &p))]
            {
                assert!((found - right).abs() < 1e-12, "row {i}: {found} {right}");
            }
            assert_eq!(c.same_top, top(&p0) == top(&p), "row {i}");
            assert_eq!([c.reference.is_top, c.model.is_top], [&p0, &p].map(|p| top(p) == token), "row {i}");
        }
        assert!(compared.iter().any(|c| c.kl > 1e-3), "the terms change the predictions");
        assert!(plain.compare(&plain, &batch).iter().all(|c| c.kl.abs() < 1e-14 && c.same_top));
    });
}

#[test]
fn a_divergence_has_the_gradient_of_finite_differences() {
    with_model(|base| {
        let [plain, mut adapted] = pair(base);
        let batch = batch();
        let reference = plain.hidden_states(&batch);
        let mut gradients: Vec<Array2<f64>> =
            adapted.trainable_mut().iter().map(|u| Array2::zeros(u.dim())).collect();
        let divergence = |model: &Transformer<'_, f64>, batch: &Batch| {
            0.3 * model.compare(&plain, batch).iter().map(|c| c.kl).sum::<f64>()
        };
        let frozen = adapted.forward_frozen(&batch);
        let rows = adapted.backward_from(frozen, &batch, &mut gradients, |head, hidden| {
            head.kl_backward(hidden, reference.view(), 0.3)
        });
        assert!((0.3 * rows.iter().sum::<f64>() - divergence(&adapted, &batch)).abs() < 1e-12);
        for (slot, gradient) in gradients.iter().enumerate() {
            let numeric = numeric_gradient(&mut adapted, slot, |model| divergence(model, &batch));
            let error = distance(gradient, &numeric);
            assert!(error < 1e-6, "slot {slot}: relative error {error}");
        }
    });
}

#[test]
fn samples_invert_the_cumulative_distribution() {
    with_model(|base| {
        let [_, adapted] = pair(base);
        let batch = batch();
        let (hidden, logits) = (adapted.hidden_states(&batch), adapted.logits(&batch));
        for point in [0.0, 0.1, 0.5, 0.93, 0.999_999] {
            let found = adapted.head.sample(hidden.view(), &vec![point; hidden.nrows()], None);
            for (row, token) in logits.rows().into_iter().zip(found) {
                let mut rest = point;
                let right = log_softmax(row).iter().position(|p| {
                    rest -= p.exp();
                    rest < 0.0
                });
                assert_eq!(Some(token as usize), right, "point {point}");
            }
        }
    });
}
