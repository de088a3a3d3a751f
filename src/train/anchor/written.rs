//! Texts that the base model writes itself.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::Anchor;
use super::stored::texts_sha256;
use crate::Result;
use crate::chat::{ChatTemplate, Message};
use crate::kernels::random::uniform;
use crate::model::{PackedHead, Transformer};
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

/// More texts than this are not faster together.
const MAX_GROUP: u64 = 128;
/// Draws of a first token before any token is taken. More than a few are rare.
const DRAWS: usize = 100;

/// The beginnings of the texts that the model is to write. What it writes follows from them, the seed and its
/// weights.
#[derive(Debug)]
pub struct Prompts {
    /// One for each text, first those that are not through the chat template.
    prompts: Vec<Vec<u32>>,
    /// How many are not through the chat template.
    plain: usize,
    /// Tokens of each text.
    length: usize,
    /// The token that ends a text.
    end: Option<u32>,
    /// Draws the tokens that follow: a stream for each text, so that texts do not depend on how many are
    /// written together.
    generators: Vec<ChaCha20Rng>,
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
        let AnchorOptions { texts: count, length, seed } = *options;
        let mut generators: Vec<ChaCha20Rng> = (0..count as u64)
            .map(|text| {
                let mut generator = ChaCha20Rng::seed_from_u64(seed);
                generator.set_stream(text);
                generator
            })
            .collect();
        let header = template.map(|template| user_header(template, tokenizer)).transpose()?.flatten();
        let header = header.filter(|header| header.len() < length);
        let through_template = if header.is_some() { count / 2 } else { 0 };
        let plain = count - through_template;
        let prompts = generators[..plain]
            .iter_mut()
            .map(|generator| first_tokens(model, tokenizer, generator))
            .chain(vec![header.unwrap_or_default(); through_template])
            .collect();
        let end = tokenizer.eos().filter(|&eos| tokenizer.is_end(eos));
        Ok(Self { prompts, plain, length, end, generators })
    }

    /// The SHA-256 of the beginnings and of where texts end, in hexadecimal. With the seed, it stands for the
    /// tokenizer and the template.
    pub fn sha256(&self) -> String {
        let end: Vec<u32> = self.end.into_iter().collect();
        texts_sha256(&[&self.prompts[..], &[end]].concat())
    }

    /// The texts. See [`Anchor::self_written`] for `memory` and `progress`.
    pub fn write(
        self,
        model: &mut Transformer<'_, f32>,
        memory: u64,
        mut progress: impl FnMut(usize, usize),
    ) -> Anchor {
        let Self { prompts, plain, length, end, mut generators } = self;
        let count = prompts.len();
        let (group, head) = divide_memory(model, length, memory);
        let mut texts = Vec::with_capacity(count);
        // Prompts of one length pass through the model together.
        for range in [0..plain, plain..count] {
            let (prompts, generators) = (&prompts[range.clone()], &mut generators[range]);
            for (prompts, generators) in prompts.chunks(group).zip(generators.chunks_mut(group)) {
                let (done, new) = (texts.len() * length, prompts.len());
                let on_token = |tokens| progress(done + new * tokens, count * length);
                texts.extend(model.write(prompts, (length, end), generators, head.as_ref(), on_token));
            }
        }
        texts.retain(|text| text.len() > 1);
        Anchor { texts }
    }
}

/// How many texts are written together, and the packed LM head: a third of the memory holds their keys and
/// values, and what remains holds the head, then other weights packed for products.
fn divide_memory(
    model: &mut Transformer<'_, f32>,
    length: usize,
    memory: u64,
) -> (usize, Option<PackedHead<f32>>) {
    let bytes_a_text = model.kv_cache_bytes_per_token().saturating_mul(length as u64).max(1);
    let group = (memory / 3 / bytes_a_text).clamp(1, MAX_GROUP);
    let remaining = memory.saturating_sub(group * bytes_a_text);
    let after_head = remaining.checked_sub(model.packed_head_bytes());
    model.cache_packed_weights_forward(after_head.unwrap_or(remaining));
    (group as usize, after_head.map(|_| model.pack_head()))
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
