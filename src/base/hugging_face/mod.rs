//! A base in a Hugging Face folder: its tensors, and its configuration from config.json with transformers'
//! defaults.

mod blocks;
mod config;
mod experts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use curmerge_formats::safetensors::{SafeTensors, shard_index};
use serde_json::Value as Json;

use super::config::Config;
use super::folder::{CONFIG, Folder};
use super::opened::Opened;
use super::quantized::{self, Joined, Matrix, Method};
use super::row_order::RowOrder;
use super::tensor::BaseTensor;
use super::tensors::layer_part;
use super::unread;
use super::{joined_experts, joined_rows};
use crate::arch::{self, Architecture, Blocks, TensorNames};
use crate::{Error, Result};

/// Canonical names.
const EMBEDDING: &str = "token_embd";
const HEAD: &str = "output";

/// Opens a folder with config.json and safetensors files.
pub(super) fn open(folder: &Path) -> Result<Opened<Vec<SafeTensors>>> {
    unread::refuse(Folder::new(folder))?;
    let quantized = Method::of_folder(Folder::new(folder))?;
    let model_type = model_type(Folder::new(folder))?;
    let (architecture, architecture_name, mut config) = match of_model_type(Folder::new(folder), &model_type)?
    {
        Some(known) => (known, known.name.to_string(), Config::from_folder(Folder::new(folder), known)?),
        None => (arch::UNKNOWN, model_type, Config::unknown()),
    };
    let files = shards(folder)?;
    let joined = quantized.map(|method| quantized::join(&files, method)).transpose()?.unwrap_or_default();
    let tensors = tensors(&files, (architecture, &config), joined)?;
    let notes = match architecture.name {
        "" => Vec::new(),
        _ => {
            config.prediction_blocks = prediction_blocks(architecture, &tensors, config.layers);
            settle(Folder::new(folder), &tensors, &mut config)?
        }
    };
    Ok(Opened { files, architecture, architecture_name, config, tensors, uncomputed: None, notes })
}

/// Settles what config.json and the tensors contradict each other in, and says so, one line each.
fn settle(
    folder: Folder<'_>,
    tensors: &BTreeMap<String, BaseTensor>,
    config: &mut Config,
) -> Result<Vec<String>> {
    let path = folder.join(CONFIG);
    let path = path.display();
    let mut notes = Vec::new();
    // A vocabulary that was resized without its configuration.
    let embedding = tensors.get(EMBEDDING).and_then(|tensor| tensor.shape.first());
    if let Some(rows) = embedding.map(|rows| *rows as usize).filter(|rows| *rows != config.vocab) {
        let says = format!("{path}: vocab_size is {}, but the embedding has {rows} rows", config.vocab);
        notes.push(format!("{says}; {rows} is used"));
        config.vocab = rows;
        config.check_vocabularies(&folder.join(CONFIG))?;
    }
    if !tensors.contains_key(HEAD) && language_model(folder)?["tie_word_embeddings"] == false {
        let says = "tie_word_embeddings is false, but there is no lm_head";
        notes.push(format!(
            "{path}: {says}; the embedding is used as the head, and transformers would draw one"
        ));
    }
    Ok(notes)
}

/// The number of blocks that predict further tokens, after the model's own `layers`.
fn prediction_blocks(
    architecture: &'static Architecture,
    tensors: &BTreeMap<String, BaseTensor>,
    layers: usize,
) -> usize {
    if architecture.names().all(|line| line.blocks != Blocks::Prediction) {
        return 0;
    }
    let start = architecture.hugging_face.prediction;
    let predicting =
        tensors.iter().filter(|(_, tensor)| start.is_none_or(|own| tensor.stored_name.starts_with(own)));
    let ends = predicting.filter_map(|(name, _)| Some(layer_part(name)?.0.saturating_add(1)));
    ends.max().map_or(0, |end| end.saturating_sub(layers))
}

/// The safetensors files of a folder, sorted by name, which hold every tensor that the index assigns to them.
fn shards(folder: &Path) -> Result<Vec<SafeTensors>> {
    let index = shard_index(folder)?;
    let names: Vec<&str> = match &index {
        Some(index) => index.values().collect::<BTreeSet<_>>().into_iter().map(|n| &**n).collect(),
        None => vec!["model.safetensors"],
    };
    let files = names
        .iter()
        .map(|n| SafeTensors::open(&folder.join(n)))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    for (tensor, name) in index.iter().flatten() {
        let held = names.binary_search(&name.as_str()).is_ok_and(|n| files[n].tensor(tensor).is_some());
        if !held {
            return Err(Error::input(
                folder.join(name),
                format!("tensor '{}'", tensor.escape_debug()),
                "not in this file, where the index says it is",
                "download the folder again",
            ));
        }
    }
    Ok(files)
}

