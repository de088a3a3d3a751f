//! Long texts for the `tokenizers` crate, which takes up to a hundred bytes of memory for a byte of text.
//!
//! A text is cut where a line or a word ends, and the parts are encoded one by one. A part is encoded with the
//! end of the part before it, whose tokens are then left out: so it gets no space before it as a text does.
//! A place is used only if the tokens on its left are the same with the text on its right and without it.

use super::error::TokenizerError;
use super::vetted::VettedTokenizer;

/// How much of the text around a place is looked at, in bytes.
const CONTEXT: usize = 256;
/// How many places are tried.
const TRIES: usize = 64;

/// The ids of a text, without those that a post-processor adds.
///
/// # Errors
/// Those of [`VettedTokenizer::encode`]; [`TokenizerError::LongWord`].
pub(super) fn encode_long(library: &VettedTokenizer, text: &str) -> Result<Vec<u32>, TokenizerError> {
    // With its context a part is no longer than the crate gets at once.
    encode_in_parts(library, text, library.max_text() - 2 * CONTEXT)
}

fn encode_in_parts(library: &VettedTokenizer, text: &str, part: usize) -> Result<Vec<u32>, TokenizerError> {
    let mut ids = Vec::new();
    let mut start = 0;
    while text.len() - start > part {
        let end = place_to_cut(library, text, start, part)?;
        ids.extend(part_of(library, text, start, end)?);
        start = end;
    }
    ids.extend(part_of(library, text, start, text.len())?);
    Ok(ids)
}

/// The ids of `text[start..end]` where it follows the text before it.
fn part_of(
    library: &VettedTokenizer,
    text: &str,
    start: usize,
    end: usize,
) -> Result<Vec<u32>, TokenizerError> {
    if start == 0 {
        return library.encode(&text[..end], false);
    }
    let context = boundary(text, start.saturating_sub(CONTEXT));
    let before = library.encode(&text[context..start], false)?;
    let mut ids = library.encode(&text[context..end], false)?;
    if !ids.starts_with(&before) {
        return Err(TokenizerError::LongWord { limit: library.max_text() });
    }
    ids.drain(..before.len());
    Ok(ids)
}

/// The last place in the next `part` bytes after `start` where the text can be cut.
fn place_to_cut(
    library: &VettedTokenizer,
    text: &str,
    start: usize,
    part: usize,
) -> Result<usize, TokenizerError> {
    let bytes = text.as_bytes();
    let last = start + part;
    let is_space = |at: usize| bytes[at].is_ascii_whitespace();
    let line_starts = |at: &usize| bytes[at - 1] == b'\n' && !is_space(*at);
    let word_ends = |at: &usize| bytes[*at] == b' ' && !is_space(at - 1) && !is_space(at + 1);
    // The text does not end at `last`. Line starts near the end come first.
    let places = || (start + part / 2..last).rev();
    let lines = places().filter(line_starts).take(TRIES / 2);
    for at in lines.chain(places().filter(word_ends).take(TRIES / 2)) {
        let (from, to) =
            (boundary(text, at.saturating_sub(CONTEXT).max(start)), boundary(text, at + CONTEXT));
        let left = library.encode(&text[from..at], false)?;
        if library.encode(&text[from..to], false)?.starts_with(&left) {
            return Ok(at);
        }
    }
    Err(TokenizerError::LongWord { limit: library.max_text() })
}

/// The last place at or before `at` where a character begins.
fn boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn parts_have_the_tokens_of_the_whole_text() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let text = std::fs::read_to_string(root.join("demo/text.txt")).unwrap();
        let text = &text[..boundary(&text, 20_000)];
        for folder in ["arch/llama2/hf", "arch/llama3/hf", "arch/gemma3/hf", "convert_hf/pieces-json"] {
            let path = root.join(folder).join("tokenizer.json");
            let bytes = std::fs::read(&path).unwrap();
            let (library, ()) = VettedTokenizer::from_bytes(&path, &bytes, |_| ()).unwrap();
            let whole = library.encode(text, false).unwrap();
            for part in [700, 5000] {
                assert!(encode_in_parts(&library, text, part).unwrap() == whole, "{folder}, {part}");
            }
            let word = "a".repeat(3000);
            assert!(encode_in_parts(&library, &word, 2000).unwrap_err().to_string().contains("place to cut"));
        }
    }
}
