//! The text of tokens that come one by one.

use super::Tokenizer;

/// Decodes tokens as they come: all that it gives, one after the other, is what [`Tokenizer::decode`] gives of all tokens.
#[derive(Debug)]
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    /// Whether no token has come.
    empty: bool,
    /// The bytes of a character that is not yet complete.
    pending: Vec<u8>,
}

impl<'t> TextStream<'t> {
    /// No text yet.
    pub fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, empty: true, pending: Vec::new() }
    }

    /// What the next token adds to the text, without a character that later tokens may complete.
    pub fn push(&mut self, token: u32) -> String {
        let mut bytes = self.tokenizer.token_bytes(token);
        if std::mem::take(&mut self.empty)
            && self.tokenizer.adds_space_before(token)
            && bytes.first() == Some(&b' ')
        {
            bytes.remove(0);
        }
        self.pending.append(&mut bytes);
        let complete = match self.pending.utf8_chunks().last() {
            Some(last) => self.pending.len() - unfinished(last.invalid()),
            None => 0,
        };
        let text = String::from_utf8_lossy(&self.pending[..complete]).into_owned();
        self.pending.drain(..complete);
        text
    }

    /// The rest: U+FFFD for a character that is not complete.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// The length of these bytes, which are the last of a text and no UTF-8, if further bytes may make a character of them, else
/// 0.
fn unfinished(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => bytes.len(),
        _ => 0,
    }
}
