//! Texts that the base model writes itself.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::Anchor;
use super::stored::texts_sha256;
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

/// The beginnings of the texts that the model is to write. What it writes follows from them and its weights.
#[derive(Debug)]
pub struct Prompts {
    /// Those that pass through the model together, since they have one length: the plain ones, and those
    /// through the chat template.
    groups: [Vec<Vec<u32>>; 2],
    /// Tokens of each text.
    length: usize,
    /// The token that ends a text.
    end: Option<u32>,
    /// Draws the tokens that follow.
    random: ChaCha20Rng,
}

impl Prompts {
    /// The beginnings of the texts that [`Anchor::self_written`] describes.
    ///
    /// # Errors
    /// A chat template that cannot be rendered.
    pub fn new(
        model: &Transformer<'_, f32>,
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        options: &AnchorOptions,
    ) -> Result<Self> {
        let mut random = ChaCha20Rng::seed_from_u64(options.seed);
        let header = template.map(|template| user_header(template, tokenizer)).transpose()?.flatten();
        let header = header.filter(|header| header.len() < options.length);
        let through_template = if header.is_some() { options.texts / 2 } else { 0 };
        let plain = (through_template..options.texts).map(|_| first_tokens(model, tokenizer, &mut random));
        let groups = [plain.collect(), vec![header.unwrap_or_default(); through_template]];
        let end = tokenizer.eos().filter(|&eos| tokenizer.is_end(eos));
        Ok(Self { groups, length: options.length, end, random })
    }

    /// The SHA-256 of the beginnings and of where texts end, in hexadecimal. With the seed, it stands for the
    /// tokenizer and the template.
    pub fn sha256(&self) -> String {
        let end: Vec<u32> = self.end.into_iter().collect();
        texts_sha256(&[&self.groups[0][..], &self.groups[1], &[end]].concat())
    }

    /// The texts. `progress` gets the tokens that each text of a group has, and will have.
    pub fn write(mut self, model: &Transformer<'_, f32>, mut progress: impl FnMut(usize, usize)) -> Anchor {
        let length = self.length;
        let mut texts = Vec::new();
        for prompts in self.groups.iter().filter(|prompts| !prompts.is_empty()) {
            texts.extend(model.write(prompts, length, &mut self.random, |tokens| progress(tokens, length)));
        }
        texts.iter_mut().for_each(|text| end(text, self.end));
        texts.retain(|text| text.len() > 1);
        Anchor { texts }
    }
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

/// Cuts a text after the first `end` that was written; a text that ends at once keeps two tokens.
fn end(text: &mut Vec<u32>, end: Option<u32>) {
    let place = text.iter().skip(1).position(|&id| Some(id) == end);
    if let Some(place) = place {
        text.truncate(place + 2);
    }
}
