//! The keys of a GGUF file that describe its tokenizer.

use curmerge_formats::gguf::{Gguf, Value};

use super::error::TokenizerError;

/// The tokenizer's keys, with the right types but not otherwise checked. Absent arrays are empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata {
    /// `tokenizer.ggml.model`.
    pub(super) model: String,
    /// `tokenizer.ggml.pre`.
    pub(super) pre: Option<String>,
    /// `tokenizer.ggml.tokens`.
    pub(super) tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`.
    pub(super) types: Vec<i32>,
    /// `tokenizer.ggml.scores`.
    pub(super) scores: Vec<f32>,
    /// `tokenizer.ggml.merges`.
    pub(super) merges: Option<Vec<String>>,
    /// `tokenizer.ggml.add_bos_token`.
    pub(super) add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub(super) add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub(super) add_space_prefix: Option<bool>,
    /// The keys that end in `_token_id`, with their values.
    pub(super) token_ids: Vec<(&'static str, u64)>,
    /// `general.name`, by which llama.cpp recognizes Phi-3.
    pub(super) name: String,
}

/// The key of the token that begins a text.
pub(super) const BOS: &str = "tokenizer.ggml.bos_token_id";
/// The key of the token that ends a text.
pub(super) const EOS: &str = "tokenizer.ggml.eos_token_id";
/// The key of the token for text that the vocabulary cannot spell.
pub(super) const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
/// The key of the token that ends a turn.
pub(super) const END_OF_TURN: &str = "tokenizer.ggml.eot_token_id";
/// The key of the token that ends a message within a turn.
pub(super) const END_OF_MESSAGE: &str = "tokenizer.ggml.eom_token_id";
const TOKEN_IDS: [&str; 8] = [
    BOS,
    EOS,
    UNKNOWN,
    END_OF_TURN,
    END_OF_MESSAGE,
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];

impl Metadata {
    /// Reads the keys.
    ///
    /// # Errors
    /// If a required key is missing, or a key has the wrong type.
    pub(super) fn read(gguf: &Gguf) -> Result<Self, TokenizerError> {
        let tokens = "tokenizer.ggml.tokens";
        let missing = |key: &str| {
            TokenizerError::key(key, "is missing", "the file has no tokenizer: convert the model with one")
        };
        Ok(Metadata {
            model: text(gguf, "tokenizer.ggml.model")?.ok_or_else(|| missing("tokenizer.ggml.model"))?,
            pre: text(gguf, "tokenizer.ggml.pre")?,
            tokens: strings(gguf, tokens)?.ok_or_else(|| missing(tokens))?,
            types: typed(gguf, "tokenizer.ggml.token_type", "i32 values", Value::as_i32s)?
                .unwrap_or_default(),
            scores: typed(gguf, "tokenizer.ggml.scores", "f32 values", Value::as_f32s)?.unwrap_or_default(),
            merges: strings(gguf, "tokenizer.ggml.merges")?,
            add_bos: flag(gguf, "tokenizer.ggml.add_bos_token")?,
            add_eos: flag(gguf, "tokenizer.ggml.add_eos_token")?,
            add_space_prefix: flag(gguf, "tokenizer.ggml.add_space_prefix")?,
            token_ids: TOKEN_IDS
                .iter()
                .filter_map(|&key| {
                    typed(gguf, key, "a token id", Value::as_u64).map(|id| id.map(|id| (key, id))).transpose()
                })
                .collect::<Result<_, _>>()?,
            name: gguf.get("general.name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        })
    }

    /// The token that `key` names. Without the key, it is `llama_default` if the model is "llama" and has
    /// that token. `count` is the number of tokens.
    ///
    /// # Errors
    /// If the key names an id out of range.
    pub(super) fn token_id(
        &self,
        key: &str,
        llama_default: Option<u32>,
        count: usize,
    ) -> Result<Option<u32>, TokenizerError> {
        match self.token_ids.iter().find(|(name, _)| *name == key) {
            None => Ok(llama_default.filter(|&id| self.model == "llama" && (id as usize) < count)),
            Some(&(_, id)) => match u32::try_from(id) {
                Ok(id) if (id as usize) < count => Ok(Some(id)),
                _ => Err(TokenizerError::key(
                    key,
                    format!("is {id}, but there are {count} tokens"),
                    "the file is damaged: fetch or convert it again",
                )),
            },
        }
    }
}

fn typed<T>(
    gguf: &Gguf,
    key: &str,
    wanted: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, TokenizerError> {
    let Some(value) = gguf.get(key) else { return Ok(None) };
    match read(value) {
        Some(value) => Ok(Some(value)),
        None => Err(TokenizerError::key(
            key,
            format!("does not hold {wanted}"),
            "the file is damaged: fetch or convert it again",
        )),
    }
}

fn text(gguf: &Gguf, key: &str) -> Result<Option<String>, TokenizerError> {
    typed(gguf, key, "a string", |v| v.as_str().map(str::to_owned))
}

fn strings(gguf: &Gguf, key: &str) -> Result<Option<Vec<String>>, TokenizerError> {
    typed(gguf, key, "strings", |v| v.as_strings().map(<[String]>::to_vec))
}

fn flag(gguf: &Gguf, key: &str) -> Result<Option<bool>, TokenizerError> {
    typed(gguf, key, "true or false", Value::as_bool)
}