/// All tensors by canonical name, or by the container's name if the architecture has none.
fn tensors(
    files: &[SafeTensors],
    (architecture, config): (&'static Architecture, &Config),
    joined: Joined,
) -> Result<BTreeMap<String, BaseTensor>> {
    let plain = files.iter().enumerate().flat_map(|(file, shard)| {
        let tensors = shard.tensors().iter().filter(|tensor| !joined.used.contains(&tensor.name));
        tensors.map(move |t| {
            let place = [t.offset, t.bytes];
            (t.name.clone(), t.dtype, t.shape.clone(), (file, place), None)
        })
    });
    let quantized = joined.matrices.into_iter().map(|(name, Matrix { shape, codes, beside })| {
        let place = [codes.offset, codes.bytes];
        (name, codes.dtype, shape.to_vec(), (codes.file, place), Some(beside))
    });
    let mut tensors = BTreeMap::new();
    for (name, dtype, shape, (file, [offset, bytes]), quantized) in plain.chain(quantized) {
        let (stem, bias) = match name.strip_suffix(".bias") {
            Some(stem) => (stem, ".bias"),
            None => (name.strip_suffix(".weight").unwrap_or(&name), ""),
        };
        let predicting = architecture.of_prediction(stem, config.layers);
        let (canonical, names) = match architecture.of_hugging_face(predicting.as_deref().unwrap_or(stem)) {
            Some((name, names)) if bias.is_empty() || names.bias.is_some() => (name + bias, Some(names)),
            _ if architecture.name.is_empty() => (format!("{stem}{bias}"), None),
            _ => (name.clone(), None),
        };
        let shape = match (names, &shape[..]) {
            (Some(TensorNames { convolution: true, .. }), &[channels, 1, taps]) => vec![channels, taps],
            (Some(TensorNames { one_row: true, .. }), &[1, length]) => vec![length],
            _ => shape,
        };
        let own = names
            .filter(|names| names.rotary_halves.is_none() && (bias.is_empty() || names.groups.is_some()));
        let orders = [
            own.and_then(|names| config.hugging_face_order(names, *shape.first()?)),
            own.and_then(|names| config.hugging_face_columns(names, *shape.last()?)),
        ];
        let tensor = BaseTensor {
            stored_name: name.clone(),
            dtype,
            shape,
            file,
            offset,
            bytes,
            rotary_halves: names.and_then(|n| n.rotary_halves).map(|h| config.head_count(h)),
            // Where a length is wrong, the check of shapes says so.
            orders: orders.map(|order| order.unwrap_or(RowOrder::CANONICAL)),
            // What is quantized is so as [out, in].
            transposed: names.is_some_and(|n| n.transposed) && bias.is_empty() && quantized.is_none(),
            unit_offset: names.is_some_and(|n| n.unit_offset) && bias.is_empty(),
            log_of_negative: names.is_some_and(|n| n.log_of_negative) && bias.is_empty(),
            nbits: None,
            quantized,
            slice: None,
        };
        let path = files[file].path();
        let plain_name = architecture.unprefixed(stem);
        let joined_name = predicting.as_deref().unwrap_or(&plain_name);
        let split = match bias.is_empty() {
            true => joined_rows::split(path, (architecture, config), joined_name, &tensor)?,
            false => None,
        };
        let split = match split {
            None => joined_experts::split(path, (architecture, config), joined_name, &tensor)?,
            split => split,
        };
        if split.is_none() && tensor.is_mxfp4() {
            let problem =
                "MXFP4 is read of experts that gpt-oss has in one tensor, and this is another matrix";
            let help = "use the model that it was made from, or a GGUF file of it";
            return Err(Error::input(path, format!("tensor '{name}'"), problem, help));
        }
        let new = split.unwrap_or_else(|| vec![(canonical, tensor)]);
        if new.into_iter().any(|(canonical, tensor)| tensors.insert(canonical, tensor).is_some()) {
            return Err(Error::input(
                files[file].path(),
                format!("tensor '{name}'"),
                "stored twice in this folder's files",
                "download the folder again",
            ));
        }
    }
    Ok(tensors)
}

/// The `model_type` of config.json, or that of its `text_config` if this is a vision model of such a family; empty
/// if it has none.
///
/// # Errors
/// A missing file, or one that is not a JSON object.
pub(super) fn model_type(folder: Folder<'_>) -> Result<String> {
    let config = Json::from(folder.config()?);
    let named = |json: &Json| json["model_type"].as_str().unwrap_or_default().to_string();
    let (own, text) = (named(&config), named(&config["text_config"]));
    let within = |text: &Architecture| text.hugging_face.within.contains(&own.as_str());
    let of_text = arch::by_model_type(&text, |_| false).is_some_and(within);
    Ok(if of_text { text } else { own })
}

/// The architecture of the folder's model, which has this `model_type`.
pub(super) fn of_model_type(folder: Folder<'_>, model_type: &str) -> Result<Option<&'static Architecture>> {
    let json = language_model(folder)?;
    Ok(arch::by_model_type(model_type, |by| by.holds(&json)))
}

/// The keys of the language model in config.json, for a multimodal model those of its `text_config`.
fn language_model(folder: Folder<'_>) -> Result<Json> {
    let mut json = Json::from(folder.config()?);
    let own = json["text_config"].take();
    Ok(if own.is_object() { own } else { json })
}
