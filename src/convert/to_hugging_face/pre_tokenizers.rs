//! The pre-tokenizer, which splits a text into words, as steps of a `tokenizer.json`.
//!
//! The steps follow from the stages of curmerge's own pre-tokenizer, which are llama.cpp's. Even if llama.cpp
//! differs from the model's original tokenizer, the folder gives the same tokens as the GGUF file.

use serde_json::{Value as Json, json};

use crate::tokenizer::LibraryStep;

/// The `pre_tokenizer` of byte-level models. `ByteLevel` spells bytes as characters, so it comes last.
pub(super) fn byte_level(cuts: &[LibraryStep]) -> Json {
    let (mut steps, last) = match cuts {
        [before @ .., LibraryStep::Gpt2Words] => {
            (before.iter().map(step).collect::<Vec<_>>(), spelling(true))
        }
        _ => (cuts.iter().map(step).collect(), spelling(false)),
    };
    if steps.is_empty() {
        return last;
    }
    steps.push(last);
    json!({ "type": "Sequence", "pretokenizers": steps })
}

/// The `pre_tokenizer` of models whose tokens are characters.
pub(super) fn characters(cuts: &[LibraryStep]) -> Json {
    json!({ "type": "Sequence", "pretokenizers": cuts.iter().map(step).collect::<Vec<_>>() })
}

fn step(cut: &LibraryStep) -> Json {
    match cut {
        LibraryStep::Gpt2Words => split(GPT2_WORDS),
        LibraryStep::Digits => json!({ "type": "Digits", "individual_digits": true }),
        LibraryStep::Pattern(pattern) => split(pattern),
    }
}

/// The pattern that `ByteLevel` has built in, for pipelines in which it is not the last step.
const GPT2_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

fn split(pattern: &str) -> Json {
    json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false })
}

/// Bytes spelled as characters; `words` says whether the step also splits GPT-2's words.
pub(super) fn spelling(words: bool) -> Json {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": words })
}
