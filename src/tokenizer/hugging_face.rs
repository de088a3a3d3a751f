//! A tokenizer from a Hugging Face folder, through the `tokenizers` crate.
//!
//! `tokenizer.json` holds the algorithm and the added tokens. Other files of the folder name the tokens that
//! begin and end a text; which files has changed over the years, and the newer ones take precedence.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

use super::byte_level;
use super::error::TokenizerError;
use super::long_text::encode_long;
use super::metaspace::{METASPACE, parse_byte_token};
use super::special_tokens::SpecialTokens;
use super::vetted::VettedTokenizer;
use super::well_known::end_of_generation;
use crate::base::folder::{
    CONFIG, Folder, GENERATION_CONFIG, SPECIAL_TOKENS_MAP, TOKENIZER, TOKENIZER_CONFIG,
};

const DAMAGED: &str = "the file is damaged: fetch the folder again";

/// The tokenizer of a Hugging Face folder, without BOS and EOS.
#[derive(Debug)]
pub(super) struct HfTokenizer {
    library: VettedTokenizer,
    /// The same, but reading special tokens as ordinary text; made on first use.
    ordinary: OnceLock<VettedTokenizer>,
    /// The added tokens, which are found in the raw text before anything else, with their texts.
    added: HashMap<u32, String>,
    /// Whether ordinary tokens are in GPT-2's spelling of bytes, not with `▁` and `<0xAB>`.
    byte_level: bool,
    /// Whether a space is added before a text.
    adds_space: bool,
    /// Whether the post-processor is `ByteLevel`, which adds no token around a text.
    adds_none: bool,
    /// The greatest id plus one.
    size: usize,
}

