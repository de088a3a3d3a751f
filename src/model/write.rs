//! Texts that the model writes itself: many sequences sampled at once.

use std::ops::Range;

use ndarray::{Array2, Axis, s};
use rand_chacha::ChaCha20Rng;

use super::attention::{self, SequenceRows};
use super::lm_head::PackedHead;
use super::transformer::Transformer;
use crate::kernels::Real;
use crate::kernels::random::uniform;

/// The keys or values of all sequences in one block, `[sequences * length, kv_heads * head_dim]`: a
/// sequence has `length` rows in a row.
type Cache<T> = Array2<T>;

impl<T: Real> Transformer<'_, T> {
    /// Bytes of keys and values for each token of each text in [`Self::write`].
    pub fn kv_cache_bytes_per_token(&self) -> u64 {
        let width = self.config.kv_heads * self.config.head_dim;
        (2 * self.blocks.len() * width * size_of::<T>()) as u64
    }

    /// The LM head packed for [`Self::write`].
    pub fn pack_head(&self) -> PackedHead<T> {
        self.head.pack()
    }

    /// The bytes of [`Self::pack_head`].
    pub fn packed_head_bytes(&self) -> u64 {
        self.head.packed_bytes::<T>()
    }

    /// Extends each of `prompts` (at least one token each) to `length` tokens, sampled at a
    /// temperature of 1 with the generator of its own. All sequences pass through the model together, a
    /// token of each at a time, which is faster with the `head` packed. `on_token` gets the number of tokens that every sequence has.
    ///
    /// A text depends on its prompt and its generator alone, not on the others.
    ///
    /// # Panics
    /// If the numbers of prompts and generators differ.
    pub fn write(
        &self,
        prompts: &[Vec<u32>],
        length: usize,
        generators: &mut [ChaCha20Rng],
        head: Option<&PackedHead<T>>,
        mut on_token: impl FnMut(usize),
    ) -> Vec<Vec<u32>> {
        assert_eq!(prompts.len(), generators.len(), "a generator for each prompt");
        let width = self.config.kv_heads * self.config.head_dim;
        let cache = || Array2::zeros((prompts.len() * length, width));
        let mut caches: Vec<[Cache<T>; 2]> = self.blocks.iter().map(|_| [cache(), cache()]).collect();
        let mut texts: Vec<Vec<u32>> = prompts.to_vec();
        let shortest = prompts.iter().map(|prompt| prompt.len()).min().unwrap_or(length);
        // Where prompts differ in length, the shorter ones begin to write while the longer ones
        // are still read.
        let mut read = 0..shortest;
        while read.start < length.saturating_sub(1) {
            let hidden = self.read_all(&texts, read.clone(), length, &mut caches);
            let points: Vec<f64> = generators
                .iter_mut()
                .zip(&texts)
                .map(|(generator, text)| if text.len() == read.end { uniform(generator) } else { 0.0 })
                .collect();
            let sampled = self.head.sample(hidden.view(), &points, head);
            for (text, token) in texts.iter_mut().zip(sampled) {
                if text.len() == read.end && text.len() < length {
                    text.push(token);
                }
            }
            read = read.end..read.end + 1;
            on_token(read.end);
        }
        texts
    }

    /// Passes these tokens of every sequence through the model, adds their keys and values to the
    /// caches, and returns the normed hidden states after the last of them, `[sequences, d_model]`.
    fn read_all(
        &self,
        texts: &[Vec<u32>],
        read: Range<usize>,
        length: usize,
        caches: &mut [[Cache<T>; 2]],
    ) -> Array2<T> {
        let new = read.len();
        let tokens: Vec<u32> = texts.iter().flat_map(|text| &text[read.clone()]).copied().collect();
        let positions: Vec<usize> = texts.iter().flat_map(|_| read.clone()).collect();
        let sequences: Vec<SequenceRows> = (0..texts.len())
            .map(|i| SequenceRows {
                queries: i * new..(i + 1) * new,
                prefix: i * length..i * length + read.start,
                own: i * length + read.start..i * length + read.end,
            })
            .collect();
        let keys: Vec<Range<usize>> = sequences.iter().map(|rows| rows.prefix.start..rows.own.end).collect();
        let cos_sin = self.cos_sin(&positions);
        let mut x = self.embed(&tokens, &positions);
        for (block, [k, v]) in self.blocks.iter().zip(caches) {
            let p = block.project(x.view(), &self.ropes, &cos_sin);
            for (cache, rows) in [(&mut *k, &p.k), (&mut *v, &p.v)] {
                for (sequence, rows) in sequences.iter().zip(rows.axis_chunks_iter(Axis(0), new)) {
                    cache.slice_mut(s![sequence.own.clone(), ..]).assign(&rows);
                }
            }
            let config = block.attention_config(self.attention_config());
            let (q, k, v) = (p.q.view(), k.view(), v.view());
            let attended = match new {
                1 => attention::decode(q, k, v, &keys, config),
                _ => attention::forward(q, k, v, &sequences, config).0,
            };
            x = block.finish(x, attended.view());
        }
        let last: Vec<usize> = sequences.iter().map(|rows| rows.queries.end - 1).collect();
        self.output_norm.forward(x.select(Axis(0), &last).view())
    }
}
