//! The token list of a GGUF file: texts, kinds and scores, and what follows from a token's text.

use std::collections::{BTreeSet, HashMap};

use super::TokenizerError;

/// What a token is for, after `tokenizer.ggml.token_type` of the GGUF specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A piece of ordinary text (1), or of a type the specification does not name.
    Normal,
    /// Stands for text the vocabulary cannot spell (2).
    Unknown,
    /// A mark of the model's own, such as the end of a turn (3).
    Control,
    /// Text that is one token wherever it occurs (4).
    UserDefined,
    /// One byte, written `<0xAB>` (6).
    Byte,
}

impl Kind {
    fn from_gguf(code: i32) -> Self {
        match code {
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            6 => Kind::Byte,
            _ => Kind::Normal,
        }
    }

    /// Whether the token is found in raw text before anything else looks at it.
    pub(crate) fn is_special(self) -> bool {
        self.is_mark() || self == Kind::UserDefined
    }

    /// Whether the token's text is ordinary text where marks are not looked for.
    pub(super) fn is_mark(self) -> bool {
        matches!(self, Kind::Unknown | Kind::Control)
    }
}

/// Texts that end a generation wherever a vocabulary has them: the list of llama.cpp's `llama-vocab.cpp`.
const END_TEXTS: [&str; 22] = [
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

/// Padding, repository and file marks of code models, which end a generation too: groups of equal meaning, of each of
/// which llama.cpp takes one (unless the file names it by key).
const FILL_IN_TEXTS: [(&str, &[&str]); 3] = [
    ("tokenizer.ggml.fim_pad_token_id", &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    (
        "tokenizer.ggml.fim_rep_token_id",
        &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
    ),
    ("tokenizer.ggml.fim_sep_token_id", &["<|file_sep|>"]),
];

/// Marks of code models around what is to be filled in; they end nothing.
const GAP_TEXTS: [&str; 24] = [
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

/// Marks of the harmony format, which llama.cpp takes wherever they stand.
const HARMONY_TEXTS: [&str; 4] = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// The tokens of a GGUF file.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    texts: Vec<String>,
    kinds: Vec<Kind>,
    scores: Vec<f32>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// Takes the arrays as the file has them; `types` and `scores` may be empty, else they are as long as `texts`.
    pub(super) fn new(
        mut texts: Vec<String>,
        types: &[i32],
        mut scores: Vec<f32>,
    ) -> Result<Self, TokenizerError> {
        let count = texts.len();
        let short = |key: &str, len: usize| {
            TokenizerError::bad(
                key,
                format!("has {len} entries for {count} tokens"),
                "the file is damaged: fetch or convert it again",
            )
        };
        if count == 0 || u32::try_from(count).is_err() {
            return Err(TokenizerError::bad(
                "tokenizer.ggml.tokens",
                format!("has {count} tokens"),
                "the file has no usable vocabulary: fetch or convert it again",
            ));
        }
        if !types.is_empty() && types.len() < count {
            return Err(short("tokenizer.ggml.token_type", types.len()));
        }
        if !scores.is_empty() && scores.len() < count {
            return Err(short("tokenizer.ggml.scores", scores.len()));
        }
        scores.resize(count, 0.0);
        let mut kinds: Vec<Kind> =
            (0..count).map(|i| types.get(i).map_or(Kind::Normal, |&t| Kind::from_gguf(t))).collect();

        let mut ids = HashMap::with_capacity(count);
        for (i, text) in texts.iter_mut().enumerate() {
            if text.is_empty() {
                *text = format!("[EMPTY_{i}]");
            }
            if let Some(first) = ids.insert(text.clone(), i as u32) {
                return Err(TokenizerError::bad(
                    "tokenizer.ggml.tokens",
                    format!("token {:?} has the ids {first} and {i}", shortened(text)),
                    "the file is damaged: fetch or convert it again",
                ));
            }
        }
        // Converters have marked these as ordinary text by mistake; llama.cpp mends that, and so must we.
        let fill_in = FILL_IN_TEXTS.iter().flat_map(|(_, group)| group.iter());
        let id = |text: &str| ids.get(text).copied();
        for id in END_TEXTS.iter().chain(fill_in).chain(&GAP_TEXTS).filter_map(|text| id(text)) {
            kinds[id as usize] = Kind::Control;
        }
        for id in HARMONY_TEXTS.iter().filter_map(|text| id(text)) {
            kinds[id as usize] = Kind::UserDefined;
        }
        if let Some(end) = end_of_message(id) {
            kinds[end as usize] = Kind::UserDefined;
        }
        if let Some(end) = ordinary_end(id) {
            kinds[end as usize] = Kind::Normal;
        }
        Ok(Vocabulary { texts, kinds, scores, ids })
    }

    /// How many tokens there are; ids lie below it.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The id of the token that is spelled so.
    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// How the vocabulary spells a token.
    pub(crate) fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(id as usize).map(String::as_str)
    }

    /// What a token is for; an id out of range is ordinary.
    pub(crate) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Normal)
    }

    /// The score of a token, greater joined first; 0 for an id out of range.
    pub(crate) fn score(&self, id: u32) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    /// The ids and texts that are looked for in raw text before anything else looks at it.
    pub(crate) fn specials(&self) -> impl Iterator<Item = (u32, &str)> {
        (0u32..)
            .zip(&self.texts)
            .filter(|(id, _)| self.kind(*id).is_special())
            .map(|(id, t)| (id, t.as_str()))
    }
}

