//! Texts that the base model writes itself.

use std::ops::Range;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::Anchor;
use super::stored::lists_sha256;
use crate::Result;
use crate::chat::{ChatTemplate, Message};
use crate::kernels::random::uniform;
use crate::model::{Next, PackedHead, Transformer};
use crate::tokenizer::Tokenizer;
use crate::train::data::Example;

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
/// One text in this many is written through a chat model's template. A greater part keeps more of how it is
/// asked, but holds it back where it learns a new way of answering.
const THROUGH_TEMPLATE: usize = 4;
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
    /// The tokens that end a text.
    ends: Vec<u32>,
    /// What stands between a question and its answer in the chat template.
    before_answer: Vec<u32>,
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
        let turns = template.map(|template| Turns::of(template, tokenizer)).transpose()?.flatten();
        let turns = turns.filter(|turns| turns.before_question.len() < length);
        let through_template = if turns.is_some() { count / THROUGH_TEMPLATE } else { 0 };
        let plain = count - through_template;
        let Turns { before_question, before_answer } = turns.unwrap_or_default();
        let prompts = generators[..plain]
            .iter_mut()
            .map(|generator| first_tokens(model, tokenizer, generator))
            .chain(vec![before_question; through_template])
            .collect();
        let ends = (0..tokenizer.vocab_size() as u32).filter(|&id| tokenizer.is_end(id)).collect();
        Ok(Self { prompts, plain, length, ends, before_answer, generators })
    }

    /// The SHA-256 of the beginnings and of what follows a token, in hexadecimal. With the seed, it stands
    /// for the tokenizer and the template.
    pub fn sha256(&self) -> String {
        let after = [self.ends.clone(), self.before_answer.clone()];
        lists_sha256(self.prompts.iter().cloned().chain(after))
    }

    /// The texts. See [`Anchor::self_written`] for `memory` and `progress`.
    pub fn write(
        self,
        model: &mut Transformer<'_, f32>,
        memory: u64,
        mut progress: impl FnMut(usize, usize),
    ) -> Anchor {
        let Self { prompts, plain, length, ends, before_answer, mut generators } = self;
        let count = prompts.len();
        let (group, head) = divide_memory(model, length, memory);
        let mut texts = Vec::with_capacity(count);
        // Prompts of one length pass through the model together.
        for range in [0..plain, plain..count] {
            let (prompts, generators) = (&prompts[range.clone()], &mut generators[range]);
            for (prompts, generators) in prompts.chunks(group).zip(generators.chunks_mut(group)) {
                let (first, new) = (texts.len(), prompts.len());
                let on_token = |tokens| progress(first * length + new * tokens, count * length);
                let mut growing: Vec<Growing<'_>> = (prompts.iter().enumerate())
                    .map(|(i, prompt)| Growing::new(prompt, (first + i >= plain).then_some(&before_answer)))
                    .collect();
                let next = |i: usize, text: &[u32]| growing[i].next(text, length / 2, &ends);
                let written = model.write(prompts, (length, next), generators, head.as_ref(), on_token);
                texts.extend(growing.iter().zip(written).map(|(text, tokens)| text.example(tokens)));
            }
        }
        texts.retain(|text| text.loss_mask.iter().skip(1).any(|&predicted| predicted));
        Anchor { texts }
    }
}

/// A text that the model is writing.
struct Growing<'t> {
    /// The tokens that the model did not write: the prompt, and what stands before the answer.
    given: [Range<usize>; 2],
    /// What stands before the answer, while a question is written.
    before_answer: Option<&'t [u32]>,
}

impl<'t> Growing<'t> {
    fn new(prompt: &[u32], before_answer: Option<&'t Vec<u32>>) -> Self {
        let before_answer = before_answer.map(Vec::as_slice).filter(|tokens| !tokens.is_empty());
        Self { given: [0..prompt.len(), 0..0], before_answer }
    }

    /// What follows the text so far. A question ends with the first of the tokens before the answer, and at
    /// `longest` tokens at the latest.
    fn next(&mut self, text: &[u32], longest: usize, ends: &[u32]) -> Next<'t> {
        let last = text.last().copied();
        if let Some(before_answer) = self.before_answer {
            let ended = last == before_answer.first().copied();
            if ended || text.len() >= longest {
                let given = &before_answer[usize::from(ended)..];
                self.given[1] = text.len()..text.len() + given.len();
                self.before_answer = None;
                return Next::Read(given);
            }
        }
        if last.is_some_and(|last| ends.contains(&last)) { Next::End } else { Next::Write }
    }

    /// The text whose tokens are these: what the model wrote is predicted.
    fn example(&self, tokens: Vec<u32>) -> Example {
        let loss_mask = (0..tokens.len()).map(|i| !self.given.iter().any(|given| given.contains(&i)));
        Example { loss_mask: loss_mask.collect(), tokens }
    }
}

