//! `tokenizer.json` as transformers loads it: with the added tokens of the folder's other files.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value as Json;
use tokenizers::tokenizer::AddedToken;

use crate::Result;
use crate::base::folder::{self, Folder, Object};
use crate::tokenizer::VettedTokenizer;

/// transformers takes tokens for bytes in GPT-2's spelling if this is anywhere in the file.
const SPELLED: &[u8] = b"\"ByteLevel\"";
/// Roles of tokens that tokenizer_config.json names one by one.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A tokenizer of the `tokenizers` crate.
pub(super) struct HubTokenizer {
    library: VettedTokenizer,
    /// Tokens with a role of their own, or named as special.
    special: Vec<String>,
}

impl HubTokenizer {
    /// Reads the folder's tokenizer; `json` is the parsed content of its file.
    pub(super) fn open(folder: Folder<'_>, json: &Object) -> Result<Self> {
        let path = folder.join(folder::TOKENIZER);
        let bytes = folder.bytes(folder::TOKENIZER)?.unwrap_or_default();
        let (mut library, ()) = VettedTokenizer::from_bytes(&path, &bytes, |_| ())?;

        let config = folder.object(folder::TOKENIZER_CONFIG)?.unwrap_or_default();
        let listed = config.get("added_tokens_decoder").and_then(Json::as_object);
        let map = folder.object(folder::SPECIAL_TOKENS_MAP)?.filter(|_| listed.is_none()).unwrap_or_default();
        let byte_level = bytes.windows(SPELLED.len()).any(|window| window == SPELLED);
        let (named, more) = special_tokens(&config, &map, byte_level);

        // The tokens that tokenizer_config.json lists, or else the file's own; those with a role are special.
        let mut added: BTreeMap<u64, AddedToken> = BTreeMap::new();
        for (id, token) in listed.into_iter().flatten() {
            added.extend(id.parse().ok().zip(added_token(token)));
        }
        let own = json.get("added_tokens").and_then(Json::as_array).filter(|_| listed.is_none());
        for token in own.into_iter().flatten() {
            added.extend(token.get("id").and_then(Json::as_u64).zip(added_token(token)));
        }
        let mut new: Vec<AddedToken> = added.into_values().collect();
        new.iter_mut().for_each(|token| token.special |= named.contains(&token.content));
        let there = library.added().into_values().chain(new.iter().cloned());
        let there: HashSet<String> = there.map(|token| token.content).collect();
        let special: Vec<String> = named.into_iter().chain(more).collect();
        let missing = special.iter().filter(|text| !there.contains(*text));
        new.extend(missing.map(|text| AddedToken::from(text.as_str(), true)));
        // Their limits are those of the file's own, whichever file names them.
        library.add_tokens(&folder.join(folder::TOKENIZER_CONFIG), new)?;
        Ok(Self { library, special })
    }

    /// The ids of a text, with or without the tokens that the post-processor puts around it.
    pub(super) fn encode(&self, text: &str, around: bool) -> Option<Vec<u32>> {
        self.library.encode(text, around).ok()
    }

    /// The text of ids.
    pub(super) fn decode(&self, ids: &[u32]) -> Option<String> {
        self.library.decode(ids)
    }

    /// Every token by id; an added one hides another of its id.
    pub(super) fn tokens(&self) -> HashMap<u32, String> {
        let mut tokens: HashMap<u32, String> =
            self.library.vocabulary(false).into_iter().map(|(text, id)| (id, text)).collect();
        tokens.extend(self.added().into_iter().map(|(id, token)| (id, token.content)));
        tokens
    }

    /// The added tokens by id.
    pub(super) fn added(&self) -> BTreeMap<u32, AddedToken> {
        self.library.added()
    }

    /// The number of tokens without the added ones.
    pub(super) fn base_size(&self) -> usize {
        self.library.base_size()
    }

    /// Tokens with a role of their own, or named as special.
    pub(super) fn special(&self) -> &[String] {
        &self.special
    }
}

/// The texts of the tokens that have a role, and of the other special ones, each once.
fn special_tokens(config: &Object, map: &Object, byte_level: bool) -> (Vec<String>, Vec<String>) {
    let text = |token: &Json| token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned);
    let class = config.get("tokenizer_class").and_then(Json::as_str).unwrap_or("LlamaTokenizer");
    // The defaults of transformers' LlamaTokenizer, which does not load byte-level files.
    let spelled = class.starts_with("LlamaTokenizer") && !byte_level;
    let mut named = Vec::new();
    for role in ROLES {
        let default = match role {
            "bos_token" => Some("<s>"),
            "eos_token" => Some("</s>"),
            "unk_token" => Some("<unk>"),
            _ => None,
        };
        let default = || default.filter(|_| spelled).map(str::to_owned);
        named.extend(map.get(role).or_else(|| config.get(role)).map_or_else(default, text));
    }
    // Roles that only this model has.
    let own = config.iter().filter(|(key, _)| key.ends_with("_token") && !ROLES.contains(&key.as_str()));
    named.extend(own.filter_map(|(_, token)| token.as_str().map(str::to_owned)));
    let roles = config.get("model_specific_special_tokens").and_then(Json::as_object);
    named.extend(roles.into_iter().flat_map(|roles| roles.values()).filter_map(text));
    let lists = ["extra_special_tokens", "additional_special_tokens"];
    let mut more = Vec::new();
    match lists.iter().find_map(|name| map.get(*name).or_else(|| config.get(*name))) {
        Some(Json::Array(list)) => more.extend(list.iter().filter_map(text)),
        Some(Json::Object(roles)) => named.extend(roles.values().filter_map(text)),
        _ => {}
    }
    let mut seen = HashSet::new();
    let mut unseen = |text: &String| !text.is_empty() && seen.insert(text.clone());
    named.retain(&mut unseen);
    more.retain(unseen);
    (named, more)
}

fn added_token(token: &Json) -> Option<AddedToken> {
    let flag = |name: &str| token.get(name).and_then(Json::as_bool);
    let special = flag("special").unwrap_or(false);
    Some(
        AddedToken::from(token.get("content")?.as_str()?, special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!special)),
    )
}