/// How a vocabulary with fallback to bytes writes a byte.
pub(super) fn byte_token(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

/// The tokens that end a generation, as llama.cpp finds them: those of `named` (the file's own end tokens) and those
/// known by their text. `id` looks up a token by its text; `key` one that a GGUF file gives by key.
pub(super) fn end_tokens(
    named: impl IntoIterator<Item = u32>,
    id: impl Fn(&str) -> Option<u32>,
    key: impl Fn(&str) -> Option<u32>,
) -> BTreeSet<u32> {
    let mut ends: BTreeSet<u32> = END_TEXTS.iter().filter_map(|text| id(text)).collect();
    for (name, texts) in FILL_IN_TEXTS {
        let by_text = || texts.iter().filter_map(|text| id(text)).min();
        ends.extend(key(name).or_else(by_text));
    }
    ends.extend(named);
    for id in [end_of_message(&id), ordinary_end(&id)].into_iter().flatten() {
        ends.remove(&id);
    }
    ends
}

/// `<|end|>` where it closes one message of several, as in the harmony format, and not the answer.
fn end_of_message(id: impl Fn(&str) -> Option<u32>) -> Option<u32> {
    let has = |text: &str| id(text).is_some();
    let calls = has("<|call|>") || has("<|calls|>");
    id("<|end|>").filter(|_| calls && (has("<|return|>") || has("<|flush|>")))
}

/// `</s>` where it is text as any other: Gemma 4 and PLaMo have ends of their own.
fn ordinary_end(id: impl Fn(&str) -> Option<u32>) -> Option<u32> {
    id("</s>").filter(|_| id("<|tool_response>").is_some() || id("<|plamo:eos|>").is_some())
}

/// A token's text, cut for an error message.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|t| t.to_string()).collect()
    }

    #[test]
    fn bad_arrays_are_named() {
        let error = |t: &[&str], types: &[i32], scores: &[f32]| {
            Vocabulary::new(texts(t), types, scores.to_vec()).unwrap_err().to_string()
        };
        assert!(error(&[], &[], &[]).contains("tokenizer.ggml.tokens"));
        assert!(error(&["a", "a"], &[], &[]).contains("ids 0 and 1"));
        assert!(error(&["a", "b"], &[1], &[]).contains("tokenizer.ggml.token_type: has 1 entries for 2"));
        assert!(error(&["a", "b"], &[], &[1.0]).contains("tokenizer.ggml.scores"));
    }

    #[test]
    fn empty_tokens_get_a_name_and_marks_become_control() {
        let vocabulary = Vocabulary::new(texts(&["", "<|im_end|>", "x"]), &[1, 1, 99], Vec::new()).unwrap();
        assert_eq!(vocabulary.text(0), Some("[EMPTY_0]"));
        assert_eq!(vocabulary.kind(1), Kind::Control);
        assert_eq!(vocabulary.kind(2), Kind::Normal);
        assert_eq!((vocabulary.text(7), vocabulary.kind(7), vocabulary.score(7)), (None, Kind::Normal, 0.0));
    }

    #[test]
    fn ends_come_from_texts_and_keys_and_spare_harmony() {
        let vocabulary =
            Vocabulary::new(texts(&["<|end|>", "<|return|>", "<|call|>", "</s>", "z"]), &[], Vec::new())
                .unwrap();
        let ends = end_tokens([4], |text| vocabulary.id(text), |_| None);
        assert_eq!(ends.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
    }
}
