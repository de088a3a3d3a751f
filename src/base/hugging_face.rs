//! A base in a Hugging Face folder: its tensors, and its configuration from config.json with transformers'
//! defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use curmerge_formats::safetensors::{SafeTensors, shard_index};
use serde_json::Value as Json;

use super::config::{AttentionTemperature, Config, DeltaNetConfig, Experts, MAX_LAYERS};
use super::folder::{CONFIG, Folder};
use super::joined_experts;
use super::opened::Opened;
use super::quantized::{self, Joined, Matrix, Method};
use super::rope::{self, Rope};
use super::row_order::RowOrder;
use super::tensor::BaseTensor;
use super::tensors::layer_part;
use super::unread;
use crate::arch::{self, Activation, Architecture, ClassOption, Positions, WindowedLayers, is_windowed};
use crate::kernels::activation::ClampedSwiglu;
use crate::{Error, Result};

/// Canonical names.
const EMBEDDING: &str = "token_embd";
const HEAD: &str = "output";

/// Opens a folder with config.json and safetensors files.
pub(super) fn open(folder: &Path) -> Result<Opened<Vec<SafeTensors>>> {
    unread::refuse(Folder::new(folder))?;
    let quantized = Method::of_folder(Folder::new(folder))?;
    let model_type = model_type(Folder::new(folder))?;
    let (architecture, architecture_name, mut config) = match arch::by_model_type(&model_type) {
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
    architecture: &Architecture,
    tensors: &BTreeMap<String, BaseTensor>,
    layers: usize,
) -> usize {
    let Some(start) = architecture.hugging_face.prediction else { return 0 };
    let predicting = tensors.iter().filter(|(_, tensor)| tensor.stored_name.starts_with(start));
    let ends = predicting.filter_map(|(name, _)| Some(layer_part(name)?.0 + 1));
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
        let shape = match (names.is_some_and(|names| names.convolution), &shape[..]) {
            (true, &[channels, 1, taps]) => vec![channels, taps],
            _ => shape,
        };
        let own = names.filter(|names| names.rotary_halves.is_none() && bias.is_empty());
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
        let split = joined_experts::split(path, (architecture, config), joined_name, &tensor)?;
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
    let of_text = arch::by_model_type(&text).is_some_and(within);
    Ok(if of_text { text } else { own })
}

/// The keys of the language model in config.json, for a multimodal model those of its `text_config`.
fn language_model(folder: Folder<'_>) -> Result<Json> {
    let mut json = Json::from(folder.config()?);
    let own = json["text_config"].take();
    Ok(if own.is_object() { own } else { json })
}

impl Config {
    /// From config.json in a Hugging Face folder of this architecture.
    pub(super) fn from_folder(folder: Folder<'_>, architecture: &'static Architecture) -> Result<Self> {
        let fields = Fields::open(folder, architecture)?;
        fields.refuse_variants()?;
        let (layers, d_model, heads) = (
            fields.needed("num_hidden_layers")?,
            fields.needed("hidden_size")?,
            fields.needed("num_attention_heads")?,
        );
        let head_dim = fields.count("head_dim").unwrap_or(d_model / heads.max(1));
        let experts = if architecture.has_experts() { Some(fields.experts()?) } else { None };
        let ff = match fields.count("intermediate_size") {
            Some(ff) => ff,
            None if experts.is_some() => fields.needed("moe_intermediate_size")?,
            None => match architecture.hugging_face.ff_ratio {
                Some(ratio) => ratio * d_model,
                None => fields.needed("intermediate_size")?,
            },
        };
        let (rope, local_rope) = match architecture.forward.positions {
            Positions::Learned => (None, None),
            _ => fields.ropes(head_dim)?,
        };
        let longest = architecture.hugging_face.has(ClassOption::ModelMaxLength);
        let longest = fields.count("model_max_length").filter(|_| longest);
        let scalar = fields.number("query_pre_attn_scalar").unwrap_or(head_dim as f64);
        let mut config = Self {
            layers,
            d_model,
            heads,
            kv_heads: fields.count("num_key_value_heads").unwrap_or(heads),
            head_dim,
            ff,
            vocab: fields.needed("vocab_size")?,
            norm_eps: fields.number("rms_norm_eps").unwrap_or(1e-6),
            context: longest.or(fields.count("max_position_embeddings")).unwrap_or(2048),
            rope,
            local_rope,
            attention_scale: fields.number("attention_multiplier").unwrap_or(1.0 / scalar.sqrt()),
            attention_cap: fields.number("attn_logit_softcapping"),
            logit_cap: fields.number("final_logit_softcapping"),
            embedding_scale: fields.number("embedding_multiplier").unwrap_or(1.0),
            residual_scale: fields.number("residual_multiplier").unwrap_or(1.0),
            logit_scale: match architecture.hugging_face.has(ClassOption::LogitScale) {
                true => fields.number("logit_scale").unwrap_or(1.0),
                false => 1.0 / fields.number("logits_scaling").unwrap_or(1.0),
            },
            experts,
            ..Self::unknown()
        };
        if architecture.hugging_face.has(ClassOption::LinearAttention) {
            let [key_heads, value_heads, key_dim, value_dim, taps] =
                ["num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim", "conv_kernel_dim"]
                    .map(|key| fields.needed(&format!("linear_{key}")));
            config.delta_net = Some(DeltaNetConfig {
                key_heads: key_heads?,
                value_heads: value_heads?,
                key_dim: key_dim?,
                value_dim: value_dim?,
                taps: taps?,
                // transformers' l2norm, whatever the norms have.
                eps: 1e-6,
            });
            config.linear_attention = fields.linear_attention(layers.min(MAX_LAYERS))?;
        }
        if architecture.hugging_face.has(ClassOption::Temperature) {
            config.temperature = fields.temperature()?;
        }
        if architecture.forward.scales_embedding {
            config.embedding_scale = f64::from((d_model as f32).sqrt());
        }
        let window = fields.count("sliding_window");
        let unrotated = fields.unrotated(layers.min(MAX_LAYERS));
        config.windowed = fields.windowed(layers.min(MAX_LAYERS), &unrotated);
        config.window = window.filter(|_| config.windowed.contains(&true));
        if window.is_none() && architecture.gguf.windows.is_some_and(|windows| windows.required) {
            fields.needed("sliding_window")?;
        }
        match architecture.hugging_face.has(ClassOption::UnrotatedLayers) {
            true => config.unrotated = unrotated,
            false => config.set_unrotated(architecture.forward.unrotated, window.is_some()),
        }
        config.checked(&fields.path)
    }
}

/// The keys of a config.json.
struct Fields {
    path: PathBuf,
    json: Json,
    architecture: &'static Architecture,
}

impl Fields {
    /// The keys of the language model, for a multimodal model those of its `text_config`.
    fn open(folder: Folder<'_>, architecture: &'static Architecture) -> Result<Self> {
        Ok(Self { path: folder.join(CONFIG), json: language_model(folder)?, architecture })
    }

    /// The number that llama calls `key`, or the architecture's default.
    fn number(&self, key: &str) -> Option<f64> {
        let class = &self.architecture.hugging_face;
        let own = class.key(key);
        // An explicit null means that there is none.
        match self.json.get(own) {
            Some(value) => value.as_f64(),
            None => class.default(own),
        }
    }

    fn count(&self, key: &str) -> Option<usize> {
        self.number(key).filter(|n| n.fract() == 0.0 && (0.0..1e15).contains(n)).map(|n| n as usize)
    }

    fn needed(&self, key: &str) -> Result<usize> {
        self.count(key).ok_or_else(|| {
            Error::input(
                &self.path,
                self.architecture.hugging_face.key(key),
                "missing or not a whole number",
                "the file is damaged; download it again",
            )
        })
    }

    fn refuse_variants(&self) -> Result<()> {
        let unlike = |key: &str, problem: String| {
            Err(Error::input(
                &self.path,
                key,
                problem,
                "this variant of the architecture is not supported yet",
            ))
        };
        let activation = &self.architecture.hugging_face.activation;
        if let Some(name) = self.json[activation.key].as_str()
            && !activation.names.contains(&name)
        {
            return unlike(activation.key, format!("its activation function is '{}'", name.escape_debug()));
        }
        let flags = [
            ("scale_attn_by_inverse_layer_idx", false),
            ("add_cross_attention", false),
            ("scale_attn_weights", true),
            ("use_bidirectional_attention", false),
            ("qk_layernorm", false),
            ("use_parallel_residual", false),
        ];
        for (key, usual) in flags {
            if self.json[key].as_bool().is_some_and(|given| given != usual) {
                return unlike(key, format!("it is {}", !usual));
            }
        }
        if self.architecture.forward.activation == Activation::ClampedSwiglu {
            // Without them the class has YaRN of its own.
            if !["rope_parameters", "rope_scaling"].iter().any(|key| self.json[key].is_object()) {
                return unlike("rope_parameters", "missing".into());
            }
            let constants = [("swiglu_alpha", ClampedSwiglu::ALPHA), ("swiglu_limit", ClampedSwiglu::LIMIT)];
            for (key, usual) in constants {
                if self.json[key].as_f64().is_some_and(|given| given != usual) {
                    return unlike(key, format!("it is not {usual}"));
                }
            }
        }
        if self.json["clip_qkv"].is_number() {
            return unlike("clip_qkv", "the inputs of attention are clipped".into());
        }
        Ok(())
    }

    fn experts(&self) -> Result<Experts> {
        let sparse_step = self.count("decoder_sparse_step").unwrap_or(1);
        let dense = self.json["mlp_only_layers"].as_array().is_some_and(|layers| !layers.is_empty());
        if sparse_step != 1 || dense {
            let problem = "some blocks have no experts";
            let help = "this variant of the architecture is not supported yet";
            return Err(Error::input(&self.path, "decoder_sparse_step", problem, help));
        }
        Ok(Experts {
            count: self.needed("num_experts")?,
            used: self.needed("num_experts_per_tok")?,
            ff: self.needed("moe_intermediate_size")?,
            shared_ff: match self.architecture.has_shared_expert() {
                true => Some(self.needed("shared_expert_intermediate_size")?),
                false => None,
            },
            normalized: self.json["norm_topk_prob"]
                .as_bool()
                .or(self.number("norm_topk_prob").map(|n| n > 0.0))
                == Some(true),
        })
    }

    /// The rotary embeddings, and those of windowed blocks if they differ.
    fn ropes(&self, head_dim: usize) -> Result<(Option<Rope>, Option<Rope>)> {
        // transformers 5 writes rope_parameters, optionally one for each kind of block. Older versions write
        // rope_theta and rope_scaling.
        let [global, local] = rope::parameters(|key| self.json.get(key));
        let (global, local) = (&global, &local);
        let base = global["rope_theta"].as_f64().or(self.number("rope_theta")).unwrap_or(10000.0);
        let part = self.number("partial_rotary_factor").unwrap_or(1.0);
        let made = rope::from_json(&self.path, global, &self.json, base, (head_dim, part))?;
        let local_base = local["rope_theta"].as_f64().or(self.number("rope_local_base_freq"));
        let by_kind = self.architecture.hugging_face.has(ClassOption::RopeByKind);
        let local = match local_base.or(by_kind.then_some(base)) {
            Some(base) => Some(rope::from_json(&self.path, local, &Json::Null, base, (head_dim, 1.0))?),
            None => None,
        };
        let local = local.filter(|local| *local != made);
        Ok((Some(made), local))
    }

    /// The temperature of attention: the class takes it from the rotary parameters, which it needs.
    fn temperature(&self) -> Result<Option<AttentionTemperature>> {
        let [parameters, _] = rope::parameters(|key| self.json.get(key));
        let number = |key: &str| {
            parameters[key].as_f64().ok_or_else(|| {
                let place = format!("rope_parameters: {key}");
                Error::input(&self.path, place, "missing or not a number", "download the folder again")
            })
        };
        let beta = number("llama_4_scaling_beta")?;
        let length = number("original_max_position_embeddings")? as usize;
        Ok((beta != 0.0).then_some(AttentionTemperature { beta, length }))
    }

    /// Whether each block has no rotary embedding, in classes that list such blocks.
    fn unrotated(&self, layers: usize) -> Vec<bool> {
        if let Some(listed) = self.json["no_rope_layers"].as_array() {
            let rotates = |layer: usize| listed.get(layer).is_none_or(|flag| *flag != 0 && *flag != false);
            return (0..layers).map(|layer| !rotates(layer)).collect();
        }
        let period = self.count("no_rope_layer_interval").unwrap_or(0);
        (0..layers).map(|layer| !is_windowed(layer, period)).collect()
    }

    /// Whether each block has linear attention.
    ///
    /// # Errors
    /// A kind of block that the class does not have, or no kind.
    fn linear_attention(&self, layers: usize) -> Result<Vec<bool>> {
        let Some(kinds) = self.json["layer_types"].as_array() else {
            let interval = self.count("full_attention_interval").unwrap_or(0);
            return Ok((0..layers).map(|layer| is_windowed(layer, interval)).collect());
        };
        let kind = |layer: usize| match kinds.get(layer).and_then(Json::as_str) {
            Some("linear_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            _ => {
                let problem = format!("block {layer} is neither linear_attention nor full_attention");
                Err(Error::input(&self.path, "layer_types", problem, "download the folder again"))
            }
        };
        (0..layers).map(kind).collect()
    }

    /// Whether each block has a sliding window.
    fn windowed(&self, layers: usize, unrotated: &[bool]) -> Vec<bool> {
        let class = self.architecture.hugging_face.windows;
        let switched = matches!(
            class,
            WindowedLayers::Switched | WindowedLayers::SwitchedUpper | WindowedLayers::SwitchedUnrotated
        );
        let off = switched && self.json["use_sliding_window"].as_bool() == Some(false);
        if class == WindowedLayers::None || off {
            return vec![false; layers];
        }
        if let Some(kinds) = self.json["layer_types"].as_array() {
            let kind = |layer: usize| kinds.get(layer).and_then(Json::as_str);
            return (0..layers).map(|layer| kind(layer) == Some("sliding_attention")).collect();
        }
        if let Some(kinds) = self.json["sliding_window_pattern"].as_str().filter(|kinds| !kinds.is_empty()) {
            return kinds.chars().cycle().take(layers).map(|kind| kind == 'L').collect();
        }
        let period = self.count("sliding_window_pattern");
        // Windows that are switched are off unless use_sliding_window is true.
        let asked = self.json["use_sliding_window"].as_bool() == Some(true);
        let first = self.count("max_window_layers").unwrap_or(if asked { 28 } else { 0 });
        let windowed = |layer: usize| match (period, class) {
            (Some(period), _) => is_windowed(layer, period),
            (None, WindowedLayers::SwitchedUnrotated) => asked && unrotated[layer],
            (None, WindowedLayers::SwitchedUpper) => asked && layer >= first,
            (None, WindowedLayers::Switched) => asked,
            (None, _) => true,
        };
        (0..layers).map(windowed).collect()
    }
}
