//! Texts that the base model writes itself.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::Anchor;
use crate::Result;
use crate::chat::{ChatTemplate, Message};
use crate::kernels::random::uniform;
use crate::model::Transformer;
use crate::tokenizer::Tokenizer;

/// How many texts the model writes, and how long they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnchorOptions {
    /// The number of texts. Default: 400.
    pub texts: usize,
    /// Tokens of each text. Default: 128.
    pub length: usize,
    /// Seed of all draws. Default: 0.
    pub seed: u64,
}

impl Default for AnchorOptions {
    fn default() -> Self {
        Self { texts: 400, length: 128, seed: 0 }
    }
}

/// Draws of a first token before any token is taken. More than a few are rare.
const DRAWS: usize = 100;

/// See [`Anchor::self_written`].
pub(super) fn write(
    model: &Transformer<'_, f32>,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    options: &AnchorOptions,
    mut progress: impl FnMut(usize, usize),
) -> Result<Anchor> {
    let mut random = ChaCha20Rng::seed_from_u64(options.seed);
    let header = template.map(|template| user_header(template, tokenizer)).transpose()?.flatten();
    let header = header.filter(|header| header.len() < options.length);
    let through_template = if header.is_some() { options.texts / 2 } else { 0 };
    let plain = (through_template..options.texts).map(|_| first_tokens(model, tokenizer, &mut random));
    let mut texts = Vec::with_capacity(options.texts);
    // Prompts of one length pass through the model together.
    for prompts in [plain.collect(), vec![header.unwrap_or_default(); through_template]] {
        if prompts.is_empty() {
            continue;
        }
        texts.extend(
            model.write(&prompts, options.length, &mut random, |tokens| progress(tokens, options.length)),
        );
    }
    texts.iter_mut().for_each(|text| end(text, tokenizer));
    texts.retain(|text| text.len() > 1);
    Ok(Anchor { texts })
}

/// BOS, if the tokenizer adds one, and a token drawn uniformly from those that spell ordinary text.
fn first_tokens(model: &Transformer<'_, f32>, tokenizer: &Tokenizer, random: &mut ChaCha20Rng) -> Vec<u32> {
    let size = tokenizer.vocab_size().min(model.config().vocab);
    let spelled = |id: u32| {
        let text = tokenizer.decode(&[id]);
        tokenizer.encode_ordinary(&text, false).is_ok_and(|ids| ids == [id])
    };
    let draws: Vec<u32> = (0..DRAWS).map(|_| (uniform(random) * size as f64) as u32).collect();
    let token = draws.iter().copied().find(|&id| spelled(id)).unwrap_or(draws[0]);
    tokenizer.bos().filter(|_| tokenizer.adds_bos()).into_iter().chain([token]).collect()
}

/// The tokens with which the template begins a user's turn: what stands before the user's words. `None`
/// if the words are not in the rendering as they were given.
fn user_header(template: &ChatTemplate, tokenizer: &Tokenizer) -> Result<Option<Vec<u32>>> {
    const WORDS: &str = "curmerge-user-words";
    let rendered = template.render(&[Message::new("user", WORDS)], false)?;
    let Some((before, _)) = rendered.split_once(WORDS) else { return Ok(None) };
    let tokens = tokenizer.encode_rendered(before)?;
    Ok(Some(tokens).filter(|tokens| !tokens.is_empty()))
}

/// Cuts a text after its last complete turn or text, if an end was written; a text that ends at once
/// keeps two tokens.
fn end(text: &mut Vec<u32>, tokenizer: &Tokenizer) {
    let eos = tokenizer.eos();
    let place = text.iter().skip(1).position(|&id| Some(id) == eos && tokenizer.is_end(id));
    if let Some(place) = place {
        text.truncate(place + 2);
    }
}
