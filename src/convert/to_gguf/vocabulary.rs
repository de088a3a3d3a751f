//! The `tokenizer.*` keys: the kind of the folder's vocabulary, and its tokens.

use std::collections::HashMap;

use curmerge_formats::gguf::Value;
use serde_json::Value as Json;

use super::hub_tokenizer::HubTokenizer;
use super::keys::Keys;
use super::sentencepiece::{self as spm, Token};
use super::{pre_tokenizer, special_tokens};
use crate::arch::{Converter, SpacePrefix, TokenizerOverride, VocabularySource as Source};
use crate::base::folder::{self, Folder, Object};
use crate::tokenizer::METASPACE;
use crate::{Error, Result};

/// llama.cpp joins pieces by their scores, and its converter gives all pieces the same one.
const NO_SCORES: &str = "the folder has no tokenizer.model, so llama.cpp may split texts differently from the \
     model: only that file has the scores that llama.cpp uses";
/// llama.cpp's name of BPE of characters, with merges.
const CHARACTERS: &str = "gemma4";
/// Control tokens of Gemma 4 that llama.cpp writes out, so that calls of tools can be read.
const ALWAYS_SHOWN: [&str; 7] = [
    "<|channel>",
    "<channel|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    "<|\"|>",
];
/// Score of an added token.
const ADDED: f32 = -1000.0;
/// Score of an id that no token has.
const PADDING: f32 = -10000.0;

/// Sets the keys of a vocabulary for an embedding of `size` rows.
pub(super) fn set(
    keys: &mut Keys,
    folder: Folder<'_>,
    converter: &Converter,
    size: usize,
    notes: &mut Vec<String>,
) -> Result<()> {
    let config = folder.object(folder::TOKENIZER_CONFIG)?.unwrap_or_default();
    let space = config.get("add_prefix_space").and_then(Json::as_bool);
    if let Some(adds) = space.filter(|_| converter.space_prefix == SpacePrefix::FromFolder) {
        keys.set("tokenizer.ggml.add_space_prefix", Value::Bool(adds));
    }
    let json = folder.object(folder::TOKENIZER)?;
    let has = |source: &&Source| match source {
        Source::SentencePiece | Source::InternLm2 => folder.has(folder::SENTENCEPIECE),
        Source::Phi3 => {
            let class = config.get("tokenizer_class").and_then(Json::as_str);
            class != Some("GPT2Tokenizer") && folder.has(folder::SENTENCEPIECE)
        }
        Source::SentencePieceJson | Source::Characters => json.as_ref().is_some_and(is_sentencepiece),
        Source::ByteLevel => json.is_some(),
    };
    let source = converter.vocabularies.iter().find(has);
    match (source, &json) {
        (Some(Source::SentencePiece), _) => {
            sentencepiece(keys, folder, (size, false), |tokens| add_listed(tokens, &config))?;
        }
        (Some(Source::InternLm2), _) => {
            sentencepiece(keys, folder, (size, true), |tokens| {
                tokens.iter_mut().for_each(as_internlm2_has_it);
                add_spelled(tokens, &config, json.as_ref());
            })?;
        }
        (Some(Source::Phi3), _) => {
            sentencepiece(keys, folder, (size, false), |tokens| add_spelled(tokens, &config, json.as_ref()))?;
        }
        (Some(Source::SentencePieceJson), Some(json)) => {
            notes.push(NO_SCORES.into());
            sentencepiece_json(keys, folder, json, size)?;
        }
        (Some(Source::Characters), Some(json)) => {
            characters(keys, folder, json, size)?;
        }
        (Some(Source::ByteLevel), Some(json)) => {
            byte_level(keys, folder, (json, converter.special_tokens), size, notes)?;
        }
        (_, Some(_)) => {
            let problem = "llama.cpp makes the vocabulary of this architecture from tokenizer.model, and the \
                           folder has tokenizer.json alone";
            return Err(Error::file(
                folder.path(),
                problem,
                "put the model's tokenizer.model into the folder",
            ));
        }
        (_, None) => {
            let help = "download the folder with tokenizer.json, or with tokenizer.model";
            return Err(Error::file(folder.path(), "the folder has no tokenizer", help));
        }
    }
    for (_, key) in converter.overrides.iter().filter(|(of, _)| of.is_none_or(|of| of == size)) {
        match *key {
            TokenizerOverride::NoBos => keys.set("tokenizer.ggml.add_bos_token", Value::Bool(false)),
            TokenizerOverride::EndOfTurn(id) => keys.set("tokenizer.ggml.eot_token_id", Value::U32(id)),
            TokenizerOverride::Padding(id) => keys.set("tokenizer.ggml.padding_token_id", Value::U32(id)),
            TokenizerOverride::Unknown(id) => keys.set("tokenizer.ggml.unknown_token_id", Value::U32(id)),
            TokenizerOverride::EndByText(text) => {
                let listed = config.get("added_tokens_decoder").and_then(Json::as_object);
                let own =
                    |(id, added): (&String, &Json)| (added["content"] == text).then(|| id.parse().ok())?;
                let listed = listed.and_then(|listed| listed.iter().find_map(own));
                let id = json.as_ref().and_then(|json| special_tokens::added_id(json, text));
                if let Some(end) = id.and_then(|id| u32::try_from(id).ok()).or(listed) {
                    keys.set("tokenizer.ggml.eos_token_id", Value::U32(end));
                }
            }
            TokenizerOverride::EndOfDocument(usual) => {
                let id = |id: Option<&Json>| id.and_then(Json::as_u64).and_then(|id| u32::try_from(id).ok());
                let model = folder.object(folder::CONFIG)?.unwrap_or_default();
                let end = model.get("eod_token_id").map_or(Some(usual), |end| id(Some(end)));
                if let Some(end) = end {
                    keys.set("tokenizer.ggml.eos_token_id", Value::U32(end));
                }
                let generation = folder.object(folder::GENERATION_CONFIG)?.unwrap_or_default();
                let ends =
                    generation.get("eos_token_id").and_then(Json::as_array).filter(|ends| ends.len() > 1);
                if let Some(end) = id(ends.and_then(|ends| ends.first())) {
                    keys.set("tokenizer.ggml.eot_token_id", Value::U32(end));
                }
            }
        }
    }
    if let Some(adds) = space.filter(|_| converter.space_prefix == SpacePrefix::LastFromFolder) {
        keys.set("tokenizer.ggml.add_space_prefix", Value::Bool(adds));
    }
    if converter.space_prefix == SpacePrefix::Off && source == Some(&Source::SentencePiece) {
        keys.set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    }
    Ok(())
}

