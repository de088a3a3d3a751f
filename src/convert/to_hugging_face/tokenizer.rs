//! tokenizer.json and tokenizer_config.json.

use std::path::Path;

use curmerge_formats::gguf::{Gguf, Value};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value as Json, json};

use super::{merges, pre_tokenizers};
use crate::base::Base;
use crate::convert::config_json::{Tokens, pretty};
use crate::tokenizer::{Algorithm, METASPACE, TokenType, Tokenizer, TokenizerParts, Vocabulary};
use crate::{Error, Result};

/// What Gemma calls the token of what no other token spells; it has a token for every byte.
const UNKNOWN: &str = "<unk>";

/// A `tokenizer.json`, in the library's order of members.
#[derive(Serialize)]
struct Library<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<AddedToken<'a>>,
    normalizer: Json,
    pre_tokenizer: Json,
    post_processor: Json,
    decoder: Json,
    model: Model<'a>,
}

/// A token that the library looks for in the raw text, before all other steps.
#[derive(Serialize)]
struct AddedToken<'a> {
    id: u32,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

/// Byte-pair encoding.
#[derive(Serialize)]
struct Model<'a> {
    r#type: &'static str,
    dropout: (),
    unk_token: Option<&'a str>,
    continuing_subword_prefix: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Ids<'a>,
    merges: Vec<(&'a str, &'a str)>,
}

/// Every token and its id, in the order of ids.
struct Ids<'a>(&'a Vocabulary);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let ids = 0..self.0.len() as u32;
        serializer.collect_map(ids.filter_map(|id| Some((self.0.text(id)?, id))))
    }
}

/// The text of tokenizer.json.
pub(super) fn library(path: &Path, tokenizer: &Tokenizer, notes: &mut Vec<String>) -> Result<String> {
    let parts = tokenizer
        .parts()
        .ok_or_else(|| Error::file(path, "its tokenizer is not a GGUF file's", "name a GGUF file"))?;
    let vocabulary = parts.vocabulary;
    let longest = (0..vocabulary.len() as u32).filter_map(|id| vocabulary.text(id)).map(str::len).max();
    let library = match &parts.algorithm {
        Algorithm::ByteLevel { pre_tokenizer, ignore_merges, merges } => Library {
            pre_tokenizer: pre_tokenizers::byte_level(pre_tokenizer),
            decoder: pre_tokenizers::spelling(true),
            ..plain(
                &parts,
                tokenizer,
                Model {
                    ignore_merges: *ignore_merges,
                    merges: known(vocabulary, merges, notes),
                    ..model(vocabulary)
                },
            )
        },
        Algorithm::Characters { pre_tokenizer, merges } => Library {
            normalizer: spaces_as_marks(false),
            pre_tokenizer: pre_tokenizers::characters(pre_tokenizer),
            decoder: marks_as_spaces(false),
            ..plain(
                &parts,
                tokenizer,
                Model {
                    unk_token: vocabulary.id(UNKNOWN).map(|_| UNKNOWN),
                    fuse_unk: true,
                    byte_fallback: true,
                    merges: known(vocabulary, merges, notes),
                    ..model(vocabulary)
                },
            )
        },
        Algorithm::SentencePiece { .. } if longest.is_some_and(|bytes| bytes > merges::LONGEST) => {
            let problem = format!("a token is longer than {} bytes", merges::LONGEST);
            let help = "no vocabulary has such a token: the file is damaged, download or convert it again";
            return Err(Error::input(path, "tokenizer.ggml.tokens", problem, help));
        }
        Algorithm::SentencePiece { add_space_prefix, unknown } => Library {
            normalizer: spaces_as_marks(*add_space_prefix),
            decoder: marks_as_spaces(*add_space_prefix),
            ..plain(
                &parts,
                tokenizer,
                Model {
                    unk_token: unknown.and_then(|id| vocabulary.text(id)),
                    fuse_unk: true,
                    byte_fallback: true,
                    merges: merges::by_score(vocabulary),
                    ..model(vocabulary)
                },
            )
        },
    };
    serde_json::to_string(&library)
        .map(|text| text + "\n")
        .map_err(|e| Error::input(path, "tokenizer", e.to_string(), "convert the model to GGUF again"))
}

/// The members that both algorithms share.
fn plain<'a>(parts: &TokenizerParts<'a>, tokenizer: &Tokenizer, model: Model<'a>) -> Library<'a> {
    Library {
        version: "1.0",
        truncation: (),
        padding: (),
        added_tokens: added(parts),
        normalizer: Json::Null,
        pre_tokenizer: Json::Null,
        post_processor: around(parts.vocabulary, tokenizer),
        decoder: Json::Null,
        model,
    }
}

fn model(vocabulary: &Vocabulary) -> Model<'_> {
    Model {
        r#type: "BPE",
        dropout: (),
        unk_token: None,
        continuing_subword_prefix: (),
        end_of_word_suffix: (),
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: false,
        vocab: Ids(vocabulary),
        merges: Vec::new(),
    }
}

fn added<'a>(parts: &TokenizerParts<'a>) -> Vec<AddedToken<'a>> {
    let vocabulary = parts.vocabulary;
    vocabulary
        .special_tokens()
        .map(|(id, content)| AddedToken {
            id,
            content,
            single_word: false,
            lstrip: false,
            rstrip: parts.strips_right(content),
            normalized: false,
            special: vocabulary.token_type(id) != TokenType::UserDefined,
        })
        .collect()
}

