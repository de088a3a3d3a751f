//! The token list of a GGUF file: texts, types and scores.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::error::TokenizerError;
use super::joints::Joints;
use super::token_type::TokenType;
use super::well_known::corrected_types;

/// The tokens of a GGUF file.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    texts: Vec<String>,
    types: Vec<TokenType>,
    scores: Vec<f32>,
    ids: HashMap<String, u32>,
    joints: OnceLock<Joints>,
}

impl Vocabulary {
    /// Takes the arrays of the file. `types` and `scores` are either empty or at least as long as `texts`.
    pub(super) fn new(
        mut texts: Vec<String>,
        types: &[i32],
        mut scores: Vec<f32>,
    ) -> Result<Self, TokenizerError> {
        let count = texts.len();
        let short = |key: &str, len: usize| {
            TokenizerError::key(
                key,
                format!("has {len} entries for {count} tokens"),
                "the file is damaged: fetch or convert it again",
            )
        };
        if count == 0 || u32::try_from(count).is_err() {
            return Err(TokenizerError::key(
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
        let mut types: Vec<TokenType> = (0..count)
            .map(|i| types.get(i).map_or(TokenType::Normal, |&t| TokenType::from_gguf(t)))
            .collect();

        let mut ids = HashMap::with_capacity(count);
        for (i, text) in texts.iter_mut().enumerate() {
            if text.is_empty() {
                *text = format!("[EMPTY_{i}]");
            }
            if let Some(first) = ids.insert(text.clone(), i as u32) {
                return Err(TokenizerError::key(
                    "tokenizer.ggml.tokens",
                    format!("token {:?} has the ids {first} and {i}", shortened(text)),
                    "the file is damaged: fetch or convert it again",
                ));
            }
        }
        for (id, corrected) in corrected_types(|text| ids.get(text).copied()) {
            types[id as usize] = corrected;
        }
        Ok(Vocabulary { texts, types, scores, ids, joints: OnceLock::new() })
    }

    /// How many tokens there are; every id is less.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The id of the token with this spelling.
    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// How the vocabulary spells a token.
    pub(crate) fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(id as usize).map(String::as_str)
    }

    /// The type of a token; [`TokenType::Normal`] for an id out of range.
    pub(crate) fn token_type(&self, id: u32) -> TokenType {
        self.types.get(id as usize).copied().unwrap_or(TokenType::Normal)
    }

    /// The score of a token (the greatest is merged first); 0 for an id out of range.
    pub(crate) fn score(&self, id: u32) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    /// Where no token reaches over.
    pub(super) fn joints(&self) -> &Joints {
        self.joints.get_or_init(|| Joints::new(self.texts.iter().map(String::as_str)))
    }

    /// The ids and texts of the tokens that are cut out of the raw text before the algorithm sees it.
    pub(crate) fn special_tokens(&self) -> impl Iterator<Item = (u32, &str)> {
        (0u32..)
            .zip(&self.texts)
            .filter(|(id, _)| self.token_type(*id).is_special())
            .map(|(id, text)| (id, text.as_str()))
    }
}

/// A token's text, shortened for an error message.
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
    fn empty_tokens_get_a_name_and_end_markers_become_control_tokens() {
        let vocabulary = Vocabulary::new(texts(&["", "<|im_end|>", "x"]), &[1, 1, 99], Vec::new()).unwrap();
        assert_eq!(vocabulary.text(0), Some("[EMPTY_0]"));
        assert_eq!(vocabulary.token_type(1), TokenType::Control);
        assert_eq!(vocabulary.token_type(2), TokenType::Normal);
        assert_eq!(
            (vocabulary.text(7), vocabulary.token_type(7), vocabulary.score(7)),
            (None, TokenType::Normal, 0.0)
        );
    }
}
