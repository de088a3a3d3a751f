//! The mixture of experts of a GGUF file, from its `ARCH.*` keys with llama.cpp's defaults.

use curmerge_formats::gguf::{GgufModel, Value};

use super::{DAMAGED, count};
use crate::arch::{Architecture, SharedExpertWidth};
use crate::base::config::{Experts, MAX_LAYERS};
use crate::{Error, Result};

const VARIANT: &str = "this variant of the architecture is not supported yet";

/// The experts, if there are any; `ff` is the width of a dense feed-forward part.
///
/// # Errors
/// Experts in a family that has none, or none in one that has; a count that is missing; widths that differ between
/// blocks.
pub(super) fn read(
    model: &GgufModel,
    architecture: &'static Architecture,
    ff: usize,
) -> Result<Option<Experts>> {
    let gguf = model.first();
    let key = |name: &str| format!("{}.{name}", architecture.name);
    let get = |name: &str| gguf.get(&key(name));
    let number = |name: &str| get(name).and_then(Value::as_u64).map(|n| n as usize);
    let unlike = |name: &str, problem: &str| Error::input(gguf.path(), key(name), problem, VARIANT);
    let shared = ["expert_shared_count", "expert_shared_feed_forward_length"];
    let shared = shared.into_iter().find(|key| number(key).is_some_and(|n| n > 0));
    let experts = number("expert_count").filter(|&count| count > 0);
    // Files of Granite 4 without experts have such a key, too.
    if let Some(key) = shared.filter(|_| experts.is_some() && !architecture.has_shared_expert()) {
        return Err(unlike(key, "there are shared experts"));
    }
    if experts.is_some() != architecture.has_experts() {
        let problem = "the architecture and the file disagree on whether there are experts";
        return Err(unlike("expert_count", problem));
    }
    let Some(experts) = experts else { return Ok(None) };
    let used = number("expert_used_count");
    let missing =
        || Error::input(gguf.path(), key("expert_used_count"), "missing or not a whole number", DAMAGED);
    let width = match get("expert_feed_forward_length") {
        None => ff,
        Some(value) => {
            let differ =
                || unlike("expert_feed_forward_length", "it is not one positive number for all blocks");
            count(value).ok_or_else(differ)?
        }
    };
    let own = || number("expert_shared_feed_forward_length").filter(|&given| given > 0);
    let shared_ff = match architecture.gguf.shared_expert {
        _ if !architecture.has_shared_expert() => None,
        SharedExpertWidth::OwnOrUsual => Some(own().unwrap_or(ff)),
        SharedExpertWidth::Own => own(),
        SharedExpertWidth::Count => {
            let times = number("expert_shared_count").filter(|&times| times > 0);
            // What is out of range is refused with the other sizes.
            times.map(|times| times.saturating_mul(width))
        }
    };
    let by_keys = architecture.gguf.normalizes_experts.is_none();
    // llama.cpp takes 0 for none.
    let scale = get("expert_weights_scale").and_then(Value::as_f64).filter(|&scale| by_keys && scale != 0.0);
    let groups = number("expert_group_count").unwrap_or(0).max(1);
    Ok(Some(Experts {
        count: experts,
        used: used.ok_or_else(missing)?,
        ff: width,
        shared_ff,
        latent: number("moe_latent_size").filter(|&width| width != 0),
        normalized: match architecture.gguf.normalizes_experts {
            Some(always) => always,
            None => get("expert_weights_norm") == Some(&Value::Bool(true)),
        },
        scale: scale.unwrap_or(1.0),
        groups: [groups, if groups == 1 { 1 } else { number("expert_group_used_count").unwrap_or(0) }],
        selection_bias: true,
    }))
}

/// Whether each block has an MLP in place of experts; empty if none has.
pub(super) fn dense(model: &GgufModel, architecture: &Architecture, layers: usize) -> Vec<bool> {
    let key = format!("{}.leading_dense_block_count", architecture.name);
    let first = model.first().get(&key).and_then(Value::as_u64).filter(|_| architecture.gguf.dense_first);
    // The dimensions are not checked yet: they must not size an allocation.
    first
        .map_or(Vec::new(), |first| (0..layers.min(MAX_LAYERS)).map(|layer| (layer as u64) < first).collect())
}
