//! A tokenizer from a Hugging Face folder, through the `tokenizers` crate.
//!
//! `tokenizer.json` holds the algorithm and the added tokens; which of them begin and end a text stands beside it, in
//! files that have changed their names over the years. What the newer says counts.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;
use tokenizers::tokenizer::Tokenizer as Library;

use super::chat::ChatTemplate;
use super::gguf::byte_of;
use super::spm::SPACE;
use super::vocabulary::end_tokens;
use super::{Settings, TokenizerError, byte_level};

const DAMAGED: &str = "the file is damaged: fetch the folder again";

/// The tokenizer of a Hugging Face folder, without BOS, EOS and chat template.
#[derive(Debug)]
pub(super) struct HfTokenizer {
    library: Library,
    /// The library that takes special tokens for text; made when it is first asked.
    ordinary: OnceLock<Library>,
    /// Tokens that are found in raw text before anything else, with their texts.
    added: HashMap<u32, String>,
    /// Ordinary tokens are written in GPT-2's spelling of bytes, not with `▁` and `<0xAB>`.
    byte_level: bool,
    /// A text is given a space in front.
    adds_space: bool,
    /// The post-processor says that nothing is put around a text: it is `ByteLevel`.
    adds_none: bool,
    /// One more than the greatest id.
    size: usize,
}

/// Opens the folder: the tokenizer, the tokens around a text, and the chat template.
pub(super) fn open(folder: &Path) -> Result<(HfTokenizer, Settings, Option<ChatTemplate>), TokenizerError> {
    let path = folder.join("tokenizer.json");
    let bytes = std::fs::read(&path).map_err(|error| {
        let help = "save the model with AutoTokenizer.save_pretrained, which writes tokenizer.json";
        TokenizerError::file(&path, error, help)
    })?;
    let tokenizer = HfTokenizer::from_json(&path, &bytes)?;

    let config = read_json(&folder.join("tokenizer_config.json"))?;
    let map = read_json(&folder.join("special_tokens_map.json"))?;
    let model = read_json(&folder.join("config.json"))?;
    let generation = read_json(&folder.join("generation_config.json"))?;

    let special = |name: &str, id_name: &str| -> Result<Option<u32>, TokenizerError> {
        for (file, values) in [("tokenizer_config.json", &config), ("special_tokens_map.json", &map)] {
            let Some(value) = values.get(name) else { continue };
            if value.is_null() {
                return Ok(None);
            }
            let text = value.as_str().or_else(|| value.get("content").and_then(Value::as_str));
            let id = text.and_then(|text| tokenizer.library.token_to_id(text));
            let problem = || format!("{name} is not a token of tokenizer.json");
            return id.map(Some).ok_or_else(|| TokenizerError::file(&folder.join(file), problem(), DAMAGED));
        }
        Ok(ids(model.get(id_name)).next().filter(|&id| (id as usize) < tokenizer.size))
    };
    let bos = special("bos_token", "bos_token_id")?;
    let eos = special("eos_token", "eos_token_id")?;
    let (before, after) = tokenizer.around()?;
    // The post-processor decides, as it does in transformers 5 and in llama.cpp's converter; where it is silent, the flag.
    let adds = |put: Option<u32>, token: Option<u32>, flag: &str| match put {
        Some(put) => Some(put) == token,
        None if tokenizer.adds_none => false,
        None => config.get(flag).and_then(Value::as_bool).unwrap_or(false) && token.is_some(),
    };
    let named: BTreeSet<u32> = ids(generation.get("eos_token_id"))
        .chain(ids(model.get("eos_token_id")))
        .chain(eos)
        .filter(|&id| (id as usize) < tokenizer.size)
        .collect();
    let settings = Settings {
        bos,
        eos,
        adds_bos: adds(before, bos, "add_bos_token"),
        adds_eos: adds(after, eos, "add_eos_token"),
        ends: end_tokens(named, |text| tokenizer.library.token_to_id(text), |_| None),
    };
    let text = |id: Option<u32>| id.and_then(|id| tokenizer.library.id_to_token(id)).unwrap_or_default();
    let chat = template(folder, &config)?.map(|source| ChatTemplate::new(source, text(bos), text(eos)));
    Ok((tokenizer, settings, chat))
}

/// The object in a JSON file; empty if there is no such file.
fn read_json(path: &Path) -> Result<serde_json::Map<String, Value>, TokenizerError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(serde_json::Map::new()),
        Err(error) => return Err(TokenizerError::file(path, error, "make the file readable")),
    };
    serde_json::from_slice(&bytes).map_err(|error| TokenizerError::file(path, error, DAMAGED))
}

/// A token id, or a list of them.
fn ids(value: Option<&Value>) -> impl Iterator<Item = u32> + '_ {
    let many = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    value.into_iter().chain(many).filter_map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
}

