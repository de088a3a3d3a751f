//! The tokenizer of one base model, from either source.

use std::path::Path;

use curmerge_formats::gguf::Gguf;

use super::error::TokenizerError;
use super::gguf::GgufTokenizer;
use super::hugging_face::{self, HfTokenizer};
use super::metadata::Metadata;
use super::parts::TokenizerParts;
use super::special_tokens::SpecialTokens;
use crate::base::folder::Folder;

#[derive(Debug)]
enum Source {
    Gguf(Box<GgufTokenizer>),
    HuggingFace(Box<HfTokenizer>),
}

/// The tokenizer of one base model.
#[derive(Debug)]
pub struct Tokenizer {
    source: Source,
    special: SpecialTokens,
    /// Rows of the embedding: a token with a greater or equal id cannot be used.
    embedding_rows: usize,
}

impl Tokenizer {
    /// The tokenizer in the metadata of a GGUF file (keys `tokenizer.ggml.*`).
    ///
    /// # Errors
    /// If a key is missing, of the wrong type or inconsistent, or names an algorithm or a pre-tokenizer that
    /// curmerge does not implement.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        Self::from_metadata(Metadata::read(gguf)?)
    }

    pub(super) fn from_metadata(metadata: Metadata) -> Result<Self, TokenizerError> {
        let (tokenizer, special) = GgufTokenizer::new(metadata)?;
        Ok(Tokenizer { source: Source::Gguf(Box::new(tokenizer)), special, embedding_rows: usize::MAX })
    }

    /// The tokenizer of a Hugging Face folder: `tokenizer.json`, with the roles of tokens that
    /// `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json` and `config.json` name.
    ///
    /// # Errors
    /// If `tokenizer.json` is missing, or the content of one of the files is invalid.
    pub fn from_hf_folder(folder: &Path) -> crate::Result<Self> {
        let (tokenizer, special) = hugging_face::open(Folder::new(folder))?;
        Ok(Tokenizer {
            source: Source::HuggingFace(Box::new(tokenizer)),
            special,
            embedding_rows: usize::MAX,
        })
    }

    /// The same tokenizer for an embedding of `rows` rows: encoding a text fails at a token beyond them. In a
    /// folder, added tokens may lie beyond (Gemma 3's image tokens in a text-only model). `None` if other
    /// tokens do.
    pub(super) fn with_embedding_rows(self, rows: usize) -> Option<Self> {
        let beyond = u32::try_from(rows).ok()?..u32::try_from(self.vocab_size()).ok()?;
        let may_be_missing = |id: u32| match &self.source {
            Source::Gguf(_) => false,
            Source::HuggingFace(tokenizer) => {
                tokenizer.is_added(id) && ![self.bos(), self.eos()].contains(&Some(id))
            }
        };
        // More than a few belong to another model's vocabulary.
        let fits = beyond.len() <= 64 && beyond.into_iter().all(may_be_missing);
        fits.then_some(Tokenizer { embedding_rows: rows, ..self })
    }

    fn check_embedded(&self, ids: Vec<u32>) -> Result<Vec<u32>, TokenizerError> {
        match ids.iter().find(|&&id| id as usize >= self.embedding_rows) {
            None => Ok(ids),
            Some(&id) => {
                let text = String::from_utf8_lossy(&self.token_bytes(id)).escape_debug().to_string();
                Err(TokenizerError::NoEmbedding { text })
            }
        }
    }

    /// The tokens of `text`. With `add_special`, BOS and EOS are added if the model's settings say so.
    ///
    /// # Errors
    /// If the vocabulary cannot spell the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let ids = self.encode_after(&[], text)?;
        Ok(if add_special { self.special.around(ids) } else { ids })
    }

    /// The tokens of `text`, with the texts of control tokens encoded as ordinary text. llama-perplexity
    /// reads a text this way, and a text of unknown origin cannot end a turn. User-defined tokens are still
    /// parsed. `add_special` as in [`encode`](Self::encode).
    ///
    /// # Errors
    /// If the vocabulary cannot spell the text.
    pub fn encode_ordinary(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let ids = match &self.source {
            Source::Gguf(tokenizer) => tokenizer.encode_after(None, text, false),
            Source::HuggingFace(tokenizer) => tokenizer.encode_ordinary(text),
        }?;
        let ids = self.check_embedded(ids)?;
        Ok(if add_special { self.special.around(ids) } else { ids })
    }

    /// The tokens of `text` where it follows the tokens `previous`, without BOS and EOS. SentencePiece models
    /// put a space before a text only at the start and after special tokens.
    ///
    /// # Errors
    /// If the vocabulary cannot spell the text.
    pub fn encode_after(&self, previous: &[u32], text: &str) -> Result<Vec<u32>, TokenizerError> {
        let last = previous.last().copied();
        self.check_embedded(match &self.source {
            Source::Gguf(tokenizer) => tokenizer.encode_after(last, text, true),
            Source::HuggingFace(tokenizer) => tokenizer.encode_after(last, text),
        }?)
    }

    /// The tokens of a text from its start. BOS is added if the model's settings say so, but not a second time
    /// if the text begins with it, as many a chat template writes it. EOS is not added.
    ///
    /// # Errors
    /// If the vocabulary cannot spell the text.
    pub fn encode_with_bos(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.special.after_bos(self.encode_after(&[], text)?))
    }

    /// The text of `ids`. Special tokens show as their text, ids out of range as nothing, and invalid UTF-8
    /// as U+FFFD. The space that a SentencePiece model adds before a text is removed.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes(id)).collect();
        let added = ids.first().is_some_and(|&first| self.adds_space_before(first));
        let bytes = if added { bytes.strip_prefix(b" ").unwrap_or(&bytes) } else { &bytes };
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Whether the tokenizer added the space that a text with this first token begins with.
    pub(super) fn adds_space_before(&self, first: u32) -> bool {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.adds_space_before(first),
            Source::HuggingFace(tokenizer) => tokenizer.adds_space_before(first),
        }
    }

    /// The bytes of one token, which may be part of a UTF-8 character; empty for an id out of range.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.token_bytes(id),
            Source::HuggingFace(tokenizer) => tokenizer.token_bytes(id),
        }
    }

    /// How the vocabulary spells a token (a space may be `Ġ` or `▁`); `None` for an id out of range.
    pub fn token_text(&self, id: u32) -> Option<String> {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.token_text(id).map(str::to_owned),
            Source::HuggingFace(tokenizer) => tokenizer.token_text(id),
        }
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// Whether generation stops at this token: EOS, or any other end of a turn or text in the vocabulary.
    pub fn is_end(&self, id: u32) -> bool {
        self.special.end_of_generation.contains(&id)
    }

    /// Where the special token begins whose text is around this byte of `text`; `at` itself if none is.
    ///
    /// # Errors
    /// If the vocabulary cannot spell the text.
    pub fn start_of_special(&self, text: &str, at: usize) -> Result<usize, TokenizerError> {
        let mut end = 0;
        for id in self.encode(text, false)?.into_iter().filter(|&id| self.is_special(id)) {
            let token = String::from_utf8_lossy(&self.token_bytes(id)).into_owned();
            let Some(start) = text[end..].find(&token) else { continue };
            let start = end + start;
            end = start + token.len();
            if end > at {
                return Ok(start.min(at));
            }
        }
        Ok(at)
    }

    /// Whether a text is searched for this token before all others.
    fn is_special(&self, id: u32) -> bool {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.is_special(id),
            Source::HuggingFace(tokenizer) => tokenizer.is_added(id),
        }
    }

    /// Whether the model's settings add BOS before a text.
    pub fn adds_bos(&self) -> bool {
        self.special.added_bos().is_some()
    }

    /// Whether the model's settings add EOS after a text.
    pub fn adds_eos(&self) -> bool {
        self.special.added_eos().is_some()
    }

    /// How many tokens the vocabulary has; every id that [`encode`](Self::encode) returns is less.
    pub fn vocab_size(&self) -> usize {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.len(),
            Source::HuggingFace(tokenizer) => tokenizer.len(),
        }
    }

    /// The parts of a GGUF file's tokenizer; `None` for a folder's.
    pub(crate) fn parts(&self) -> Option<TokenizerParts<'_>> {
        match &self.source {
            Source::Gguf(tokenizer) => Some(tokenizer.parts()),
            Source::HuggingFace(_) => None,
        }
    }
}
