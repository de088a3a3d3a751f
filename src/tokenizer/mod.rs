//! The tokenizer of a base model: text to token ids and back, with the ids that llama.cpp gives.
//!
//! Training, evaluation and the merged model in llama.cpp must see the same tokens, or an adapter is trained for a text
//! that never comes. A GGUF file carries its tokenizer in its metadata ([`Tokenizer::from_gguf`]; the algorithms are
//! written here, after llama.cpp's), a Hugging Face folder as `tokenizer.json` ([`Tokenizer::from_hf_folder`], through
//! the `tokenizers` crate). Either may bring a chat template ([`ChatTemplate`]).
//!
//! Special tokens that stand in a text are taken as such, as llama.cpp's server does it; only [`encode_ordinary`]
//! reads their texts as any other, as its measuring programs do.
//!
//! [`encode_ordinary`]: Tokenizer::encode_ordinary

mod base;
mod bpe;
mod byte_level;
pub mod chat;
mod gguf;
mod hf;
mod merge;
mod pretokenizer;
mod special;
mod spm;
mod vocabulary;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use curmerge_formats::gguf::{Gguf, Value};

use crate::base::folder::Folder;
pub use chat::{ChatError, ChatTemplate, Conversation, Message, Variables};
pub(crate) use gguf::{AlgorithmParts, Parts};
use gguf::{GgufTokenizer, Metadata};
use hf::HfTokenizer;
pub(crate) use pretokenizer::{Cut, all as pre_tokenizers};
pub(crate) use spm::SPACE;
pub(crate) use vocabulary::{Kind, Vocabulary};

/// What can be wrong with a tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A metadata key of a GGUF file is missing, of the wrong type, or inconsistent.
    #[error("tokenizer: {key}: {problem}; {help}")]
    Key {
        /// The metadata key.
        key: String,
        /// What is wrong with it.
        problem: String,
        /// What the user can do.
        help: &'static str,
    },
    /// `tokenizer.ggml.model` names an algorithm that is not written here.
    #[error(
        "tokenizer: tokenizer.ggml.model is {name:?}, known are \"gpt2\" (byte-level BPE), \"llama\" (SentencePiece \
         BPE) and \"gemma4\"; use a base model with one of these"
    )]
    UnknownModel {
        /// The value of the key.
        name: String,
    },
    /// `tokenizer.ggml.pre` names a pre-tokenizer that is not written here.
    #[error(
        "tokenizer: tokenizer.ggml.pre is {name:?}, none of the {known} that are known; use the model's Hugging Face folder"
    )]
    UnknownPre {
        /// The value of the key.
        name: String,
        /// How many values are known.
        known: usize,
    },
    /// A file of a Hugging Face folder cannot be read, or says what cannot be.
    #[error("{}: {problem}; {help}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the place if it is known.
        problem: String,
        /// What the user can do.
        help: &'static str,
    },
    /// The tokenizer of a Hugging Face folder failed at a text.
    #[error("tokenizer: cannot encode the text: {problem}; use the model's GGUF file")]
    Encode {
        /// The `tokenizers` crate's reason.
        problem: String,
    },
    /// A token of the text is one that the model has no embedding for.
    #[error("tokenizer: the text has {text}, for which the model has no embedding; leave it out")]
    NoEmbedding {
        /// The token's text.
        text: String,
    },
    /// The chat template failed.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A conversation was to be encoded for a model that has no chat template.
    #[error("the model has no chat template; use its chat-tuned version, or plain prompts")]
    NoChatTemplate,
}

impl TokenizerError {
    fn bad(key: &str, problem: impl Into<String>, help: &'static str) -> Self {
        TokenizerError::Key { key: key.to_owned(), problem: problem.into(), help }
    }

    fn file(path: &Path, problem: impl std::fmt::Display, help: &'static str) -> Self {
        let problem = problem.to_string().replace(['\n', '\r'], " ");
        TokenizerError::File { path: path.to_owned(), problem, help }
    }
}

/// What a model says of the tokens around a text.
#[derive(Debug, Default)]
struct Settings {
    bos: Option<u32>,
    eos: Option<u32>,
    adds_bos: bool,
    adds_eos: bool,
    ends: BTreeSet<u32>,
}