/// The chat template: its own file, else in the tokenizer's settings, where it may be one of several by name.
fn template(
    folder: &Path,
    config: &serde_json::Map<String, Value>,
) -> Result<Option<String>, TokenizerError> {
    let path = folder.join("chat_template.jinja");
    match std::fs::read_to_string(&path) {
        Ok(source) => return Ok(Some(source)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(TokenizerError::file(&path, error, "make it readable UTF-8 text")),
    }
    let older = read_json(&folder.join("chat_template.json"))?;
    Ok(match config.get("chat_template").or_else(|| older.get("chat_template")) {
        Some(Value::String(source)) => Some(source.clone()),
        Some(Value::Array(list)) => {
            let named =
                |name: &str| list.iter().find(|t| t.get("name").and_then(Value::as_str) == Some(name));
            let chosen = named("default").or_else(|| list.first());
            chosen.and_then(|t| t.get("template")).and_then(Value::as_str).map(str::to_owned)
        }
        _ => None,
    })
}

impl HfTokenizer {
    fn from_json(path: &Path, bytes: &[u8]) -> Result<Self, TokenizerError> {
        let json: Value =
            serde_json::from_slice(bytes).map_err(|error| TokenizerError::file(path, error, DAMAGED))?;
        let mut library =
            Library::from_bytes(bytes).map_err(|error| TokenizerError::file(path, error, DAMAGED))?;
        // Settings of the last training run may linger in the file; they would cut or pad every text.
        library.with_padding(None);
        library.with_truncation(None).map_err(|error| TokenizerError::file(path, error, DAMAGED))?;
        let added = library.get_added_tokens_decoder().into_iter().map(|(id, t)| (id, t.content)).collect();
        let greatest = library.get_vocab(true).into_values().max();
        let mut tokenizer = HfTokenizer {
            library,
            ordinary: OnceLock::new(),
            added,
            byte_level: mentions_byte_level(json.get("decoder"))
                || mentions_byte_level(json.get("pre_tokenizer")),
            adds_space: false,
            adds_none: mentions_byte_level(json.get("post_processor")),
            size: greatest.map_or(0, |id| id as usize + 1),
        };
        if tokenizer.size == 0 {
            return Err(TokenizerError::file(path, "the vocabulary is empty", DAMAGED));
        }
        let probe = tokenizer.encode_plain("a")?;
        tokenizer.adds_space = !tokenizer.byte_level
            && probe
                .first()
                .and_then(|&id| tokenizer.library.id_to_token(id))
                .is_some_and(|t| t.starts_with(SPACE));
        Ok(tokenizer)
    }

    fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        ids_of(&self.library, text)
    }

    /// The tokens of `text`, in which special tokens' texts are text as any other.
    pub(super) fn encode_ordinary(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let library = self.ordinary.get_or_init(|| {
            let mut library = self.library.clone();
            library.set_encode_special_tokens(true);
            library
        });
        ids_of(library, text)
    }

    /// What the post-processor puts before and behind a text: at most one token each is looked at.
    fn around(&self) -> Result<(Option<u32>, Option<u32>), TokenizerError> {
        let bare = self.encode_plain("a")?;
        let full = self
            .library
            .encode_fast("a", true)
            .map_err(|error| TokenizerError::Encode { problem: error.to_string().replace('\n', " ") })?;
        let full = full.get_ids();
        let extra = full.len().saturating_sub(bare.len());
        let start = (0..=extra).find(|&at| full[at..].starts_with(&bare)).unwrap_or(0);
        let end = start + bare.len();
        Ok((full[..start].first().copied(), full.get(end..).and_then(|rest| rest.last().copied())))
    }

    /// The tokens of `text` where it stands behind `previous`.
    pub(super) fn encode_after(&self, previous: Option<u32>, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let Some(previous) = previous.filter(|_| self.adds_space) else { return self.encode_plain(text) };
        // The crate cannot begin in the middle of a text, so something of the same kind is put in front and cut off.
        let anchor = self.added.get(&previous).map_or("\n", String::as_str);
        let head = self.encode_plain(anchor)?;
        let mut all = self.encode_plain(&format!("{anchor}{text}"))?;
        if !all.starts_with(&head) {
            return self.encode_plain(text);
        }
        all.drain(..head.len());
        Ok(all)
    }

    /// The bytes that a token stands for; an added token stands for its text, an id out of range for nothing.
    pub(super) fn token_bytes(&self, id: u32) -> Vec<u8> {
        if let Some(text) = self.added.get(&id) {
            return text.as_bytes().to_vec();
        }
        let Some(text) = self.library.id_to_token(id) else { return Vec::new() };
        if self.byte_level {
            return byte_level::unspell(&text);
        }
        match byte_of(&text) {
            Some(byte) => vec![byte],
            None => text.replace(SPACE, " ").into_bytes(),
        }
    }

    /// Whether this is a token that is found in raw text before anything else.
    pub(super) fn is_added(&self, id: u32) -> bool {
        self.added.contains_key(&id)
    }

    /// Whether the text of `ids` begins with a space that encoding put there.
    pub(super) fn begins_with_added_space(&self, ids: &[u32]) -> bool {
        self.adds_space && ids.first().is_some_and(|id| !self.added.contains_key(id))
    }

    /// One more than the greatest id.
    pub(super) fn len(&self) -> usize {
        self.size
    }
}

fn ids_of(library: &Library, text: &str) -> Result<Vec<u32>, TokenizerError> {
    library
        .encode_fast(text, false)
        .map(|encoding| encoding.get_ids().to_vec())
        .map_err(|error| TokenizerError::Encode { problem: error.to_string().replace('\n', " ") })
}

/// Whether a step of the pipeline, or one inside it, is `ByteLevel`.
fn mentions_byte_level(step: Option<&Value>) -> bool {
    match step {
        Some(Value::Object(fields)) => {
            fields.get("type").and_then(Value::as_str) == Some("ByteLevel")
                || fields.values().any(|value| mentions_byte_level(Some(value)))
        }
        Some(Value::Array(list)) => list.iter().any(|value| mentions_byte_level(Some(value))),
        _ => false,
    }
}
