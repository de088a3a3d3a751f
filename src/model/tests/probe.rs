//! Probes.

use ndarray::Array2;

use super::{batch, targets, with_model};
use crate::model::{Probe, Transformer};

#[test]
fn a_probe_sees_what_a_term_gets_and_changes_nothing() {
    with_model(|base| {
        // All matrices, and such that the lowest block's input needs no gradient.
        for only in ["", "attn_q", "attn_output", "blk.1.ffn_up", "ffn_down"] {
            let mut targets = targets(base, only);
            targets.iter_mut().for_each(|target| target.u.fill(0.0));
            let mut adapted = Transformer::<f64>::new(base).unwrap();
            let mut probed = adapted.clone();
            adapted.attach(&targets, 1.0).unwrap();
            for (slot, target) in targets.iter().enumerate() {
                let probe = Probe { slot, cols: target.cols.clone(), rows: target.rows.clone() };
                probed.attach_probe(&target.name, probe).unwrap();
            }
            let batch = batch();
            let (log_probs, right) = adapted.gradients(&batch, 0.7);
            let tokens: Vec<u32> = batch.predictions().iter().map(|(_, token)| *token).collect();
            let mut sums: Vec<_> = right.iter().map(|g| Array2::zeros(g.dim())).collect();
            let found = probed.backward_from(probed.forward_frozen(&batch), &batch, &mut sums, |head, x| {
                head.loss_backward(x, &tokens, 0.7)
            });
            let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9 * (1.0 + a.abs());
            assert!(log_probs.iter().zip(&found).all(close), "{only}");
            for ((a, b), target) in right.iter().zip(&sums).zip(&targets) {
                assert!(a.iter().zip(b).all(close) && a.iter().any(|x| *x != 0.0), "{}", target.name);
            }
        }
        let mut model = Transformer::<f64>::new(base).unwrap();
        let probe = Probe { slot: 0, cols: vec![], rows: vec![] };
        assert!(model.attach_probe("blk.0.attn_norm", probe).is_err());
    });
}
