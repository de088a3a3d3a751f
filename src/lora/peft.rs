//! A LoRA in a folder, as PEFT's `save_pretrained` writes it.
//!
//! adapter_config.json has `r` and `lora_alpha`. `rank_pattern` and `alpha_pattern` override them for modules
//! whose name ends in a match of a regular expression. The scale is `alpha / r`, or `alpha / sqrt(r)` with
//! `use_rslora` (Kalajdzievski 2023). A is `[r, in]` and B `[out, r]`, also for a module that stores `[in,
//! out]`: `fan_in_fan_out` is about the module alone, and PEFT corrects it if it is wrong, so it matters only
//! for unknown architectures. Source: `LoraConfig`, `LoraLayer.update_layer` and `get_pattern_key` in peft.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use curmerge_formats::safetensors::SafeTensors;
use regex::Regex;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;

use super::{File, Lora, Pairs, Stored, Target, TrainedOn, experts, modules, whole};
use crate::base::Base;
use crate::base::folder::Folder;
use crate::base::json;
use crate::{Error, Result};

/// The file of the matrices.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// The file of the adapter's settings.
pub const CONFIG: &str = "adapter_config.json";

/// A and B of a linear layer.
const PARTS: [&str; 2] = ["lora_A", "lora_B"];

/// The module whose A (0) or B (1) has this name, and which of the two it is. A raw state dict has the
/// adapter's name before `weight`.
fn module(tensor: &str) -> Option<(String, usize)> {
    let segments = modules::segments(tensor);
    let own = segments.strip_suffix(&["weight"])?;
    let part_of = |own: &[&str]| PARTS.iter().position(|part| own.last() == Some(part));
    let (own, part) = match (part_of(own), own.split_last()) {
        (Some(part), Some((_, module))) => (module, part),
        (None, Some((_, rest))) => (&rest[..rest.len().checked_sub(1)?], part_of(rest)?),
        _ => return None,
    };
    let own =
        own.strip_prefix(&["base_model"]).map_or(own, |own| own.strip_prefix(&["model"]).unwrap_or(own));
    Some((own.join("."), part))
}

pub(super) fn is_folder(path: &Path) -> bool {
    path.join(CONFIG).is_file()
}

pub(super) fn open(folder: &Path, base: &Base) -> Result<Lora> {
    let config_path = folder.join(CONFIG);
    let config = Config::read(Folder::new(folder), &config_path)?;
    modules::refuse_pickled(folder, WEIGHTS)?;
    let path = folder.join(WEIGHTS);
    let file = SafeTensors::open(&path)?;
    let (mut pairs, mut changed) = (Pairs::default(), BTreeSet::new());
    // The shape of a square matrix does not show how it is stored.
    if config.fan_in_fan_out && !base.is_known() {
        let name = base.architecture_name().escape_debug();
        let problem =
            format!("is true, and '{name}' is not known: its modules may be stored either way round");
        let help = "merge it with PEFT's merge_and_unload instead";
        return Err(Error::input(config_path, "fan_in_fan_out", problem, help));
    }
    for tensor in file.tensors() {
        let refuse = |problem: &str, help: &str| {
            let place = format!("tensor '{}'", tensor.name.escape_debug());
            Err(Error::input(&path, place, problem, help))
        };
        let Some((module, part)) = module(&tensor.name) else {
            match whole::Whole::new(&tensor.name, &config.whole_modules) {
                Some(whole) => whole.check(base, &path, tensor, file.data(tensor))?,
                None => {
                    let help = "only adapters of these can be merged";
                    return refuse("is not a LoRA matrix of a linear layer", help);
                }
            }
            continue;
        };
        let place = tensor.offset..tensor.offset + tensor.bytes;
        let stored = Stored::new(&path, &tensor.name, tensor.dtype, &tensor.shape, place)?;
        if let Some(parameter) = experts::parameter(&module, &config.parameters) {
            for (name, stored) in parameter.matrices(base, &path, (stored, part))? {
                pairs.put(&path, name, part, stored)?;
            }
            changed.insert(format!(".{}", parameter.name));
            continue;
        }
        changed.insert(format!(".{module}.weight"));
        if let Some(names) = modules::joined(base, &module) {
            names.into_iter().try_for_each(|name| pairs.put(&path, name, part, stored.clone()))?;
            continue;
        }
        let name = modules::canonical(base, &module, &path, &tensor.name)?;
        pairs.put(&path, name, part, stored)?;
    }
    config.check_parameters(&changed)?;
    config.check_whole_modules(file.tensors().iter().map(|tensor| tensor.name.as_str()))?;
    let targets = pairs.finish(&path, |name, a, b| {
        let [order, columns] = modules::orders(base, name, [b.rows, a.cols], &path, &b.name)?;
        // Patterns match the names of modules.
        let scale = config.scale(&module(&a.name).unwrap_or_default().0, a.rows)?;
        Ok(Target { a, b, order, columns, scale })
    })?;
    let trained_on = config.trained_on;
    Ok(Lora { path: folder.into(), file: File::SafeTensors(file), targets, trained_on })
}

