//! A tokenizer of the `tokenizers` crate, built from a file that may be hostile.
//!
//! The crate trusts its file: a wrong length, a token that no list declares or a replacement of 10 MB panics,
//! aborts for want of memory, or runs for hours. So the file is checked before the crate sees it. What a
//! check misses is caught as a panic and becomes an error, where the tokenizer is built and wherever it is
//! used. Long texts are cut, or refused, because the crate takes up to a hundred bytes for a byte of text.
//!
//! `model`, `pipeline`, `precompiled` and `added` check the parts of the file, `panics` of the crate catches what is left.

mod added;
mod fault;
mod model;
mod pipeline;
mod precompiled;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value as Json;
use tokenizers::tokenizer::{AddedToken, Tokenizer as Library};

use self::fault::{FETCH, Fault};
use super::error::TokenizerError;
use crate::base::json;
use crate::panics::caught;

/// What fails if it panics.
pub(super) const LIBRARY: &str = "tokenizers";

/// The longest text that the crate gets at once, in bytes, if its steps make at most [`USUAL_GROWTH`] bytes of
/// one. It takes up to 150 times as much memory.
const MAX_TEXT: usize = 1 << 21;
/// `▁` for every space and before a text makes 12 bytes of one.
const USUAL_GROWTH: usize = 16;
/// How many bytes the crate may read to find tokens with a condition on the text beside them. For each, it
/// reads the text from the start.
const MAX_READ: usize = 1 << 32;

/// A tokenizer whose file was checked, and whose panics are errors.
#[derive(Clone, Debug)]
pub(crate) struct VettedTokenizer {
    library: Library,
    /// The texts of the added tokens that depend on the text before them.
    conditional: Vec<String>,
    /// The longest text that the crate gets at once, in bytes.
    max_text: usize,
}

impl VettedTokenizer {
    /// Checks the bytes of a `tokenizer.json`, and builds what they describe. The length to which the file
    /// would cut or pad every text is dropped: it is left from a training run. Returns the parsed file, too,
    /// as far as `keep` takes it from there.
    ///
    /// # Errors
    /// The file is no JSON, is refused by a check, or cannot be built.
    pub(crate) fn from_bytes<T>(
        path: &Path,
        bytes: &[u8],
        keep: impl FnOnce(&Json) -> T,
    ) -> Result<(Self, T), TokenizerError> {
        let json: Json = json::parse(bytes).map_err(|problem| TokenizerError::file(path, problem, FETCH))?;
        let growth = check(&json).map_err(|fault| fault.of(path))?;
        let kept = keep(&json);
        // It is as large as what the crate makes of the file.
        drop(json);
        let built = caught(LIBRARY, || {
            let mut library = Library::from_bytes(bytes)?;
            library.with_padding(None);
            library.with_truncation(None)?;
            Ok::<_, tokenizers::Error>(library)
        });
        let library = built
            .and_then(|built| built.map_err(|error| error.to_string()))
            .map_err(|problem| TokenizerError::file(path, problem, FETCH))?;
        let mut vetted = VettedTokenizer {
            library,
            conditional: Vec::new(),
            max_text: MAX_TEXT * USUAL_GROWTH / growth.max(USUAL_GROWTH),
        };
        vetted.find_conditional();
        Ok((vetted, kept))
    }

    fn find_conditional(&mut self) {
        let added = self.library.get_added_tokens_decoder().into_values();
        let conditional = added.filter(|token| token.lstrip || token.single_word);
        self.conditional = conditional.map(|token| token.content).collect();
    }

    /// Adds tokens that another file of the folder names.
    ///
    /// # Errors
    /// A token that is too long, or that cannot be added.
    pub(crate) fn add_tokens(&mut self, path: &Path, tokens: Vec<AddedToken>) -> Result<(), TokenizerError> {
        let place = "added tokens";
        let checked = added::check_sizes(tokens.iter().map(|token| (place, token.content.as_str())));
        let normalized = || match self.library.get_normalizer() {
            Some(normalizer) => tokens
                .iter()
                .filter(|token| token.normalized)
                .try_for_each(|token| added::check_normalized(place, &token.content, normalizer)),
            None => Ok(()),
        };
        checked.and_then(|()| normalized()).map_err(|fault| fault.of(path))?;
        let library = &mut self.library;
        caught(LIBRARY, || library.add_tokens(tokens))
            .and_then(|added| added.map_err(|error| error.to_string()))
            .map_err(|problem| TokenizerError::file(path, problem, FETCH))?;
        self.find_conditional();
        Ok(())
    }

    /// The same tokenizer, reading special tokens as ordinary text.
    pub(crate) fn ordinary(&self) -> Self {
        let mut ordinary = self.clone();
        ordinary.library.set_encode_special_tokens(true);
        ordinary
    }

    /// The longest text that [`Self::encode`] takes, in bytes.
    pub(super) fn max_text(&self) -> usize {
        self.max_text
    }

    /// The ids of a text that is not longer than 2 MiB, with or without the tokens that the post-processor puts around it.
    ///
    /// # Errors
    /// The text is too long, or the vocabulary cannot spell it.
    pub(crate) fn encode(&self, text: &str, around: bool) -> Result<Vec<u32>, TokenizerError> {
        if text.len() > self.max_text {
            return Err(TokenizerError::LongWord { limit: self.max_text });
        }
        let found: usize = self.conditional.iter().map(|token| text.matches(token.as_str()).count()).sum();
        if found.saturating_mul(text.len()) > MAX_READ {
            let problem = format!("{found} tokens that depend on the text before them");
            return Err(TokenizerError::encode(problem));
        }
        let encoded = caught(LIBRARY, || self.library.encode_fast(text, around));
        match encoded {
            Ok(Ok(encoding)) => Ok(encoding.get_ids().to_vec()),
            Ok(Err(error)) => Err(TokenizerError::encode(error)),
            Err(problem) => Err(TokenizerError::encode(problem)),
        }
    }

    /// The text of ids; `None` if the library cannot tell.
    pub(crate) fn decode(&self, ids: &[u32]) -> Option<String> {
        caught(LIBRARY, || self.library.decode(ids, false)).ok()?.ok()
    }

    /// The id of a token.
    pub(crate) fn token_to_id(&self, token: &str) -> Option<u32> {
        self.library.token_to_id(token)
    }

    /// The token of an id.
    pub(crate) fn id_to_token(&self, id: u32) -> Option<String> {
        self.library.id_to_token(id)
    }

    /// The tokens and their ids, with or without the added ones.
    pub(crate) fn vocabulary(&self, with_added: bool) -> HashMap<String, u32> {
        self.library.get_vocab(with_added)
    }

    /// The number of tokens without the added ones.
    pub(crate) fn base_size(&self) -> usize {
        self.library.get_vocab_size(false)
    }

    /// The added tokens by id.
    pub(crate) fn added(&self) -> BTreeMap<u32, AddedToken> {
        self.library.get_added_tokens_decoder().into_iter().collect()
    }
}

/// Checks everything that the crate would trust. Returns how many bytes the steps may make of one.
fn check(json: &Json) -> Result<usize, Fault> {
    if !json.is_object() {
        return Err(Fault::new("the file", "not a JSON object"));
    }
    model::check(json)?;
    let growth = pipeline::check(json)?;
    added::check(json)?;
    Ok(growth)
}
