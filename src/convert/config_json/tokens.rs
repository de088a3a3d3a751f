//! The special tokens that config.json and generation_config.json name.

use std::path::Path;

use curmerge_formats::gguf::Gguf;

use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// The special tokens of a model, by id.
#[derive(Debug, Default)]
pub(in crate::convert) struct Tokens {
    pub(in crate::convert) bos: Option<u32>,
    pub(in crate::convert) eos: Option<u32>,
    pub(in crate::convert) pad: Option<u32>,
    pub(in crate::convert) unknown: Option<u32>,
    pub(in crate::convert) mask: Option<u32>,
    /// Every token that ends a text or a turn, [`Self::eos`] first.
    pub(super) ends: Vec<u32>,
}

impl Tokens {
    /// These tokens; the first of `ends` ends a text.
    pub(in crate::convert) fn named(bos: Option<u32>, pad: Option<u32>, ends: Vec<u32>) -> Self {
        Tokens { bos, eos: ends.first().copied(), pad, unknown: None, mask: None, ends }
    }

    /// Those of a GGUF file.
    ///
    /// # Errors
    /// An id that no token has.
    pub(in crate::convert) fn of_gguf(path: &Path, gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Self> {
        let count = tokenizer.vocab_size();
        let id = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let Some(value) = gguf.get(&key) else { return Ok(None) };
            match value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| (id as usize) < count) {
                Some(id) => Ok(Some(id)),
                None => {
                    let problem = format!("not the id of one of its {count} tokens");
                    Err(Error::input(path, key, problem, "the file is damaged: fetch or convert it again"))
                }
            }
        };
        let (bos, eos) = (tokenizer.bos(), tokenizer.eos());
        let mut ends: Vec<u32> = Vec::new();
        for end in [eos, id("eot")?, id("eom")?].into_iter().flatten() {
            if !ends.contains(&end) {
                ends.push(end);
            }
        }
        Ok(Tokens { bos, eos, pad: id("padding")?, unknown: id("unknown")?, mask: id("mask")?, ends })
    }
}
