//! The anchor as a result that a cache keeps.

use curmerge_formats::SafeTensors;
use sha2::{Digest, Sha256};

use super::Anchor;
use crate::cache::{Cached, Part, numbers};

impl Cached for Anchor {
    /// A tensor `text.N` for each text.
    fn parts(&self) -> Vec<Part<'_>> {
        let texts = self.texts.iter().enumerate();
        texts.map(|(number, text)| Part::new(name(number), &[text.len()], text)).collect()
    }
}

fn name(text: usize) -> String {
    format!("text.{text}")
}

impl Anchor {
    /// The texts in a cache's file, of at most `length` tokens of a vocabulary of `vocab`. `None` if it holds
    /// others, or none.
    pub fn restore(file: &SafeTensors, length: usize, vocab: usize) -> Option<Self> {
        let text = |number| {
            let text: Vec<u32> = numbers(file, &name(number), None)?;
            let usable =
                (2..=length).contains(&text.len()) && text.iter().all(|&token| (token as usize) < vocab);
            usable.then_some(text)
        };
        let texts: Vec<_> = (0..file.tensors().len()).map(text).collect::<Option<_>>()?;
        (!texts.is_empty()).then_some(Self { texts })
    }

    /// The SHA-256 of the texts, in hexadecimal.
    pub fn sha256(&self) -> String {
        texts_sha256(&self.texts)
    }
}

/// The SHA-256 of texts: of each its length and its tokens, as little-endian u32.
pub(super) fn texts_sha256(texts: &[Vec<u32>]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        let numbers = std::iter::once(text.len() as u32).chain(text.iter().copied());
        hash.update(numbers.flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    }
    curmerge_formats::digest::hex(&hash.finalize())
}
