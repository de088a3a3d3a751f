//! The model of a tokenizer.json: the vocabulary, and how words are made of it.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::fault::{Fault, at_most};

/// The longest prefix, suffix or name of the unknown token, in bytes. The library puts them together with
/// every character.
const MAX_AFFIX: usize = 256;
/// The longest token of a Unigram model, in bytes. Each is a path of nodes as long as that.
const MAX_UNIGRAM_TOKEN: usize = 512;
/// How many nodes the tree of a Unigram model has. One takes about 400 bytes.
const MAX_UNIGRAM_NODES: usize = 2_000_000;
/// The longest word that a WordPiece model cuts, in characters. 100 is usual, and time grows with the cube.
const MAX_WORD: u64 = 256;

/// Checks the model.
pub(super) fn check(json: &Json) -> Result<(), Fault> {
    let Some(model) = json.get("model").and_then(Json::as_object) else {
        return Err(Fault::new("model", "missing, or not an object"));
    };
    for name in ["continuing_subword_prefix", "end_of_word_suffix", "unk_token"] {
        let length = model.get(name).and_then(Json::as_str).map_or(0, str::len);
        at_most(length, MAX_AFFIX, &format!("model.{name}"), "bytes")?;
    }
    // Old files do not name the type. The library tells them apart by what they have.
    let kind = model.get("type").and_then(Json::as_str);
    let is = |name: &str, by: bool| kind == Some(name) || kind.is_none() && by;
    unique_ids(model)?;
    if is("BPE", model.contains_key("merges")) {
        bpe(model)
    } else if is("Unigram", model.get("vocab").is_some_and(Json::is_array)) {
        unigram(model)
    } else if is("WordPiece", true) {
        word_piece(model)
    } else {
        Ok(())
    }
}

/// Checks that no id belongs to two tokens: the library would name one of them by chance.
fn unique_ids(model: &Map<String, Json>) -> Result<(), Fault> {
    let Some(vocabulary) = model.get("vocab").and_then(Json::as_object) else { return Ok(()) };
    let mut tokens = HashMap::with_capacity(vocabulary.len());
    for (token, id) in vocabulary {
        let Some(id) = id.as_u64() else { continue };
        if let Some(other) = tokens.insert(id, token) {
            let [first, second] = [other, token].map(|token| crate::error::shortened(token, 40));
            let problem = format!("'{first}' and '{second}' have the same id, {id}");
            return Err(Fault::new("model.vocab", problem));
        }
    }
    Ok(())
}

fn word_piece(model: &Map<String, Json>) -> Result<(), Fault> {
    let longest = model.get("max_input_chars_per_word").and_then(Json::as_u64).unwrap_or(0);
    if longest > MAX_WORD {
        let problem = format!("words of {longest} characters, at most {MAX_WORD} are accepted");
        return Err(Fault::new("model.max_input_chars_per_word", problem).mended_by("use 100, as is usual"));
    }
    Ok(())
}

fn unigram(model: &Map<String, Json>) -> Result<(), Fault> {
    let vocabulary = model.get("vocab").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let mut tokens = Vec::with_capacity(vocabulary.len());
    for (at, entry) in vocabulary.iter().enumerate() {
        let Some(token) = entry.get(0).and_then(Json::as_str) else { continue };
        at_most(token.len(), MAX_UNIGRAM_TOKEN, &format!("model.vocab[{at}]"), "bytes")?;
        tokens.push(token.as_bytes());
    }
    // In order, a token adds the nodes that the one before it lacks.
    tokens.sort_unstable();
    let mut before: &[u8] = &[];
    let mut nodes = 0;
    for token in tokens {
        nodes += token.len() - before.iter().zip(token).take_while(|(a, b)| a == b).count();
        before = token;
    }
    at_most(nodes, MAX_UNIGRAM_NODES, "model.vocab", "nodes in a tree of its tokens")
}

fn bpe(model: &Map<String, Json>) -> Result<(), Fault> {
    if model.get("dropout").and_then(Json::as_f64).is_some_and(|dropout| dropout != 0.0) {
        let help = "set it to null: the same text must give the same tokens";
        return Err(Fault::new("model.dropout", "it cuts words by chance").mended_by(help));
    }
    let (Some(vocabulary), Some(merges)) =
        (model.get("vocab").and_then(Json::as_object), model.get("merges").and_then(Json::as_array))
    else {
        return Err(Fault::new("model", "a BPE without \"vocab\" or \"merges\""));
    };
    let prefix = model.get("continuing_subword_prefix").and_then(Json::as_str).unwrap_or("");
    let mut joined = String::new();
    for (at, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Json::String(line) if line.starts_with("#version") => continue,
            Json::String(line) => line.split_once(' '),
            pair => pair.get(0).and_then(Json::as_str).zip(pair.get(1).and_then(Json::as_str)),
        };
        let fault = |problem: &str| Err(Fault::new(format!("model.merges[{at}]"), problem));
        let Some((left, right)) = pair else { return fault("not a pair of tokens") };
        // The library cuts as many bytes off, whatever they are.
        let Some(rest) = right.get(prefix.len()..) else {
            return fault("the second token is shorter than model.continuing_subword_prefix");
        };
        joined.clear();
        joined.extend([left, rest]);
        let missing = [left, right, &joined].into_iter().find(|token| !vocabulary.contains_key(*token));
        if let Some(token) = missing {
            return fault(&format!("'{}' is not in model.vocab", crate::error::shortened(token, 40)));
        }
    }
    Ok(())
}
