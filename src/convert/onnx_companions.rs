//! The files that belong to an ONNX model beside its graph: its configuration, in the form of config.json,
//! and its tokenizer.

use std::path::{Path, PathBuf};

use curmerge_formats::dtype::DType;
use serde_json::Value as Json;

use super::config_json::{self, Tokens, generation, pretty, torch_name};
use crate::Result;
use crate::base::folder::{self, Folder, Object};
use crate::base::{Base, Files, OnnxModel};

/// Keys of config.json that say where an ONNX model is and how to run it.
const OF_ONNX: [&str; 1] = ["transformers.js_config"];
/// The files that are copied into a folder for transformers. Other files beside a model may not belong to it.
const BESIDE: [&str; 13] = [
    folder::GENERATION_CONFIG,
    folder::TOKENIZER,
    folder::SENTENCEPIECE,
    folder::TOKENIZER_CONFIG,
    folder::SPECIAL_TOKENS_MAP,
    folder::ADDED_TOKENS,
    "vocab.json",
    "merges.txt",
    folder::CHAT_TEMPLATE,
    folder::CHAT_TEMPLATE_JSON,
    "README.md",
    "LICENSE",
    "LICENSE.txt",
];

/// The configuration of an ONNX base in the form of config.json: the file beside it, or what
/// genai_config.json and the graph give. `None` for other containers.
///
/// # Errors
/// A file that is not JSON; an option that transformers cannot express.
pub(super) fn configuration_of(base: &Base) -> Result<Option<Object>> {
    match base.files() {
        Files::Onnx(model) => configuration(base, model).map(Some),
        Files::Gguf(_) | Files::HuggingFace(_) => Ok(None),
    }
}

fn configuration(base: &Base, model: &OnnxModel) -> Result<Object> {
    if let Some(config) = Folder::new(model.folder()).object(folder::CONFIG)? {
        return Ok(config);
    }
    config_json::config(base, None, DType::F32, &tokens(model)?)
}

/// The tokens that genai_config.json names.
fn tokens(model: &OnnxModel) -> Result<Tokens> {
    let genai = Folder::new(model.folder()).object(folder::GENAI_CONFIG)?.unwrap_or_default();
    let id = |value: &Json| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = |name: &str| -> Vec<u32> {
        match genai.get("model").and_then(|model| model.get(name)) {
            Some(Json::Array(ids)) => ids.iter().filter_map(id).collect(),
            value => value.and_then(id).into_iter().collect(),
        }
    };
    let first = |name| ids(name).first().copied();
    let ends = ids("eos_token_id");
    Ok(Tokens::named(first("bos_token_id"), first("pad_token_id"), ends))
}

/// Whether the model has an output head other than its embedding. An exporter may store tied weights twice,
/// once transposed, so the values decide.
///
/// # Errors
/// A tensor that cannot be decoded.
pub(super) fn has_own_head(base: &Base, config: &Object) -> Result<bool> {
    let apart = config.get("tie_word_embeddings").and_then(Json::as_bool) == Some(false);
    if !base.tensors().contains_key("output") || apart || !matches!(base.files(), Files::Onnx(_)) {
        return Ok(base.tensors().contains_key("output"));
    }
    let (head, embedding) = (base.weight("output")?, base.weight("token_embd")?);
    if (head.rows(), head.cols()) != (embedding.rows(), embedding.cols()) {
        return Ok(true);
    }
    let mut rows = head.stream().zip(embedding.stream());
    Ok(!rows.all(|((_, a), (_, b))| a == b))
}

/// The names and contents of the files beside the weights, which have this type: config.json,
/// generation_config.json, and the tokenizer's files, unchanged. `own_head` is the result of
/// [`has_own_head`]. If the model has no tokenizer, a note says so.
///
/// # Errors
/// Those of [`configuration_of`]; a file that cannot be read.
pub(super) fn companions(
    base: &Base,
    model: &OnnxModel,
    dtype: DType,
    own_head: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut config = configuration(base, model)?;
    for key in ["dtype", "torch_dtype"] {
        config.insert(key.into(), torch_name(dtype).into());
    }
    config.insert("tie_word_embeddings".into(), (!own_head).into());
    config.retain(|key, _| !OF_ONNX.contains(&key.as_str()));
    let mut files: Vec<(PathBuf, Vec<u8>)> = vec![(folder::CONFIG.into(), pretty(&config.into()).into())];
    let folder = Folder::new(model.folder());
    for name in beside(folder)? {
        let bytes = folder.bytes(&name)?;
        files.extend(bytes.map(|bytes| (name, bytes)));
    }
    let has = |name: &str| files.iter().any(|(known, _)| known == Path::new(name));
    if !has(folder::TOKENIZER) && !has(folder::SENTENCEPIECE) {
        notes.push("the ONNX model has no tokenizer beside it, and the folder has none".into());
    }
    if !has(folder::GENERATION_CONFIG) {
        files.push((folder::GENERATION_CONFIG.into(), generation(&tokens(model)?).into()));
    }
    Ok(files)
}

/// The files of a folder that belong to its ONNX model, without graph and weights, relative to the folder.
///
/// # Errors
/// A folder that cannot be read.
pub(crate) fn of_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let folder = Folder::new(folder);
    let mut found: Vec<PathBuf> =
        [folder::CONFIG, folder::GENAI_CONFIG].into_iter().map(PathBuf::from).collect();
    found.retain(|name| folder.has(name));
    found.extend(beside(folder)?);
    Ok(found)
}

/// The files that any model may have.
fn beside(folder: Folder<'_>) -> Result<Vec<PathBuf>> {
    let templates = folder.additional_chat_templates()?;
    let templates = templates.iter().map(|name| folder::additional_chat_template(name));
    let mut found: Vec<PathBuf> = BESIDE.iter().map(PathBuf::from).chain(templates).collect();
    found.retain(|name| folder.has(name));
    Ok(found)
}