/// Whether tokenizer.json was made from a SentencePiece model.
fn is_sentencepiece(json: &Object) -> bool {
    let model = json.get("model");
    let part = |name: &str| model.and_then(|model| model.get(name));
    part("type").and_then(Json::as_str) == Some("BPE")
        && part("byte_fallback").and_then(Json::as_bool) == Some(true)
        && json.get("decoder").and_then(|d| d.get("type")).and_then(Json::as_str) == Some("Sequence")
}

/// The pieces of tokenizer.model, with the added tokens that `add` puts among them; and, if `with_space`, whether a space
/// is put before texts.
fn sentencepiece(
    keys: &mut Keys,
    folder: Folder<'_>,
    (size, with_space): (usize, bool),
    add: impl FnOnce(&mut [Token]),
) -> Result<()> {
    let path = folder.join(folder::SENTENCEPIECE);
    let model = folder.bytes(folder::SENTENCEPIECE)?.unwrap_or_default();
    let pieces = spm::parse(&model).map_err(|(position, problem)| {
        let help = "download it again; if it is not SentencePiece's, move it out of the folder";
        Error::input(&path, format!("byte {position}"), problem, help)
    })?;
    let adds_space = spm::adds_space(&model);
    drop(model);
    let unused = |id: usize| Token { text: format!("[PAD{id}]"), score: PADDING, kind: spm::UNUSED };
    let mut tokens: Vec<Token> = (0..size).map(unused).collect();
    for (token, mut piece) in tokens.iter_mut().zip(pieces) {
        // The converter treats pieces defined by a user like any other.
        if !matches!(piece.kind, spm::UNKNOWN | spm::CONTROL | spm::UNUSED | spm::BYTE) {
            piece.kind = spm::NORMAL;
        }
        *token = piece;
    }
    for (text, id) in folder.object(folder::ADDED_TOKENS)?.unwrap_or_default() {
        if let Some(token) = id.as_u64().and_then(|id| tokens.get_mut(usize::try_from(id).ok()?)) {
            *token = Token { text, score: ADDED, kind: spm::USER_DEFINED };
        }
    }
    add(&mut tokens);
    let count = tokens.len();
    set_tokens(keys, folder, "llama", tokens)?;
    if with_space {
        keys.set("tokenizer.ggml.add_space_prefix", Value::Bool(adds_space));
    }
    special_tokens::set(keys, folder, false, Some(count), &[])
}