/// The merges whose parts and result are tokens. The library refuses a file with any other.
fn known<'a>(vocabulary: &Vocabulary, lines: &[&'a str], notes: &mut Vec<String>) -> Vec<(&'a str, &'a str)> {
    let mut whole = String::new();
    let mut pairs = Vec::with_capacity(lines.len());
    for line in lines {
        let Some((left, right)) = line.split_once(' ') else { continue };
        whole.clear();
        whole.extend([left, right]);
        if [left, right, &whole].iter().all(|text| vocabulary.id(text).is_some()) {
            pairs.push((left, right));
        }
    }
    if pairs.len() < lines.len() {
        notes.push(format!(
            "{} of {} merges were left out: a part or the result is not a token",
            lines.len() - pairs.len(),
            lines.len()
        ));
    }
    pairs
}

fn spaces_as_marks(adds_space: bool) -> Json {
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": METASPACE });
    if !adds_space {
        return replace;
    }
    json!({ "type": "Sequence", "normalizers": [{ "type": "Prepend", "prepend": METASPACE }, replace] })
}

fn marks_as_spaces(adds_space: bool) -> Json {
    let mut steps = vec![
        json!({ "type": "Replace", "pattern": { "String": METASPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if adds_space {
        steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": steps })
}

/// BOS before and EOS after a text, if the file adds them.
fn around(vocabulary: &Vocabulary, tokenizer: &Tokenizer) -> Json {
    let token = |wanted: bool, id: Option<u32>| {
        let id = id.filter(|_| wanted)?;
        Some((id, vocabulary.text(id)?))
    };
    let bos = token(tokenizer.adds_bos(), tokenizer.bos());
    let eos = token(tokenizer.adds_eos(), tokenizer.eos());
    let with = |sequence: &str, kind: u8| {
        let special = |(_, text): (u32, &str)| json!({ "SpecialToken": { "id": text, "type_id": kind } });
        let mut all: Vec<Json> = bos.map(special).into_iter().collect();
        all.push(json!({ "Sequence": { "id": sequence, "type_id": kind } }));
        all.extend(eos.map(special));
        all
    };
    let named: Map<String, Json> = [bos, eos]
        .into_iter()
        .flatten()
        .map(|(id, text)| (text.to_owned(), json!({ "id": text, "ids": [id], "tokens": [text] })))
        .collect();
    json!({
        "type": "TemplateProcessing",
        "single": with("A", 0),
        "pair": ([with("A", 0), with("B", 1)].concat()),
        "special_tokens": named,
    })
}

/// The text of tokenizer_config.json. Its class uses tokenizer.json unchanged; `LlamaTokenizer` of
/// transformers 5 would build its own steps around the vocabulary.
pub(super) fn settings(base: &Base, gguf: &Gguf, tokenizer: &Tokenizer, tokens: &Tokens) -> String {
    let mut json = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": base.config().context,
        "add_bos_token": tokenizer.adds_bos(),
        "add_eos_token": tokenizer.adds_eos(),
        "clean_up_tokenization_spaces": false,
        // Otherwise, transformers before 5 adds token types, which these models refuse.
        "model_input_names": ["input_ids", "attention_mask"],
    });
    let parts = tokenizer.parts();
    if let Some(parts) = parts.as_ref().filter(|p| matches!(p.algorithm, Algorithm::SentencePiece { .. })) {
        // tokenizer.model does not distinguish these from other pieces.
        let listed = added(parts).into_iter().map(|token| {
            let id = token.id.to_string();
            let token = json!({
                "content": token.content,
                "lstrip": token.lstrip,
                "normalized": token.normalized,
                "rstrip": token.rstrip,
                "single_word": token.single_word,
                "special": token.special,
            });
            (id, token)
        });
        json["added_tokens_decoder"] = Json::Object(listed.collect());
    }
    let vocabulary = parts.map(|parts| parts.vocabulary);
    // Naming a piece of ordinary text here would make it a control token and remove it from answers;
    // config.json has its id anyway.
    let is_mark = |&id: &u32| vocabulary.is_some_and(|vocabulary| vocabulary.token_type(id).is_special());
    let named = [
        ("bos_token", tokens.bos),
        ("eos_token", tokens.eos),
        ("pad_token", tokens.pad.filter(is_mark)),
        ("unk_token", tokens.unknown),
        ("mask_token", tokens.mask.filter(is_mark)),
    ];
    for (name, id) in named {
        if let Some(text) = id.and_then(|id| vocabulary?.text(id)) {
            json[name] = text.into();
        }
    }
    if let Some(TokenizerParts { vocabulary, algorithm: Algorithm::Characters { .. }, .. }) =
        tokenizer.parts()
    {
        // llama.cpp's converter takes other tokens of this kind for ordinary text.
        let control = vocabulary.special_tokens().filter(|(id, _)| vocabulary.token_type(*id).is_control());
        let roles: Vec<u32> = named.iter().filter_map(|(_, id)| *id).collect();
        let others = control.filter(|(id, _)| !roles.contains(id)).map(|(_, text)| text);
        json["extra_special_tokens"] = others.collect();
    }
    // transformers from 4.51 on reads chat_template.jinja, which is the same.
    if let Some(template) = gguf.get("tokenizer.chat_template").and_then(Value::as_str) {
        json["chat_template"] = template.into();
    }
    pretty(&json)
}