/// The patterns of adapter_config.json.
#[derive(serde::Deserialize)]
struct Patterns {
    #[serde(default)]
    rank_pattern: InOrder,
    #[serde(default)]
    alpha_pattern: InOrder,
}

/// The entries of an object in the order of the file: PEFT takes the first pattern that matches.
#[derive(Default)]
struct InOrder(Vec<(String, Json)>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = InOrder;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or null")
            }

            fn visit_unit<E>(self) -> std::result::Result<InOrder, E> {
                Ok(InOrder::default())
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<InOrder, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(InOrder(entries))
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

/// The part of adapter_config.json that determines the change.
struct Config<'a> {
    path: &'a Path,
    alpha: f64,
    alphas: Vec<(Regex, f64)>,
    ranks: Vec<(Regex, f64)>,
    rank: f64,
    rslora: bool,
    fan_in_fan_out: bool,
    /// `target_parameters`
    parameters: Vec<String>,
    /// `modules_to_save`
    whole_modules: Vec<String>,
    trained_on: Option<TrainedOn>,
}

impl<'a> Config<'a> {
    fn read(folder: Folder<'_>, path: &'a Path) -> Result<Self> {
        let refuse = |key: &str, problem: &str, help: &str| Error::input(path, key, problem, help);
        let json = folder.object(CONFIG)?.unwrap_or_default();
        if json.get("peft_type").and_then(Json::as_str) != Some("LORA") {
            return Err(refuse("peft_type", "is not LORA", "only LoRA adapters can be merged"));
        }
        for (key, what) in REFUSED {
            if json.get(*key).is_some_and(|value| !is_off(value)) {
                return Err(refuse(key, what, "merge it with PEFT's merge_and_unload instead"));
            }
        }
        if let Some(how) = json.get("init_lora_weights").and_then(Json::as_str)
            && !KEEPS_BASE.contains(&how.to_ascii_lowercase().as_str())
        {
            let how: String = how.chars().take(60).collect();
            let problem = match CHANGES_BASE.iter().any(|start| how.to_ascii_lowercase().starts_with(start)) {
                true => format!("'{how}' changed the base before training"),
                false => format!("'{}' is not known to leave the base as it was", how.escape_debug()),
            };
            let help = "save it with path_initial_model_for_weight_conversion, which makes it a plain LoRA";
            return Err(refuse("init_lora_weights", &problem, help));
        }
        if let Some((key, _)) = json.iter().find(|(key, value)| {
            !KNOWN.contains(&key.as_str()) && matches!(value, Json::Bool(true) | Json::Object(_))
        }) {
            let key: String = key.chars().take(60).collect();
            let problem = "is not known, and may change what the adapter computes";
            return Err(refuse(&key, problem, "merge it with PEFT's merge_and_unload instead"));
        }
        let texts = |key: &str| -> Vec<String> {
            let list = json.get(key).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(Json::as_str).map(str::to_owned).collect()
        };
        let text = |key: &str| json.get(key).and_then(Json::as_str).map(str::to_owned);
        let trained_on = text("base_model_name_or_path")
            .filter(|name| !name.is_empty())
            .map(|name| TrainedOn { name, revision: text("revision") });
        let number = |key: &str, least: f64| {
            let value = json.get(key).and_then(Json::as_f64).filter(|x| x.is_finite() && *x >= least);
            value.ok_or_else(|| refuse(key, "missing or not a usable number", "write the adapter again"))
        };
        let text = folder.text(CONFIG)?.unwrap_or_default();
        let ordered: Patterns = json::parse(text.as_bytes()).map_err(|_| {
            refuse("rank_pattern or alpha_pattern", "is not an object", "write the adapter again")
        })?;
        let patterns = |key: &str, entries: &InOrder| {
            let entries = entries.0.iter().map(|(pattern, value)| {
                let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$")).ok();
                regex.zip(value.as_f64()).ok_or_else(|| {
                    let shown: String = pattern.chars().take(60).collect();
                    let problem =
                        format!("'{}' is not a regular expression with a number", shown.escape_debug());
                    refuse(key, &problem, "write the adapter again")
                })
            });
            entries.collect::<Result<Vec<_>>>()
        };
        let flag = |key: &str| json.get(key).and_then(Json::as_bool).unwrap_or(false);
        Ok(Self {
            path,
            alpha: number("lora_alpha", f64::NEG_INFINITY)?,
            alphas: patterns("alpha_pattern", &ordered.alpha_pattern)?,
            ranks: patterns("rank_pattern", &ordered.rank_pattern)?,
            rank: number("r", 1.0)?,
            rslora: flag("use_rslora"),
            fan_in_fan_out: flag("fan_in_fan_out"),
            parameters: texts("target_parameters"),
            whole_modules: texts("modules_to_save"),
            trained_on,
        })
    }

