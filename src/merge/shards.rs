//! A merged model as files of limited size: splits of a GGUF file, or the shards of a Hugging Face folder.
//!
//! Tensors keep the base's order ([`groups`]). What fits one file is not numbered.

use std::collections::BTreeMap;
use std::ops::Range;

use curmerge_formats::gguf::{GgufModel, Value, split_metadata, split_name};
use curmerge_formats::safetensors::{SafeTensors, shard_name};
use curmerge_formats::shards::groups;
use serde_json::{Value as Json, json};

use super::pieces::{self, Changes, Piece};
use crate::base::folder::Object;
use crate::{Error, Result};

/// A file of the output folder: its name and its content.
pub(super) type NamedPieces<'a> = (String, Vec<Piece<'a>>);

/// The splits of a merged GGUF model, called after `stem`, with this metadata or the base's; the first is what a loader
/// is given.
pub(super) fn of_gguf<'a>(
    model: &'a GgufModel,
    metadata: Option<&[(String, Value)]>,
    changes: &Changes<'a>,
    limit: u64,
    stem: &str,
) -> Result<Vec<NamedPieces<'a>>> {
    let (first, tensors) = (model.first(), pieces::tensors_of_gguf(model));
    let metadata = metadata.map_or_else(|| model.whole_metadata(), <[_]>::to_vec);
    let sizes = tensors.iter().map(|(_, tensor)| {
        let new = changes.get(tensor.name.as_str()).map_or(tensor.bytes, |c| c.output_bytes());
        new.saturating_add(first.alignment() - 1) / first.alignment() * first.alignment()
    });
    let groups = groups(sizes, limit);
    if let [_] = groups[..] {
        let whole = pieces::of_gguf_tensors(first, &metadata, &tensors, changes)?;
        return Ok(vec![(format!("{stem}.gguf"), whole)]);
    }
    let count = groups.len();
    let split = |(index, group): (usize, &Range<usize>)| {
        let metadata = split_metadata(&metadata, index, count, tensors.len())?;
        let pieces = pieces::of_gguf_tensors(first, &metadata, &tensors[group.clone()], changes)?;
        Ok((split_name(stem, index as u64, count as u64), pieces))
    };
    groups.iter().enumerate().map(split).collect()
}

/// The shards of a merged Hugging Face folder, and the text of their index if they need one. `index` is the base's.
pub(super) fn of_safetensors<'a>(
    files: &'a [SafeTensors],
    changes: &Changes<'a>,
    limit: u64,
    index: Option<Object>,
) -> Result<(Vec<NamedPieces<'a>>, Option<String>)> {
    let mut metadata = BTreeMap::new();
    let mut tensors = Vec::new();
    for file in files {
        for (key, text) in file.metadata() {
            metadata.entry(key.clone()).or_insert_with(|| text.clone());
        }
        tensors.extend(file.tensors().iter().map(|tensor| (file, tensor)));
    }
    let size = |name: &str, stored: u64| changes.get(name).map_or(stored, |change| change.output_bytes());
    let sizes = tensors.iter().map(|(_, tensor)| size(&tensor.name, tensor.bytes));
    let total = sizes.clone().fold(0u64, u64::saturating_add);
    let groups = groups(sizes, limit);
    let count = groups.len();
    let (mut shards, mut map) = (Vec::with_capacity(count), BTreeMap::new());
    for (number, group) in groups.into_iter().enumerate() {
        let name = shard_name(number, count);
        let mut own = tensors[group].to_vec();
        // Widest elements first, so that each tensor stands aligned to its own, as other readers map it.
        own.sort_by_key(|(_, tensor)| {
            std::cmp::Reverse(pieces::new_safe_tensor(tensor, changes).dtype.block_bytes())
        });
        map.extend(own.iter().map(|(_, tensor)| (tensor.name.as_str(), name.clone())));
        shards.push((name, pieces::of_safetensors_tensors(&metadata, &own, changes)?));
    }
    if count == 1 {
        return Ok((shards, None));
    }
    let mut kept = match index.as_ref().and_then(|index| index.get("metadata")) {
        Some(Json::Object(kept)) => kept.clone(),
        _ => serde_json::Map::new(),
    };
    kept.insert("total_size".into(), json!(total));
    let text = serde_json::to_string_pretty(&json!({ "metadata": kept, "weight_map": map }));
    let text = text.map_err(|e| Error::request(format!("the index: {e}"), "leave out --max-shard-size"))?;
    Ok((shards, Some(text + "\n")))
}
