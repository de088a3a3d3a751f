//! A LoRA in a folder, as mlx-lm's `lora` command writes it.
//!
//! `adapters.safetensors` has `MODULE.lora_a` `[in, rank]` and `MODULE.lora_b` `[rank, out]`, and the layer
//! computes `y + scale * (x lora_a) lora_b`. `adapter_config.json` has `fine_tune_type` and the scale in
//! `lora_parameters`. Source: `LoRALinear` and `linear_to_lora_layers` in mlx-lm.

use std::path::Path;

use curmerge_formats::safetensors::SafeTensors;
use serde_json::Value as Json;

use super::{File, Lora, Pairs, Stored, Target, TrainedOn, modules, peft};
use crate::base::Base;
use crate::base::folder::Folder;
use crate::{Error, Result};

/// The file of the matrices.
pub(super) const WEIGHTS: &str = "adapters.safetensors";

const PARTS: [&str; 2] = [".lora_a", ".lora_b"];
/// mlx-lm's own default.
const DEFAULT_SCALE: f64 = 20.0;

/// Whether a folder with an adapter's settings is mlx-lm's.
pub(super) fn is_folder(folder: &Path) -> bool {
    let json = Folder::new(folder).object(peft::CONFIG).ok().flatten();
    json.is_some_and(|json| !json.contains_key("peft_type") && json.contains_key("fine_tune_type"))
}

pub(super) fn open(folder: &Path, base: &Base) -> Result<Lora> {
    let config = folder.join(peft::CONFIG);
    let json = Folder::new(folder).object(peft::CONFIG)?.unwrap_or_default();
    let kind = json.get("fine_tune_type").and_then(Json::as_str).unwrap_or_default();
    if kind != "lora" {
        let problem = format!("is '{}': only 'lora' of mlx-lm can be merged", kind.escape_debug());
        return Err(Error::input(config, "fine_tune_type", problem, "merge it with mlx_lm.fuse instead"));
    }
    let scale = match json.get("lora_parameters").and_then(|parameters| parameters.get("scale")) {
        None => Some(DEFAULT_SCALE),
        Some(scale) => scale.as_f64().filter(|scale| scale.is_finite()),
    };
    let Some(scale) = scale else {
        let problem = "is not a number";
        return Err(Error::input(config, "lora_parameters.scale", problem, "write the adapter again"));
    };
    let path = folder.join(WEIGHTS);
    let file = SafeTensors::open(&path)?;
    let mut pairs = Pairs::default();
    for tensor in file.tensors() {
        let stem = |part: usize| tensor.name.strip_suffix(PARTS[part]).map(|module| (module, part));
        let Some((module, part)) = stem(0).or(stem(1)) else {
            let place = format!("tensor '{}'", tensor.name.escape_debug());
            let problem = "is not a LoRA matrix of a linear layer";
            return Err(Error::input(&path, place, problem, "only adapters of these can be merged"));
        };
        let place = tensor.offset..tensor.offset + tensor.bytes;
        let stored = Stored::new(&path, &tensor.name, tensor.dtype, &tensor.shape, place)?.transposed();
        if let Some(names) = modules::joined(base, module) {
            names.into_iter().try_for_each(|name| pairs.put(&path, name, part, stored.clone()))?;
            continue;
        }
        let name = modules::canonical(base, module, &path, &tensor.name)?;
        pairs.put(&path, name, part, stored)?;
    }
    let targets = pairs.finish(&path, |name, a, b| {
        let [order, columns] = modules::orders(base, name, [b.rows, a.cols], &path, &b.name)?;
        Ok(Target { a, b, order, columns, scale: scale as f32 })
    })?;
    let model = json.get("model").and_then(Json::as_str).filter(|name| !name.is_empty());
    let trained_on = model.map(|name| TrainedOn { name: name.into(), revision: None });
    Ok(Lora { path: folder.into(), file: File::SafeTensors(file), targets, trained_on })
}