/// How many texts are written together, and the packed LM head: a third of the memory holds their keys and
/// values, and what remains holds the head, then other weights packed for products.
fn divide_memory(
    model: &mut Transformer<'_, f32>,
    length: usize,
    memory: u64,
) -> (usize, Option<PackedHead<f32>>) {
    let bytes_a_text = model.cache_bytes_per_text(length).max(1);
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

/// What a chat template puts around a question.
#[derive(Default)]
struct Turns {
    /// From the beginning of the text to the question, at least one token.
    before_question: Vec<u32>,
    /// From the end of the question to the answer.
    before_answer: Vec<u32>,
}

impl Turns {
    /// `None` if the question is not in the rendering as it was given, or begins it.
    fn of(template: &ChatTemplate, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        const QUESTION: &str = "curmerge-user-words";
        let rendered = template.render(&[Message::new("user", QUESTION)], true)?;
        let Some((before, after)) = rendered.split_once(QUESTION) else { return Ok(None) };
        let before_question = tokenizer.encode_with_bos(before)?;
        let question = tokenizer.encode_after(&before_question, QUESTION)?;
        let before_answer = tokenizer.encode_after(&question, after)?;
        Ok((!before_question.is_empty()).then_some(Self { before_question, before_answer }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::Base;

    #[test]
    fn a_question_is_followed_by_an_answer() {
        let before_answer = vec![7, 8, 9];
        let ends = [7, 2];
        // The question ends by itself, or is too long; the answer ends by itself.
        for (question, given) in [(vec![5, 7], 3..5), (vec![5, 6, 5, 6], 5..8)] {
            let mut growing = Growing::new(&[1], Some(&before_answer));
            let mut text = vec![1];
            for token in question {
                text.push(token);
                assert_eq!(growing.before_answer, Some(&before_answer[..]));
                if let Next::Read(tokens) = growing.next(&text, 5, &ends) {
                    text.extend(tokens);
                }
            }
            assert_eq!((text.len(), growing.before_answer), (given.end, None));
            text.push(6);
            assert_eq!(growing.next(&text, 5, &ends), Next::Write);
            text.push(2);
            assert_eq!(growing.next(&text, 5, &ends), Next::End);
            let Example { tokens, loss_mask } = growing.example(text);
            let unpredicted: Vec<usize> = (0..tokens.len()).filter(|&i| !loss_mask[i]).collect();
            assert_eq!(unpredicted, std::iter::once(0).chain(given).collect::<Vec<_>>(), "{tokens:?}");
        }
    }

    #[test]
    fn a_chat_model_is_asked_through_its_template() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/arch/llama3/model.gguf");
        let base = Base::open(base).unwrap();
        let tokenizer = base.tokenizer().unwrap();
        let template = base.chat_template(&tokenizer).unwrap();
        let mut model = Transformer::new(&base).unwrap();
        let options = AnchorOptions { texts: 12, length: 128, seed: 3 };
        let prompts = Prompts::new(&model, &tokenizer, template.as_ref(), &options).unwrap();
        let anchor = prompts.write(&mut model, 1 << 24, |_, _| ());
        let words: Vec<String> = anchor.texts.iter().map(|text| tokenizer.decode(&text.tokens)).collect();
        let (plain, chats) = words.split_at(9);
        let turn = |role: &str| format!("<|im_start|>{role}\n");
        assert!(plain.iter().all(|text| !text.contains(&turn("user"))), "{plain:?}");
        for (text, example) in chats.iter().zip(&anchor.texts[9..]) {
            let answer = text.split_once(&turn("user")).unwrap().1.split_once(&turn("assistant")).unwrap().1;
            assert!(!answer.trim().is_empty(), "{text}");
            let predicted =
                example.tokens.iter().zip(&example.loss_mask).filter(|(_, predicted)| **predicted);
            let predicted: Vec<u32> = predicted.map(|(&token, _)| token).collect();
            assert!(!tokenizer.decode(&predicted).contains(&turn("assistant")), "{text}");
        }
        let (first, again) = (anchor.sha256(), Anchor { texts: anchor.texts[1..].to_vec() }.sha256());
        assert_ne!(first, again);
    }
}
