//! Texts that the model writes itself: many sequences extended at once, by sampling or greedily.

use std::ops::Range;

use ndarray::{Array2, Axis};
use rand_chacha::ChaCha20Rng;

use super::attention::SequenceRows;
use super::generate::check;
use super::lm_head::PackedHead;
use super::mixer::MixerCache;
use super::sampler::likeliest;
use super::transformer::Transformer;
use crate::Result;
use crate::kernels::Real;
use crate::kernels::random::uniform;

/// What follows a token that the model wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'t> {
    /// The model writes another token.
    Write,
    /// These tokens, which the model only reads; then it writes.
    Read(&'t [u32]),
    /// Nothing: the text is complete.
    End,
}

impl<T: Real> Transformer<'_, T> {
    /// The bytes that [`Self::write`] keeps for each text of at most `length` tokens: keys and values, or what
    /// linear attention or a convolution keeps.
    pub fn cache_bytes_per_text(&self, length: usize) -> u64 {
        self.blocks.iter().map(|block| block.cache_bytes(length)).sum()
    }

    /// The LM head packed for [`Self::write`].
    pub fn pack_head(&self) -> PackedHead<T> {
        self.head.pack()
    }

    /// The bytes of [`Self::pack_head`].
    pub fn packed_head_bytes(&self) -> u64 {
        self.head.packed_bytes::<T>()
    }

    /// Extends each of `prompts` (at least one token each) to at most `length` tokens, sampled at a
    /// temperature of 1 with the generator of its own. `next` gets the number of a text and the text, after
    /// each token that the model wrote, and says what follows. All sequences pass through the model together,
    /// a token of each at a time, which is faster with the `head` packed. `on_token` gets the number of tokens
    /// that every sequence has read.
    ///
    /// A text depends on its prompt and its generator alone, not on the others.
    ///
    /// # Panics
    /// If the numbers of prompts and generators differ.
    pub fn write<'t>(
        &self,
        prompts: &[Vec<u32>],
        (length, mut next): (usize, impl FnMut(usize, &[u32]) -> Next<'t>),
        generators: &mut [ChaCha20Rng],
        head: Option<&PackedHead<T>>,
        mut on_token: impl FnMut(usize),
    ) -> Vec<Vec<u32>> {
        assert_eq!(prompts.len(), generators.len(), "a generator for each prompt");
        let mut texts = GrowingTexts::new(self, prompts, length);
        while let Some(hidden) = texts.read() {
            let read = texts.next.end;
            let point = |&i: &usize| match texts.texts[i].len() == read {
                true => uniform(&mut generators[i]),
                false => 0.0,
            };
            let points: Vec<f64> = texts.open.iter().map(point).collect();
            let writes: Vec<bool> = texts.open.iter().map(|&i| texts.texts[i].len() == read).collect();
            texts.push(&self.head.sample(hidden.view(), &points, head));
            let mut writes = writes.into_iter();
            texts.open.retain(|&i| {
                if writes.next() == Some(false) {
                    return true;
                }
                match next(i, &texts.texts[i]) {
                    Next::Write => true,
                    Next::Read(tokens) => {
                        texts.texts[i].extend(tokens);
                        texts.texts[i].truncate(length);
                        true
                    }
                    Next::End => false,
                }
            });
            on_token(texts.next.end);
        }
        texts.texts
    }

    /// The likeliest continuation of each of `prompts` (at least one token each), without the prompt: at most
    /// `max_tokens` tokens. It ends earlier where `is_complete` accepts what is written, which is at
    /// least one token. All sequences pass through the model together, a token of each at a time.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite).
    pub fn continue_greedily(
        &self,
        prompts: &[Vec<u32>],
        max_tokens: usize,
        is_complete: impl Fn(&[u32]) -> bool,
    ) -> Result<Vec<Vec<u32>>> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let mut texts = GrowingTexts::new(self, prompts, longest + max_tokens);
        texts.close(|_, _| max_tokens == 0);
        while let Some(hidden) = texts.read() {
            let logits = self.head.logits(hidden.view());
            logits.rows().into_iter().try_for_each(check)?;
            let tokens: Vec<u32> = logits.rows().into_iter().map(|row| likeliest(row.iter())).collect();
            texts.push(&tokens);
            texts.close(|i, text| {
                let written = &text[prompts[i].len()..];
                !written.is_empty() && (written.len() == max_tokens || is_complete(written))
            });
        }
        let written =
            texts.texts.into_iter().zip(prompts).map(|(mut text, prompt)| text.split_off(prompt.len()));
        Ok(written.collect())
    }
}

