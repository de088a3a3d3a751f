//! What the base and the adapted model write on the same prompts.

use std::sync::atomic::AtomicBool;

use crate::Result;
use crate::base::Base;
use crate::commands::build::examples::Examples;
use crate::commands::report::progress;
use crate::commands::run::answer::Writer;
use crate::model::{Sampler, SamplingOptions, Sequence, Transformer};
use crate::tokenizer::Tokenizer;
use crate::train::data::Example;

/// How many prompts.
const PROMPTS: usize = 4;
/// Tokens of an answer at most.
const TOKENS: usize = 64;
/// Tokens of a text that are a prompt.
const BEGINNING: usize = 24;

/// A prompt and its answers.
#[derive(Clone, Debug)]
pub(in crate::commands::build) struct Sample {
    pub(super) prompt: String,
    /// What the example says.
    pub(super) wanted: String,
    pub(super) before: String,
    pub(super) after: String,
}

/// The likeliest answers of both models to some examples, which were not trained if any were held out.
///
/// # Errors
/// A result that is not finite.
pub(in crate::commands::build) fn of(
    base: &Base,
    models: [&Transformer<'_, f32>; 2],
    examples: &Examples,
) -> Result<Vec<Sample>> {
    let tokenizer = base.tokenizer()?;
    let all = &examples.valid.as_ref().unwrap_or(&examples.data).examples;
    let count = PROMPTS.min(all.len());
    let bar = progress::bar("writing samples", 2 * count as u64);
    let context = base.max_tokens().unwrap_or(usize::MAX).min(base.config().context);
    let sample = |number: usize| {
        let (prompt, wanted) = parts(&all[number * all.len() / count]);
        let write = |model| {
            let answer = answer(model, &tokenizer, prompt, context);
            bar.inc(1);
            answer
        };
        Ok(Sample {
            prompt: tokenizer.decode(prompt),
            wanted: tokenizer.decode(wanted),
            before: write(models[0])?,
            after: write(models[1])?,
        })
    };
    let samples = (0..count).map(sample).collect();
    bar.finish_and_clear();
    samples
}

/// What comes before the first target of an example, and that target as far as it goes. Of a text, a beginning and what
/// follows.
fn parts(example: &Example) -> (&[u32], &[u32]) {
    let mask = &example.loss_mask;
    let first = mask.iter().position(|&target| target).unwrap_or(0);
    let first = if first > 1 { first } else { BEGINNING.min(example.tokens.len() / 2).max(1) };
    let end = first + mask[first..].iter().take_while(|&&target| target).count();
    (&example.tokens[..first], &example.tokens[first..end.min(first + TOKENS)])
}

fn answer(
    model: &Transformer<'_, f32>,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    context: usize,
) -> Result<String> {
    let writer = Writer { model, tokenizer, limit: Some(TOKENS), context, stop: &AtomicBool::new(false) };
    let mut sampler = Sampler::new(SamplingOptions::greedy(), 0);
    let mut sequence = Sequence::new(model);
    Ok(writer.write(&mut sequence, &mut sampler, prompt, |_| (), |_| Ok(()))?.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_ends_before_the_first_target() {
        let example =
            |mask: &[bool]| Example { tokens: (0..mask.len() as u32).collect(), loss_mask: mask.to_vec() };
        let chat = example(&[false, false, true, true, false, true]);
        assert_eq!(parts(&chat), (&[0, 1][..], &[2, 3][..]));
        let text = example(&[vec![false], vec![true; 99]].concat());
        assert_eq!((parts(&text).0.len(), parts(&text).1.len()), (BEGINNING, TOKENS));
        let short = example(&[false, true]);
        assert_eq!(parts(&short), (&[0][..], &[1][..]));
    }
}