/// Its class gives a piece that would end a C string another text, and does not use some pieces.
fn as_internlm2_has_it(piece: &mut Token) {
    if piece.text == "\0" {
        piece.text = "\u{1f409}".to_owned();
    }
    if piece.text.starts_with("[UNUSED") {
        piece.kind = spm::UNUSED;
    }
}

/// The added tokens that tokenizer_config.json lists.
fn add_listed(tokens: &mut [Token], config: &Object) {
    for (id, added) in config.get("added_tokens_decoder").and_then(Json::as_object).into_iter().flatten() {
        let Some(text) = added.get("content").and_then(Json::as_str) else { continue };
        if let Some(token) = id.parse().ok().and_then(|id: usize| tokens.get_mut(id)) {
            let control = added.get("special").and_then(Json::as_bool) == Some(true) || looks_special(text);
            *token = added_token(text, control);
        }
    }
}

/// The added tokens of tokenizer_config.json and of tokenizer.json, spelled as there.
fn add_spelled(tokens: &mut [Token], config: &Object, json: Option<&Object>) {
    let listed = config.get("added_tokens_decoder").and_then(Json::as_object).into_iter().flatten();
    let listed = listed.map(|(id, added)| (id.parse().ok(), added));
    let own = json.and_then(|json| json.get("added_tokens")?.as_array()).into_iter().flatten();
    let own = own.map(|added| (added.get("id").and_then(Json::as_u64), added));
    for (id, added) in listed.chain(own) {
        let token = id.and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
        if let (Some(token), Some(text)) = (token, added.get("content").and_then(Json::as_str)) {
            let control = added.get("special").and_then(Json::as_bool) == Some(true);
            let kind = if control { spm::CONTROL } else { spm::USER_DEFINED };
            *token = Token { text: text.to_owned(), score: ADDED, kind };
        }
    }
}

fn added_token(text: &str, control: bool) -> Token {
    let (text, kind) = if control {
        (text.to_owned(), spm::CONTROL)
    } else {
        // llama.cpp looks for such tokens in the raw text.
        (text.replace(METASPACE, " "), spm::USER_DEFINED)
    };
    Token { text, score: ADDED, kind }
}

/// The tokens and merges of a tokenizer.json made from a SentencePiece model.
fn characters(keys: &mut Keys, folder: Folder<'_>, json: &Object, size: usize) -> Result<()> {
    let mut tokens = tokens_of_json(folder, json, size)?;
    for token in tokens.iter_mut().filter(|token| ALWAYS_SHOWN.contains(&&*token.text)) {
        token.kind = spm::USER_DEFINED;
    }
    set_tokens(keys, folder, CHARACTERS, tokens)?;
    special_tokens::set(keys, folder, true, None, &[])?;
    keys.set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    keys.set("tokenizer.ggml.add_bos_token", Value::Bool(true));
    Ok(())
}

fn sentencepiece_json(keys: &mut Keys, folder: Folder<'_>, json: &Object, size: usize) -> Result<()> {
    let tokens = tokens_of_json(folder, json, size)?;
    let count = tokens.len();
    set_tokens(keys, folder, "llama", tokens)?;
    special_tokens::set(keys, folder, false, Some(count), &[])
}

/// The tokens of a tokenizer.json made from a SentencePiece model, without scores.
fn tokens_of_json(folder: Folder<'_>, json: &Object, size: usize) -> Result<Vec<Token>> {
    let tokenizer = HubTokenizer::open(folder, json)?;
    let texts = tokenizer.tokens();
    let base = tokenizer.base_size();
    let is_special = |text: &str| tokenizer.special().iter().any(|special| special == text);
    let kind = |text: &str| match () {
        () if is_byte(text) => spm::BYTE,
        () if is_special(text) => spm::CONTROL,
        () => spm::NORMAL,
    };
    let mut tokens = Vec::new();
    for id in 0..base.min(size + 1) {
        let Some(text) = texts.get(&(id as u32)) else {
            let problem = format!("no token has the id {id}");
            return Err(Error::file(folder.join(folder::TOKENIZER), problem, "download the folder again"));
        };
        tokens.push(Token { text: text.clone(), score: ADDED, kind: kind(text) });
    }
    for (_, token) in tokenizer.added().into_iter().filter(|(id, _)| *id as usize >= base) {
        let kind = if is_special(&token.content) { spm::CONTROL } else { spm::USER_DEFINED };
        tokens.push(Token { text: token.content, score: ADDED, kind });
    }
    check_size(folder, tokens.len(), size)?;
    Ok(tokens)
}

