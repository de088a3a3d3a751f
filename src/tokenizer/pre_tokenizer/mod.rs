//! Splits a text into words before byte-level BPE, by the pre-tokenizer that a GGUF file names.
//!
//! The patterns are those of llama.cpp's `llama-vocab.cpp` (`tokenizer.ggml.pre`; `families`). Each is
//! applied to the pieces that the one before leaves; its matches and the gaps between them become the new
//! pieces (`pipeline`). Two kinds of patterns are written differently, with the same result in linear time. A
//! look-ahead at the end of a match becomes a rule (`split`): `\s+(?!\S)|\s+` is `\s+` with one character
//! given back to the next word. A look-ahead that narrows a class becomes a class difference. `library` turns
//! both back into look-ahead for a `tokenizer.json`.

mod families;
mod library;
mod pipeline;
mod split;

pub(crate) use library::LibraryStep;
pub(super) use pipeline::PreTokenizer;
pub(crate) use pipeline::pre_tokenizers;