    /// Refuses an adapter of a parameter that is none of the `changed` ones.
    fn check_parameters(&self, changed: &BTreeSet<String>) -> Result<()> {
        let is_there = |wanted: &&String| {
            let own = wanted.rsplit('.').next().unwrap_or_default();
            changed.contains(&format!(".{own}"))
                || changed.iter().any(|parameter| parameter.ends_with(&format!(".{wanted}")))
        };
        let Some(missing) = self.parameters.iter().find(|wanted| !is_there(wanted)) else { return Ok(()) };
        let problem =
            format!("'{}' is no parameter of experts that the file has a LoRA of", missing.escape_debug());
        let help = "merge it with PEFT's merge_and_unload instead";
        Err(Error::input(self.path, "target_parameters", problem, help))
    }

    /// Refuses an adapter whose file lacks a module that was trained as a whole.
    fn check_whole_modules<'n>(&self, tensors: impl Iterator<Item = &'n str>) -> Result<()> {
        let modules: Vec<String> = tensors.filter_map(whole::module).collect();
        let is_there = |wanted: &&String| {
            let ending = format!(".{wanted}");
            modules.iter().any(|module| module == *wanted || module.ends_with(&ending))
        };
        let Some(missing) = self.whole_modules.iter().find(|module| !is_there(module)) else { return Ok(()) };
        let problem = format!("'{}' was trained as a whole, and is not in the file", missing.escape_debug());
        Err(Error::input(
            self.path,
            "modules_to_save",
            problem,
            "merge it with PEFT's merge_and_unload instead",
        ))
    }

    /// The factor of `B A` of a module whose A has this many rows.
    fn scale(&self, module: &str, rows: usize) -> Result<f32> {
        let of = |patterns: &[(Regex, f64)], otherwise: f64| {
            patterns.iter().find(|(regex, _)| regex.is_match(module)).map_or(otherwise, |(_, value)| *value)
        };
        let (alpha, rank) = (of(&self.alphas, self.alpha), of(&self.ranks, self.rank));
        if rank != rows as f64 {
            let problem = format!("gives {module} the rank {rank}, but its matrices have {rows}");
            return Err(Error::file(self.path, problem, "write the adapter again"));
        }
        Ok((alpha / if self.rslora { rank.sqrt() } else { rank }) as f32)
    }
}

/// Keys that make an adapter more than `B A` on linear layers, and why it cannot be merged.
const REFUSED: &[(&str, &str)] = &[
    ("use_dora", "DoRA also scales the columns of the sum"),
    ("lora_bias", "biases were trained"),
    ("bias", "biases were trained"),
    ("trainable_token_indices", "embeddings were trained"),
    ("layer_replication", "the base's layers were repeated"),
    ("alora_invocation_tokens", "it acts only after certain tokens"),
    ("use_qalora", "its A acts on sums of groups of inputs"),
    ("use_bdlora", "its matrices are block-diagonal"),
    ("arrow_config", "it chooses among other adapters"),
    ("kasa_config", "it changed the base before training"),
    ("monteclora_config", "its weights are drawn"),
];

/// Initializations that leave the base as it is.
const KEEPS_BASE: &[&str] = &["gaussian", "eva", "orthogonal", "mica"];
/// How the names of those begin that do not.
const CHANGES_BASE: &[&str] = &["pissa", "olora", "corda", "loftq", "lora_ga"];

/// All keys of PEFT 0.21's `LoraConfig` that may be on in a plain LoRA.
const KNOWN: &[&str] = &[
    "alora_invocation_tokens",
    "alpha_pattern",
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "rank_pattern",
    "runtime_config",
    "use_rslora",
    "velora_config",
];

fn is_off(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(false) => true,
        Json::String(text) => text == "none",
        Json::Array(values) => values.is_empty(),
        _ => false,
    }
}