fn byte_level(
    keys: &mut Keys,
    folder: Folder<'_>,
    (json, named): (&Object, &[(&'static str, &str)]),
    size: usize,
    notes: &mut Vec<String>,
) -> Result<()> {
    if is_sentencepiece(json) {
        let problem = "made from a SentencePiece model, whose scores llama.cpp needs";
        let help = "put the model's tokenizer.model into the folder";
        return Err(Error::file(folder.join(folder::TOKENIZER), problem, help));
    }
    let model = json.get("model").and_then(|model| model.get("type")).and_then(Json::as_str).unwrap_or("");
    if model != "BPE" {
        let problem = format!("a tokenizer of the kind '{}'", model.escape_debug());
        let help = "curmerge converts BPE and SentencePiece vocabularies";
        return Err(Error::input(folder.join(folder::TOKENIZER), "model", problem, help));
    }
    let tokenizer = HubTokenizer::open(folder, json)?;
    let mut texts = tokenizer.tokens();
    let greatest = texts.keys().max().map_or(0, |&id| id as usize + 1);
    check_size(folder, greatest, size)?;
    let pre = pre_tokenizer::recognise(folder, &tokenizer, json, notes)?;
    let added = tokenizer.added();
    let token = |id: u32| {
        let Some(text) = texts.remove(&id) else {
            return Token { text: format!("[PAD{id}]"), score: 0.0, kind: spm::UNUSED };
        };
        let Some(token) = added.get(&id) else { return Token { text, score: 0.0, kind: spm::NORMAL } };
        // llama.cpp looks for such tokens in the raw text.
        let plain = if token.normalized {
            text
        } else {
            tokenizer.encode(&text, false).and_then(|ids| tokenizer.decode(&ids)).unwrap_or(text)
        };
        added_token(&plain, token.special || looks_special(&plain))
    };
    let tokens: Vec<Token> = (0..size as u32).map(token).collect();
    check_unique(folder, &tokens)?;
    let (texts, kinds) = tokens.into_iter().map(|token| (token.text, token.kind)).unzip();
    keys.text("tokenizer.ggml.model", "gpt2");
    keys.text("tokenizer.ggml.pre", pre);
    special_tokens::set_tokens(keys, texts, None, kinds);
    special_tokens::set(keys, folder, true, None, named)
}

fn set_tokens(keys: &mut Keys, folder: Folder<'_>, model: &str, tokens: Vec<Token>) -> Result<()> {
    check_unique(folder, &tokens)?;
    let scores = tokens.iter().map(|token| token.score).collect();
    let (texts, kinds) = tokens.into_iter().map(|token| (token.text, token.kind)).unzip();
    keys.text("tokenizer.ggml.model", model);
    // Gemma 4's kind of vocabulary has one pre-tokenizer.
    if model != CHARACTERS {
        keys.text("tokenizer.ggml.pre", "default");
    }
    special_tokens::set_tokens(keys, texts, Some(scores), kinds);
    Ok(())
}

/// llama.cpp aborts if two tokens of a vocabulary have the same text.
fn check_unique(folder: Folder<'_>, tokens: &[Token]) -> Result<()> {
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (id, token) in tokens.iter().enumerate().filter(|(_, token)| !token.text.is_empty()) {
        if let Some(other) = first.insert(&token.text, id) {
            let text: String = token.text.chars().take(40).collect();
            let problem = format!("{text:?} is the token {other} and the token {id}");
            let help = "llama.cpp cannot load such a vocabulary; download the folder again";
            return Err(Error::input(folder.path(), "vocabulary", problem, help));
        }
    }
    Ok(())
}

fn check_size(folder: Folder<'_>, tokens: usize, rows: usize) -> Result<()> {
    if tokens <= rows {
        return Ok(());
    }
    let problem = format!("{tokens} tokens, and the embedding has {rows} rows");
    Err(Error::file(folder.join(folder::TOKENIZER), problem, "download the folder again"))
}

/// Whether a token stands for a byte: `<0xAB>`.
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether an added token is a control token although its file does not say so.
fn looks_special(text: &str) -> bool {
    let within = |start: &str, end: &str| text.starts_with(start) && text.ends_with(end);
    matches!(text, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || within("<|", "|>")
        || within("<｜", "｜>")
        || within("<unused", ">")
}
