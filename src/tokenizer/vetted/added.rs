//! The added tokens of a tokenizer.json, and those that other files of the folder add.

use serde_json::Value as Json;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::tokenizer::{NormalizedString, Normalizer};

use super::LIBRARY;
use super::fault::{Fault, at_most};
use crate::panics::caught;

/// The longest added token, in bytes.
const MAX_TOKEN: usize = 1 << 12;
/// All added tokens together, in bytes. A model of speech has 65 thousand, of 1 MB; the library takes seconds
/// for 2 MB.
const MAX_TOKENS: usize = 1 << 21;

/// Checks the list of added tokens.
pub(super) fn check(json: &Json) -> Result<(), Fault> {
    let list = json.get("added_tokens").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let tokens: Vec<(String, &str, bool)> = list
        .iter()
        .enumerate()
        .filter_map(|(at, token)| {
            let normalized = token.get("normalized").and_then(Json::as_bool).unwrap_or(false);
            Some((format!("added_tokens[{at}]"), token.get("content")?.as_str()?, normalized))
        })
        .collect();
    check_sizes(tokens.iter().map(|(place, text, _)| (place.as_str(), *text)))?;
    let Some(normalizer) = json.get("normalizer").filter(|normalizer| !normalizer.is_null()) else {
        return Ok(());
    };
    let read = caught(LIBRARY, || serde_json::from_value::<NormalizerWrapper>(normalizer.clone()));
    let normalizer = read
        .and_then(|normalizer| normalizer.map_err(|error| error.to_string()))
        .map_err(|problem| Fault::new("normalizer", problem))?;
    let mut normalized = tokens.iter().filter(|(.., normalized)| *normalized);
    normalized.try_for_each(|(place, text, _)| check_normalized(place, text, &normalizer))
}

/// Checks the lengths of added tokens, each with its place.
pub(super) fn check_sizes<'a>(tokens: impl Iterator<Item = (&'a str, &'a str)>) -> Result<(), Fault> {
    let mut sum = 0;
    for (place, text) in tokens {
        at_most(text.len(), MAX_TOKEN, place, "bytes in one added token")?;
        sum += text.len();
        at_most(sum, MAX_TOKENS, place, "bytes in all added tokens")?;
    }
    Ok(())
}

/// A token that becomes nothing would be found everywhere.
pub(super) fn check_normalized(place: &str, text: &str, normalizer: &NormalizerWrapper) -> Result<(), Fault> {
    let normalized = caught(LIBRARY, || {
        let mut normalized = NormalizedString::from(text);
        normalizer.normalize(&mut normalized).map(|()| normalized.get().is_empty())
    });
    match normalized.and_then(|result| result.map_err(|error| error.to_string())) {
        Ok(true) if !text.is_empty() => {
            let problem = format!("'{}' is nothing after the normalizer", text.escape_debug());
            Err(Fault::new(place, problem).mended_by("set its \"normalized\" to false, or leave it out"))
        }
        Ok(_) => Ok(()),
        Err(problem) => Err(Fault::new(place, problem)),
    }
}
