//! A LoRA in a GGUF file, as convert_lora_to_gguf.py and `curmerge export` write it and llama.cpp loads it.
//!
//! [`crate::export`] describes its content. llama.cpp multiplies by `alpha / rank`, or by 1 if alpha is 0.

use std::path::Path;

use curmerge_formats::gguf::{Gguf, Value};

use super::{File, Lora, Pairs, Stored, Target, TrainedOn, experts, modules};
use crate::base::{Base, RowOrder};
use crate::{Error, Result};

const PARTS: [&str; 2] = [".weight.lora_a", ".weight.lora_b"];

fn text<'a>(gguf: &'a Gguf, key: &str) -> Option<&'a str> {
    gguf.get(key).and_then(Value::as_str)
}

pub(super) fn is_lora(gguf: &Gguf) -> bool {
    text(gguf, "general.type") == Some("adapter")
}

pub(super) fn open(path: &Path, base: &Base) -> Result<Lora> {
    let gguf = Gguf::open(path)?;
    let refuse = |key: &str, problem: &str, help: &str| Err(Error::input(path, key, problem, help));
    if !is_lora(&gguf) {
        return refuse("general.type", "is not 'adapter'", "name an adapter, not a model");
    }
    if text(&gguf, "adapter.type") != Some("lora") {
        return refuse("adapter.type", "is not 'lora'", "only LoRA adapters can be merged");
    }
    if text(&gguf, "general.architecture") != Some(base.architecture_name()) {
        let problem = format!("is not the base's, '{}'", base.architecture_name().escape_debug());
        return refuse("general.architecture", &problem, "use the base that it was trained on");
    }
    if gguf.get("adapter.alora.invocation_tokens").is_some() {
        let problem = "it acts only after certain tokens (an activated LoRA)";
        return refuse("adapter.alora.invocation_tokens", problem, "load it beside the base instead");
    }
    let alpha = match gguf.get("adapter.lora.alpha") {
        Some(Value::F32(alpha)) if alpha.is_finite() => *alpha,
        _ => return refuse("adapter.lora.alpha", "missing or not a number", "write the adapter again"),
    };
    let mut pairs = Pairs::default();
    for tensor in gguf.tensors() {
        let stem = |part: usize| tensor.name.strip_suffix(PARTS[part]).map(|name| (name, part));
        let is_linear = |name: &str| {
            name.starts_with("blk.")
                || name == "output" && base.place(name).is_some()
                || modules::is_projection(base, name)
        };
        let Some((name, part)) = stem(0).or(stem(1)).filter(|(name, _)| is_linear(name)) else {
            let place = format!("tensor '{}'", tensor.name.escape_debug());
            let problem = "is not a LoRA matrix of a linear layer";
            return Err(Error::input(path, place, problem, "only adapters of these can be merged"));
        };
        let place = tensor.offset..tensor.offset + tensor.bytes;
        if let [experts, rows, cols] = tensor.shape()[..] {
            let of_base = base.config().experts.map(|of_base| of_base.count as u64);
            if of_base != Some(experts) {
                let place = format!("tensor '{}'", tensor.name.escape_debug());
                let problem = format!("has {experts} experts, which the base does not have there");
                return Err(Error::input(path, place, problem, "use the base that it was trained on"));
            }
            let shape = [experts.saturating_mul(rows), cols];
            let whole = Stored::new(path, &tensor.name, tensor.dtype, &shape, place)?;
            for (name, stored) in experts::stacked(name, experts, whole) {
                pairs.put(path, name, part, stored)?;
            }
            continue;
        }
        let stored = Stored::new(path, &tensor.name, tensor.dtype, &tensor.shape(), place)?;
        pairs.put(path, name.into(), part, stored)?;
    }
    let targets = pairs.finish(path, |_, a, b| {
        let scale = if alpha == 0.0 { 1.0 } else { alpha / b.cols as f32 };
        Ok(Target { a, b, order: RowOrder::CANONICAL, columns: RowOrder::CANONICAL, scale })
    })?;
    let trained_on =
        text(&gguf, "general.base_model.0.name").map(|name| TrainedOn { name: name.into(), revision: None });
    Ok(Lora { path: path.into(), file: File::Gguf(gguf), targets, trained_on })
}
