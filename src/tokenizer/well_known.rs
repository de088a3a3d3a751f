//! Special tokens recognized by their texts: which end a generation, and which have another type than the
//! file says.
//!
//! Converters have marked some of them as ordinary text by mistake. llama.cpp corrects that by the lists of
//! texts in `llama-vocab.cpp`; this file follows it.

use std::collections::BTreeSet;

use super::token_type::TokenType;

/// Texts that end a generation in every vocabulary that has them.
const END_OF_GENERATION: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Padding, repository and file markers of code models, which also end a generation: the GGUF key of each and
/// the texts with its meaning. Unless the file sets the key, llama.cpp takes one token of each group.
const FILL_IN_MIDDLE_ENDS: [(&str, &[&str]); 3] = [
    ("tokenizer.ggml.fim_pad_token_id", &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    (
        "tokenizer.ggml.fim_rep_token_id",
        &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
    ),
    ("tokenizer.ggml.fim_sep_token_id", &["<|file_sep|>"]),
];

/// Markers of code models around the text to fill in; they do not end a generation.
const FILL_IN_MIDDLE_MARKERS: [&str; 24] = [
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];

/// Markers of the harmony format, which llama.cpp treats as user-defined tokens.
const HARMONY_MARKERS: [&str; 4] = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// The tokens whose types llama.cpp corrects, in the order in which the corrections apply: a later one
/// overrides an earlier one. `id` looks up a token by its text.
pub(super) fn corrected_types(id: impl Fn(&str) -> Option<u32>) -> Vec<(u32, TokenType)> {
    let fill_in = FILL_IN_MIDDLE_ENDS.iter().flat_map(|(_, group)| group.iter());
    let control = END_OF_GENERATION.iter().chain(fill_in).chain(&FILL_IN_MIDDLE_MARKERS);
    let control = control.filter_map(|text| id(text)).map(|id| (id, TokenType::Control));
    let harmony = HARMONY_MARKERS.iter().filter_map(|text| id(text)).chain(end_of_message(&id));
    let harmony = harmony.map(|id| (id, TokenType::UserDefined));
    let ordinary = ordinary_end(&id).map(|id| (id, TokenType::Normal));
    control.chain(harmony).chain(ordinary).collect()
}

/// The tokens that end a generation, as llama.cpp determines them: `named` (the end tokens that the file
/// names) and those recognized by their text. `id` looks up a token by its text, `key` the token of a GGUF
/// key.
pub(super) fn end_of_generation(
    named: impl IntoIterator<Item = u32>,
    id: impl Fn(&str) -> Option<u32>,
    key: impl Fn(&str) -> Option<u32>,
) -> BTreeSet<u32> {
    let mut ends: BTreeSet<u32> = END_OF_GENERATION.iter().filter_map(|text| id(text)).collect();
    for (name, texts) in FILL_IN_MIDDLE_ENDS {
        let by_text = || texts.iter().filter_map(|text| id(text)).min();
        ends.extend(key(name).or_else(by_text));
    }
    ends.extend(named);
    for id in [end_of_message(&id), ordinary_end(&id)].into_iter().flatten() {
        ends.remove(&id);
    }
    ends
}

/// `<|end|>` in vocabularies where it closes one of several messages and not the answer, as in the harmony
/// format.
fn end_of_message(id: impl Fn(&str) -> Option<u32>) -> Option<u32> {
    let has = |text: &str| id(text).is_some();
    let calls = has("<|call|>") || has("<|calls|>");
    id("<|end|>").filter(|_| calls && (has("<|return|>") || has("<|flush|>")))
}

/// `</s>` in vocabularies where it is ordinary text: Gemma 4 and PLaMo have other end tokens.
fn ordinary_end(id: impl Fn(&str) -> Option<u32>) -> Option<u32> {
    id("</s>").filter(|_| id("<|tool_response>").is_some() || id("<|plamo:eos|>").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_come_from_texts_and_keys_except_in_harmony() {
        let texts = ["<|end|>", "<|return|>", "<|call|>", "</s>", "z"];
        let id = |text: &str| texts.iter().position(|t| *t == text).map(|id| id as u32);
        let ends = end_of_generation([4], id, |_| None);
        assert_eq!(ends.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
    }
}