/// What the texts of a model's own marks (control tokens) are where they stand in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marks {
    /// The marks.
    Tokens,
    /// Text as any other.
    Text,
}

#[derive(Debug)]
enum Source {
    Gguf(Box<GgufTokenizer>),
    Hf(Box<HfTokenizer>),
}

/// The tokenizer of one base model.
#[derive(Debug)]
pub struct Tokenizer {
    source: Source,
    settings: Settings,
    chat: Option<ChatTemplate>,
    /// Ids from here on have no row of the embedding.
    rows: usize,
}

impl Tokenizer {
    /// The tokenizer in the metadata of a GGUF file (keys `tokenizer.ggml.*`, `tokenizer.chat_template`).
    ///
    /// # Errors
    /// If a key is missing, of the wrong type or inconsistent, or names an algorithm or a pre-tokenizer that is not
    /// written here. A chat template that cannot be parsed is an error only when it is used.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        let template = gguf.get("tokenizer.chat_template").and_then(Value::as_str).map(str::to_owned);
        Self::from_metadata(Metadata::read(gguf)?, template)
    }

    fn from_metadata(metadata: Metadata, template: Option<String>) -> Result<Self, TokenizerError> {
        let (tokenizer, settings) = GgufTokenizer::new(metadata)?;
        let text =
            |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default().to_owned();
        let chat = template.map(|source| ChatTemplate::new(source, text(settings.bos), text(settings.eos)));
        Ok(Tokenizer { source: Source::Gguf(Box::new(tokenizer)), settings, chat, rows: usize::MAX })
    }

    /// The tokenizer of a Hugging Face folder: `tokenizer.json`, and what `tokenizer_config.json`,
    /// `special_tokens_map.json`, `generation_config.json`, `config.json` and `chat_template.jinja` add to it.
    ///
    /// # Errors
    /// If `tokenizer.json` is missing, or one of the files is not what it should be.
    pub fn from_hf_folder(folder: &Path) -> crate::Result<Self> {
        let (tokenizer, settings, chat) = hf::open(Folder::new(folder))?;
        Ok(Tokenizer { source: Source::Hf(Box::new(tokenizer)), settings, chat, rows: usize::MAX })
    }

    /// The same for an embedding of so many rows: a text with a token that has none is then an error. Of a folder, added
    /// tokens may have none (Gemma 3's for images, where the model does not see); `None` if others have none.
    pub(crate) fn for_embedding(self, rows: usize) -> Option<Self> {
        let beyond = u32::try_from(rows).ok()?..u32::try_from(self.vocab_size()).ok()?;
        let spared = |id: u32| match &self.source {
            Source::Gguf(_) => false,
            Source::Hf(tokenizer) => tokenizer.is_added(id) && ![self.bos(), self.eos()].contains(&Some(id)),
        };
        // More than a few are another model's vocabulary.
        let fits = beyond.len() <= 64 && beyond.into_iter().all(spared);
        fits.then_some(Tokenizer { rows, ..self })
    }

    fn within(&self, ids: Vec<u32>) -> Result<Vec<u32>, TokenizerError> {
        match ids.iter().find(|&&id| id as usize >= self.rows) {
            None => Ok(ids),
            Some(&id) => {
                let text = String::from_utf8_lossy(&self.token_bytes(id)).escape_debug().to_string();
                Err(TokenizerError::NoEmbedding { text })
            }
        }
    }

    /// The tokens of `text`. With `add_special`, BOS and EOS are put around it if the model's settings say so.
    ///
    /// # Errors
    /// If the vocabulary cannot spell the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let ids = self.encode_after(&[], text)?;
        Ok(if add_special { self.around(ids) } else { ids })
    }

    /// The tokens of `text`, in which control tokens' texts are text as any other: so llama-perplexity reads a text,
    /// and it keeps text of unknown origin from ending a turn. User-defined tokens are found as ever. `add_special` as
    /// in [`encode`](Self::encode).
    ///
    /// # Errors
    /// If the vocabulary cannot spell the text.
    pub fn encode_ordinary(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let ids = match &self.source {
            Source::Gguf(tokenizer) => tokenizer.encode_after(None, text, Marks::Text),
            Source::Hf(tokenizer) => tokenizer.encode_ordinary(text),
        }?;
        let ids = self.within(ids)?;
        Ok(if add_special { self.around(ids) } else { ids })
    }

    /// The ids with BOS and EOS around them if the model's settings say so.
    fn around(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if let (true, Some(bos)) = (self.settings.adds_bos, self.settings.bos) {
            ids.insert(0, bos);
        }
        if let (true, Some(eos)) = (self.settings.adds_eos, self.settings.eos) {
            ids.push(eos);
        }
        ids
    }

    /// The tokens of `text` where it stands behind the tokens `previous`, without BOS and EOS: SentencePiece models put
    /// a space in front of a text only at the start and behind special tokens.
    ///
    /// # Errors
    /// If the vocabulary cannot spell the text.
    pub fn encode_after(&self, previous: &[u32], text: &str) -> Result<Vec<u32>, TokenizerError> {
        let last = previous.last().copied();
        self.within(match &self.source {
            Source::Gguf(tokenizer) => tokenizer.encode_after(last, text, Marks::Tokens),
            Source::Hf(tokenizer) => tokenizer.encode_after(last, text),
        }?)
    }

    /// The tokens of a conversation that the chat template has rendered: BOS comes first if the model wants it, but
    /// never twice when the template writes it itself; no EOS is added.
    ///
    /// # Errors
    /// If the vocabulary cannot spell the text.
    pub fn encode_rendered(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.encode_after(&[], text)?;
        if let (true, Some(bos)) = (self.settings.adds_bos, self.settings.bos)
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The tokens of a conversation, through the model's chat template.
    ///
    /// # Errors
    /// If the model has no chat template, or it fails at these messages.
    pub fn encode_chat(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        let template = self.chat.as_ref().ok_or(TokenizerError::NoChatTemplate)?;
        self.encode_rendered(&template.render(messages, add_generation_prompt)?)
    }

    /// The text of `ids`. Special tokens show as their text, ids out of range as nothing, and bytes that are not UTF-8
    /// as U+FFFD; the space that a SentencePiece model puts before a text is taken off again.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes(id)).collect();
        let added = match &self.source {
            Source::Gguf(tokenizer) => tokenizer.begins_with_added_space(ids),
            Source::Hf(tokenizer) => tokenizer.begins_with_added_space(ids),
        };
        let bytes = if added { bytes.strip_prefix(b" ").unwrap_or(&bytes) } else { &bytes };
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// The bytes that one token stands for, perhaps a part of a UTF-8 character; empty for an id out of range.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.token_bytes(id),
            Source::Hf(tokenizer) => tokenizer.token_bytes(id),
        }
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.settings.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.settings.eos
    }

    /// Whether a generation ends at this token: EOS, or any end of a turn or text that the vocabulary has.
    pub fn is_end(&self, id: u32) -> bool {
        self.settings.ends.contains(&id)
    }

    /// Whether the model's settings put BOS in front of a text.
    pub fn adds_bos(&self) -> bool {
        self.settings.adds_bos && self.settings.bos.is_some()
    }

    /// Whether the model's settings put EOS behind a text.
    pub fn adds_eos(&self) -> bool {
        self.settings.adds_eos && self.settings.eos.is_some()
    }

    /// How many tokens the vocabulary has; every id that [`encode`](Self::encode) returns lies below it.
    pub fn vocab_size(&self) -> usize {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.len(),
            Source::Hf(tokenizer) => tokenizer.len(),
        }
    }

    /// A GGUF file's tokenizer taken apart; `None` of a folder's.
    pub(crate) fn parts(&self) -> Option<Parts<'_>> {
        match &self.source {
            Source::Gguf(tokenizer) => Some(tokenizer.parts()),
            Source::Hf(_) => None,
        }
    }

    /// The model's chat template, if it has one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat.as_ref()
    }
}

#[cfg(test)]
pub(crate) mod tests;