/// Texts that a model extends together.
struct GrowingTexts<'m, 'a, T: Real> {
    model: &'m Transformer<'a, T>,
    texts: Vec<Vec<u32>>,
    /// The maximum length of a text, in tokens.
    length: usize,
    /// The texts that are extended, in their order.
    open: Vec<usize>,
    /// The tokens of each text that the model reads next. Where prompts differ in length, the shorter ones
    /// are extended while the longer ones are still read.
    next: Range<usize>,
    /// What each block keeps of what the texts have read; `length` rows of keys and values a text.
    caches: Vec<MixerCache<T>>,
}

impl<'m, 'a, T: Real> GrowingTexts<'m, 'a, T> {
    fn new(model: &'m Transformer<'a, T>, prompts: &[Vec<u32>], length: usize) -> Self {
        let rows = prompts.len() * length;
        let shortest = prompts.iter().map(|prompt| prompt.len()).min().unwrap_or(length);
        Self {
            model,
            texts: prompts.to_vec(),
            length,
            open: (0..prompts.len()).collect(),
            next: 0..shortest,
            caches: model.blocks.iter().map(|block| block.cache(prompts.len(), rows)).collect(),
        }
    }

    /// Reads the next tokens. Returns the normed hidden states after the last of them, `[open texts,
    /// d_model]`; `None` if no text can be extended.
    fn read(&mut self) -> Option<Array2<T>> {
        let more = !self.open.is_empty() && self.next.start < self.length.saturating_sub(1);
        more.then(|| self.read_next())
    }

    /// Appends its token to each open text whose tokens are all read.
    fn push(&mut self, tokens: &[u32]) {
        let end = self.next.end;
        for (&i, &token) in self.open.iter().zip(tokens) {
            if self.texts[i].len() == end && end < self.length {
                self.texts[i].push(token);
            }
        }
        self.next = end..end + 1;
    }

    /// Ends the texts that `is_complete` accepts; it gets the number of a text, and the text.
    fn close(&mut self, is_complete: impl Fn(usize, &[u32]) -> bool) {
        let texts = &self.texts;
        self.open.retain(|&i| !is_complete(i, &texts[i]));
    }

    /// Passes the next tokens of every open text through the model, and adds their keys and values to the
    /// caches.
    fn read_next(&mut self) -> Array2<T> {
        let (model, length, next) = (self.model, self.length, self.next.clone());
        let new = next.len();
        let tokens: Vec<u32> =
            self.open.iter().flat_map(|&i| &self.texts[i][next.clone()]).copied().collect();
        let positions: Vec<usize> = self.open.iter().flat_map(|_| next.clone()).collect();
        let sequences: Vec<SequenceRows> = (self.open.iter().enumerate())
            .map(|(row, &i)| SequenceRows {
                queries: row * new..(row + 1) * new,
                prefix: i * length..i * length + next.start,
                own: i * length + next.start..i * length + next.end,
            })
            .collect();
        let factors = model.token_factors(&tokens, &positions);
        let pass = model.pass(&sequences, &factors);
        let mut x = model.embed(&tokens, &positions);
        for (layer, block) in model.blocks.iter().enumerate() {
            let cache = &mut self.caches[block.reads_keys_of().unwrap_or(layer)];
            x = block.extend(x, cache, &self.open, &pass);
        }
        let last: Vec<usize> = sequences.iter().map(|rows| rows.queries.end - 1).collect();
        model.output_norm.forward(x.select(Axis(0), &last).view())
    }
}