/// Opens the folder: the tokenizer, and the special tokens around a text.
pub(super) fn open(folder: Folder<'_>) -> crate::Result<(HfTokenizer, SpecialTokens)> {
    let path = folder.join(TOKENIZER);
    let bytes = folder.bytes(TOKENIZER)?.ok_or_else(|| {
        let help = "save the model with AutoTokenizer.save_pretrained, which writes tokenizer.json";
        TokenizerError::file(&path, "missing", help)
    })?;
    let tokenizer = HfTokenizer::from_json(&path, &bytes)?;

    let read = |name: &str| folder.object(name).map(Option::unwrap_or_default);
    let (config, map) = (read(TOKENIZER_CONFIG)?, read(SPECIAL_TOKENS_MAP)?);
    let (model, generation) = (read(CONFIG)?, read(GENERATION_CONFIG)?);

    let special = |name: &str, id_name: &str| -> Result<Option<u32>, TokenizerError> {
        for (file, values) in [(TOKENIZER_CONFIG, &config), (SPECIAL_TOKENS_MAP, &map)] {
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
    // The post-processor decides, as in transformers 5 and llama.cpp's converter; the flag counts if it adds
    // no token.
    let adds = |added: Option<u32>, token: Option<u32>, flag: &str| match added {
        Some(added) => Some(added) == token,
        None if tokenizer.adds_none => false,
        None => config.get(flag).and_then(Value::as_bool).unwrap_or(false) && token.is_some(),
    };
    let named: BTreeSet<u32> = ids(generation.get("eos_token_id"))
        .chain(ids(model.get("eos_token_id")))
        .chain(eos)
        .filter(|&id| (id as usize) < tokenizer.size)
        .collect();
    let special = SpecialTokens {
        bos,
        eos,
        add_bos: adds(before, bos, "add_bos_token"),
        add_eos: adds(after, eos, "add_eos_token"),
        end_of_generation: end_of_generation(named, |text| tokenizer.library.token_to_id(text), |_| None),
    };
    Ok((tokenizer, special))
}

/// The token ids of a value that is one id or a list of ids.
fn ids(value: Option<&Value>) -> impl Iterator<Item = u32> + '_ {
    let many = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    value.into_iter().chain(many).filter_map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
}

impl HfTokenizer {
    fn from_json(path: &Path, bytes: &[u8]) -> Result<Self, TokenizerError> {
        // Whether the decoder or pre-tokenizer, and whether the post-processor, is `ByteLevel`.
        let keep = |json: &Value| {
            let mentions = |part: &str| mentions_byte_level(json.get(part));
            (mentions("decoder") || mentions("pre_tokenizer"), mentions("post_processor"))
        };
        let (library, (byte_level, adds_none)) = VettedTokenizer::from_bytes(path, bytes, keep)?;
        let added = library.added().into_iter().map(|(id, token)| (id, token.content)).collect();
        let greatest = library.vocabulary(true).into_values().max();
        let mut tokenizer = HfTokenizer {
            library,
            ordinary: OnceLock::new(),
            added,
            byte_level,
            adds_space: false,
            adds_none,
            size: greatest.map_or(0, |id| id as usize + 1),
        };
        if tokenizer.size == 0 {
            return Err(TokenizerError::file(path, "the vocabulary is empty", DAMAGED));
        }
        let probe =
            tokenizer.encode_plain("a").map_err(|error| TokenizerError::file(path, error, DAMAGED))?;
        tokenizer.adds_space = !tokenizer.byte_level
            && probe
                .first()
                .and_then(|&id| tokenizer.library.id_to_token(id))
                .is_some_and(|t| t.starts_with(METASPACE));
        Ok(tokenizer)
    }

    fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        encode_long(&self.library, text)
    }

    /// The tokens of `text`, with the texts of special tokens encoded as ordinary text.
    pub(super) fn encode_ordinary(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        encode_long(self.ordinary.get_or_init(|| self.library.ordinary()), text)
    }

    /// The tokens that the post-processor adds before and after a text; of several, the outermost.
    fn around(&self) -> Result<(Option<u32>, Option<u32>), TokenizerError> {
        let bare = self.encode_plain("a")?;
        let full = self.library.encode("a", true)?;
        let extra = full.len().saturating_sub(bare.len());
        let start = (0..=extra).find(|&at| full[at..].starts_with(&bare)).unwrap_or(0);
        let end = start + bare.len();
        Ok((full[..start].first().copied(), full.get(end..).and_then(|rest| rest.last().copied())))
    }

    /// The tokens of `text` where it follows `previous`.
    pub(super) fn encode_after(&self, previous: Option<u32>, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let Some(previous) = previous.filter(|_| self.adds_space) else { return self.encode_plain(text) };
        // The crate cannot begin in the middle of a text. So text of the same kind is put before it, and cut
        // off after.
        let anchor = self.added.get(&previous).map_or("\n", String::as_str);
        let head = self.encode_plain(anchor)?;
        let mut all = self.encode_plain(&format!("{anchor}{text}"))?;
        if !all.starts_with(&head) {
            return self.encode_plain(text);
        }
        all.drain(..head.len());
        Ok(all)
    }

    /// The bytes of a token: for an added token its text, for an id out of range nothing.
    pub(super) fn token_bytes(&self, id: u32) -> Vec<u8> {
        if let Some(text) = self.added.get(&id) {
            return text.as_bytes().to_vec();
        }
        let Some(text) = self.library.id_to_token(id) else { return Vec::new() };
        if self.byte_level {
            return byte_level::unspell(&text);
        }
        match parse_byte_token(&text) {
            Some(byte) => vec![byte],
            None => text.replace(METASPACE, " ").into_bytes(),
        }
    }

    /// Whether this is an added token.
    pub(super) fn is_added(&self, id: u32) -> bool {
        self.added.contains_key(&id)
    }

    /// How the vocabulary spells a token.
    pub(super) fn token_text(&self, id: u32) -> Option<String> {
        self.library.id_to_token(id)
    }

    /// Whether the text of `ids` begins with a space that encoding added.
    pub(super) fn adds_space_before(&self, first: u32) -> bool {
        self.adds_space && !self.added.contains_key(&first)
    }

    /// The greatest id plus one.
    pub(super) fn len(&self) -> usize {
        self.size
    }
}

/// Whether a step of the pipeline, or a step within it, is `ByteLevel`.
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
