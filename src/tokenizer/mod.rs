//! Texts to token ids and back, with the ids that llama.cpp gives.
//!
//! Training, evaluation and the merged model in llama.cpp must see the same tokens: otherwise an adapter is
//! trained on a text that inference never produces. A GGUF file carries its tokenizer in its metadata
//! ([`Tokenizer::from_gguf`]); its algorithms are reimplemented here after llama.cpp. A Hugging Face folder
//! carries `tokenizer.json` ([`Tokenizer::from_hf_folder`]), which the `tokenizers` crate runs.
//! [`Base::tokenizer`](crate::base::Base::tokenizer) takes whichever the model has.
//!
//! Special tokens within a text are parsed as tokens, as llama.cpp's server does. Only
//! [`Tokenizer::encode_ordinary`] reads them as plain text, as llama.cpp's measuring programs do.
//!
//! The files, from the top: [`Tokenizer`] (`codec`) is one of two sources, `gguf` and `hugging_face`. `gguf`
//! reads `metadata`, cuts special tokens out of the text (`special_token_splitter`) and encodes the rest by
//! `bpe` (merges) or `sentencepiece` (scores), which share the loop of `merge` and the `vocabulary`. `joints`
//! says where it may cut a long text. `hugging_face` runs the crate through `vetted`, which refuses files that
//! would make it fail, and `long_text`, which cuts.

mod base;
mod bpe;
mod byte_level;
mod codec;
mod error;
mod gguf;
mod hugging_face;
mod joints;
mod long_text;
mod merge;
mod metadata;
mod metaspace;
mod parts;
mod pre_tokenizer;
mod sentencepiece;
mod special_token_splitter;
mod special_tokens;
mod stream;
mod token_type;
mod vetted;
mod vocabulary;
mod well_known;

pub use codec::Tokenizer;
pub use error::TokenizerError;
pub(crate) use metaspace::METASPACE;
pub(crate) use parts::{Algorithm, TokenizerParts};
pub(crate) use pre_tokenizer::{LibraryStep, pre_tokenizers};
pub use stream::TextStream;
pub(crate) use token_type::TokenType;
pub(crate) use vetted::VettedTokenizer;
pub(crate) use vocabulary::Vocabulary;

#[cfg(test)]
pub(crate) mod tests;
