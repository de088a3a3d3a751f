//! The anchor as a result that a cache keeps.

use curmerge_formats::SafeTensors;
use sha2::{Digest, Sha256};

use super::Anchor;
use crate::cache::{Cached, Part, numbers};
use crate::train::data::Example;

impl Cached for Anchor {
    /// Tensors `text.N` with the tokens of each text, and `predicted.N` with 1 for each that is predicted.
    fn parts(&self) -> Vec<Part<'_>> {
        let texts = self.texts.iter().enumerate();
        let parts = texts.flat_map(|(number, text)| {
            let shape = [text.tokens.len()];
            [
                Part::new(name(TEXT, number), &shape, &text.tokens),
                Part::new(name(PREDICTED, number), &shape, &text.loss_mask),
            ]
        });
        parts.collect()
    }
}

const TEXT: &str = "text";
const PREDICTED: &str = "predicted";

fn name(kind: &str, text: usize) -> String {
    format!("{kind}.{text}")
}

impl Anchor {
    /// The texts in a cache's file, of at most `length` tokens of a vocabulary of `vocab`. `None` if it holds
    /// others, or none.
    pub fn restore(file: &SafeTensors, length: usize, vocab: usize) -> Option<Self> {
        let text = |number| {
            let tokens: Vec<u32> = numbers(file, &name(TEXT, number), None)?;
            let loss_mask: Vec<bool> = numbers(file, &name(PREDICTED, number), Some(&[tokens.len()]))?;
            let usable = tokens.len() <= length
                && tokens.iter().all(|&token| (token as usize) < vocab)
                && loss_mask.iter().skip(1).any(|&predicted| predicted);
            usable.then_some(Example { tokens, loss_mask })
        };
        let texts: Vec<_> = (0..file.tensors().len() / 2).map(text).collect::<Option<_>>()?;
        (!texts.is_empty()).then_some(Self { texts })
    }

    /// The SHA-256 of the texts and of what is predicted of them, in hexadecimal.
    pub fn sha256(&self) -> String {
        let predicted = |text: &Example| text.loss_mask.iter().map(|&predicted| predicted.into()).collect();
        lists_sha256(self.texts.iter().flat_map(|text| [text.tokens.clone(), predicted(text)]))
    }
}

/// The SHA-256 of lists: of each its length and its numbers, as little-endian u32.
pub(super) fn lists_sha256(lists: impl IntoIterator<Item = Vec<u32>>) -> String {
    let mut hash = Sha256::new();
    for list in lists {
        let numbers = std::iter::once(list.len() as u32).chain(list.iter().copied());
        hash.update(numbers.flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    }
    curmerge_formats::digest::hex(&hash.finalize())
}
