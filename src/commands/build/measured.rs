//! What a run learned and forgot, measured when it ends: on examples that were held out, and on new texts
//! that the base writes itself, which no penalty has used.

use serde_json::{Map, Value, json};

use super::examples::Examples;
use crate::Result;
use crate::commands::report::progress;
use crate::eval::{self, Divergence, Learned};
use crate::model::{Batch, Transformer};
use crate::train::anchor::Anchor;

/// Examples measured at most.
const MAX_EXAMPLES: usize = 200;
/// Tokens that go through the models at a time.
const MAX_TOKENS: usize = 1024;

/// KL(base || rounded) a token, nats, of a model rounded to these types, without an importance matrix: by
/// llama.cpp's perplexity tool for Llama 3 8B (tools/perplexity/README.md of llama.cpp). SmolLM2-135M has
/// 0.0012 and 0.0052 for the first two.
pub(super) const ROUNDING: [(&str, f64); 6] = [
    ("Q8_0", 0.0013),
    ("Q6_K", 0.0054),
    ("Q5_K_M", 0.0108),
    ("Q4_K_M", 0.0313),
    ("Q3_K_M", 0.102),
    ("Q2_K", 0.445),
];

/// New texts of the base as batches; none with `--anchor none`.
pub(super) fn batches(texts: Option<&Anchor>) -> Vec<Batch> {
    texts.map(|texts| texts.batches(MAX_TOKENS)).unwrap_or_default()
}

/// What a trained model is measured against.
pub(super) struct Yardstick<'t, 'b> {
    /// The model without what was trained.
    pub(super) base: Transformer<'b, f32>,
    /// New texts of the base; none with `--anchor none`.
    texts: &'t [Batch],
}

/// What a run learned and forgot.
pub(super) struct Measured {
    /// On examples that were not trained, if there are any.
    pub(super) learned: Option<Learned>,
    /// On texts that the penalty did not use, and how many, if there are any.
    pub(super) forgotten: Option<(Divergence, usize)>,
}

impl<'t, 'b> Yardstick<'t, 'b> {
    /// The base of a trained model, and these new texts of it, if there are any. Both models share the weights
    /// that are packed in at most `memory` bytes.
    pub(super) fn new(model: &mut Transformer<'b, f32>, texts: &'t [Batch], memory: u64) -> Self {
        model.cache_packed_weights_forward(memory);
        Self { base: model.without_terms(), texts }
    }

    /// Scales down what the model gained until it forgets at most `max_kl` nats a token of the texts. Returns
    /// the factor.
    ///
    /// # Errors
    /// Those of [`eval::limit_divergence`].
    pub(super) fn limit(&self, model: &mut Transformer<'_, f32>, max_kl: f64) -> Result<f64> {
        let bar = progress::spinner("scaling the change to --max-forgetting");
        let limited = eval::limit_divergence(model, &self.base, self.texts, max_kl);
        bar.finish_and_clear();
        Ok(limited?.0)
    }

    /// Measures a model.
    ///
    /// # Errors
    /// None for models of one base.
    pub(super) fn measure(&self, model: &Transformer<'_, f32>, examples: &Examples) -> Result<Measured> {
        let bar = progress::spinner("measuring what was learned and forgotten");
        let held_out = examples.valid.as_ref();
        let held_out = held_out.map(|data| data.clone().hold_out(MAX_EXAMPLES.min(data.examples.len())));
        let learned = held_out.map(|examples| eval::learned(model, &self.base, &examples));
        let count = self.texts.iter().map(|batch| batch.sequences().len()).sum();
        let forgotten = match count {
            0 => None,
            _ => Some((eval::divergence(model, &self.base, self.texts, |_| ())?, count)),
        };
        bar.finish_and_clear();
        Ok(Measured { learned, forgotten })
    }
}

impl Measured {
    /// For `--json`.
    pub(super) fn json(&self, fields: &mut Map<String, Value>) {
        fields.insert("held_out".into(), json!(self.learned));
        fields.insert("forgotten".into(), json!(self.forgotten.map(|(divergence, _)| divergence)));
    }

    /// For a terminal.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if let Some(Learned { before, after, examples }) = self.learned {
            let percent = |share: f64| format!("{:.1} %", 100.0 * share);
            text += &format!(
                "learned  loss {:.4} before, {:.4} after on {examples} examples that were not trained\n",
                before.loss, after.loss
            );
            let [tokens, exact] =
                [(before.token_accuracy, after.token_accuracy), (before.exact, after.exact)]
                    .map(|(before, after)| format!("{} before, {} after", percent(before), percent(after)));
            text += &format!("         tokens right: {tokens}; whole answers right: {exact}\n");
        }
        if let Some((Divergence { kl, same_top, .. }, texts)) = self.forgotten {
            text += &format!(
                "forgot   KL {kl:.5} nats a token on {texts} new texts of the base: {}\n         the same token \
                 is the most probable in {:.1} %\n",
                beside_rounding(kl),
                100.0 * same_top
            );
        }
        text
    }
}

/// A divergence beside those of models rounded to fewer bits.
fn beside_rounding(kl: f64) -> String {
    let say = |(name, kl): (&str, f64)| format!("{name} rounding ({kl})");
    let above = ROUNDING.iter().position(|(_, rounding)| kl < *rounding).unwrap_or(ROUNDING.len());
    match above {
        0 => format!("less than {}", say(ROUNDING[0])),
        _ if above < ROUNDING.len() => {
            format!("between {} and {}", say(ROUNDING[above - 1]), say(ROUNDING[above]))
        }
        _ => format!("more than {}", say(ROUNDING[above - 1])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_divergence_is_said_in_terms_of_rounding() {
        for (kl, words) in [
            (0.0004, "less than Q8_0 rounding (0.0013)"),
            (0.0013, "between Q8_0 rounding (0.0013) and Q6_K rounding (0.0054)"),
            (0.3, "between Q3_K_M rounding (0.102) and Q2_K rounding (0.445)"),
            (2.0, "more than Q2_K rounding (0.445)"),
            (f64::NAN, "more than Q2_K rounding (0.445)"),
        ] {
            assert_eq!(beside_rounding(kl), words);
        }
    }
}
