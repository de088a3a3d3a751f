//! A base in a GGUF file: its tensors, and its configuration from the `ARCH.*` keys with llama.cpp's
//! defaults.

mod experts;
mod keys;
mod mixers;

use std::collections::BTreeMap;
use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{GgufModel, Value};

use crate::arch::{self, Architecture, NormKind, Positions, Unrotated, WindowScaling, is_windowed};
use crate::base::config::{
    AttentionTemperature, BlockSizes, Config, DeltaNetConfig, MAX_LAYERS, PerLayerInputs,
};
use crate::base::opened::Opened;
use crate::base::rope::{LongRope, MAX_HEAD_DIM, Rope, YARN_BETAS, unknown_scaling, yarn_of_llama_cpp};
use crate::base::row_order::RowOrder;
use crate::base::tensor::BaseTensor;
use crate::{Error, Result};

const DAMAGED: &str = "the file is damaged; download it again";

/// Opens a GGUF file, of a split model the first.
pub(super) fn open(path: &Path) -> Result<Opened<GgufModel>> {
    let model = GgufModel::open(path)?;
    let gguf = model.first();
    let name = gguf.get("general.architecture").and_then(|v| v.as_str()).ok_or_else(|| {
        Error::input(path, "general.architecture", "missing", "this GGUF file is not a language model")
    })?;
    let experts = gguf.get(&format!("{name}.expert_count")).and_then(|v| v.as_u64());
    let window = gguf.get(&format!("{name}.attention.sliding_window")).and_then(|v| v.as_u64());
    let has = |number: Option<u64>| number.is_some_and(|number| number > 0);
    let known = arch::by_gguf_name(name, has(experts), has(window));
    let (architecture, config) = match known {
        Some(architecture) => (architecture, Config::from_gguf(&model, architecture)?),
        None => (arch::UNKNOWN, Config::unknown()),
    };
    let architecture_name = name.to_string();
    let mut tensors = BTreeMap::new();
    for (file, t) in model.tensors() {
        let canonical = t.name.strip_suffix(".weight").unwrap_or(&t.name).to_string();
        let line = architecture.line(&canonical);
        let is_vector = line.is_some_and(|line| line.one_row || line.rows_in_gguf.is_some());
        let tensor = BaseTensor {
            stored_name: t.name.clone(),
            dtype: t.dtype,
            shape: match t.shape()[..] {
                [rows, columns] if is_vector && rows.checked_mul(columns).is_some() => vec![rows * columns],
                _ => t.shape(),
            },
            file,
            offset: t.offset,
            bytes: t.bytes,
            rotary_halves: None,
            orders: [RowOrder::CANONICAL; 2],
            transposed: false,
            unit_offset: false,
            log_of_negative: false,
            nbits: None,
            quantized: None,
            slice: None,
        };
        if tensors.insert(canonical, tensor).is_some() {
            let place = format!("tensor '{}'", t.name.escape_debug());
            let problem = "stored with and without `.weight`";
            return Err(Error::input(path, place, problem, "download the file again"));
        }
    }
    let uncomputed = known.and_then(|architecture| keys::unread(model.first(), architecture));
    let notes = Vec::new();
    Ok(Opened { files: model, architecture, architecture_name, config, tensors, uncomputed, notes })
}

impl Config {
    /// From the `ARCH.*` keys of a GGUF file.
    fn from_gguf(model: &GgufModel, architecture: &'static Architecture) -> Result<Self> {
        let gguf = model.first();
        let path = gguf.path();
        let key = |name: &str| format!("{}.{name}", architecture.name);
        let get = |name: &str| gguf.get(&key(name));
        let number = |name: &str| get(name).and_then(Value::as_u64).map(|n| n as usize);
        let float = |name: &str| get(name).and_then(Value::as_f64);
        let missing = |name: &str| Error::input(path, key(name), "missing or not a whole number", DAMAGED);
        let needed = |name: &str| number(name).ok_or_else(|| missing(name));
        let unlike = |name: &str, problem: &str| {
            Error::input(path, key(name), problem, "this variant of the architecture is not supported yet")
        };
        let by_block = architecture.gguf.sizes_by_block;
        let zero_without_attention = architecture.gguf.convolutions || architecture.gguf.state_spaces;
        let of_blocks = |name: &str| match get(name) {
            // A family that reads them all does so below.
            Some(value) if zero_without_attention && counts(value).is_some() => {
                Ok(counts(value).and_then(|all| all.into_iter().max()))
            }
            Some(value) if by_block && name != "attention.head_count" && value.as_i32s().is_some() => {
                Ok(counts(value).and_then(|all| all.first().copied()))
            }
            Some(value) if value.as_i32s().is_some() && count(value).is_none() => {
                Err(unlike(name, "it is not one positive number for all blocks"))
            }
            value => Ok(value.and_then(count)),
        };
        let needed_of_blocks = |name: &str| of_blocks(name)?.ok_or_else(|| missing(name));
        let (blocks, d_model, heads) =
            (needed("block_count")?, needed("embedding_length")?, needed_of_blocks("attention.head_count")?);
        let prediction_blocks = number("nextn_predict_layers").unwrap_or(0);
        let layers = blocks.checked_sub(prediction_blocks).ok_or_else(|| {
            let problem = format!("{prediction_blocks} of {blocks} blocks");
            Error::input(path, key("nextn_predict_layers"), problem, DAMAGED)
        })?;
        let head_dim = number("attention.key_length").unwrap_or(d_model / heads.max(1));
        if number("attention.value_length").is_some_and(|length| length != head_dim) {
            return Err(unlike("attention.value_length", "values and keys differ in length"));
        }
        // Files of families with experts alone may lack it.
        let ff = match of_blocks("feed_forward_length")? {
            None if architecture.has_experts() => needed_of_blocks("expert_feed_forward_length")?,
            ff => ff.ok_or_else(|| missing("feed_forward_length"))?,
        };
        let vocab = model.tensor("token_embd.weight").and_then(|t| t.dims.get(1).copied());
        let vocab = vocab.ok_or_else(|| Error::input(path, "tensor 'token_embd'", "missing", DAMAGED))?;
        let eps = match architecture.forward.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer | NormKind::LayerUnbiased => "attention.layer_norm_epsilon",
        };
        // llama.cpp takes the other key of these families where one is missing.
        let other = float("attention.layer_norm_epsilon").filter(|_| architecture.gguf.one_part);
        let eps = float(eps)
            .or(other)
            .ok_or_else(|| Error::input(path, key(eps), "missing or not a number", DAMAGED))?;
        let rope = match architecture.forward.positions {
            Positions::Learned => None,
            _ if architecture.forward.unrotated == Unrotated::Always => None,
            _ => Some(rope(model, architecture, head_dim)?),
        };
        let caps = architecture.gguf.soft_caps;
        let mut config = Self {
            layers,
            d_model,
            heads,
            kv_heads: of_blocks("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            ff,
            vocab: vocab as usize,
            norm_eps: eps,
            context: number("context_length").unwrap_or(2048),
            rope,
            attention_scale: float("attention.scale")
                .unwrap_or_else(|| architecture.attention_scale(layers, d_model, heads, head_dim)),
            attention_cap: caps.and_then(|[cap, _]| Some(float("attn_logit_softcapping").unwrap_or(cap?))),
            logit_cap: caps
                .and_then(|[_, cap]| float("final_logit_softcapping").or(cap))
                .filter(|&cap| cap != 0.0),
            embedding_scale: float("embedding_scale").unwrap_or(1.0),
            residual_scale: float("residual_scale").filter(|&scale| scale != 0.0).unwrap_or(1.0),
            logit_scale: match float("logit_scale") {
                // llama.cpp takes 0 for none.
                Some(scale) if architecture.gguf.logit_scale_multiplies && scale != 0.0 => scale,
                Some(scale) if !architecture.gguf.logit_scale_multiplies => 1.0 / scale,
                _ => 1.0,
            },
            experts: experts::read(model, architecture, ff)?,
            dense: experts::dense(model, architecture, layers),
            head_norms: model.tensor("blk.0.attn_q_norm.weight").is_some(),
            two_norms: model.tensor("blk.0.attn_norm_2.weight").is_some(),
            prediction_blocks,
            ..Self::unknown()
        };
        if let Some(interval) = architecture.gguf.linear_attention {
            let [state, inner, value_heads] =
                ["state_size", "inner_size", "time_step_rank"].map(|name| format!("ssm.{name}"));
            let value_heads = needed(&value_heads)?;
            config.delta_net = Some(DeltaNetConfig {
                key_heads: needed("ssm.group_count")?,
                value_heads,
                grouped: architecture.forward.grouped_value_heads,
                key_dim: needed(&state)?,
                value_dim: needed(&inner)? / value_heads.max(1),
                taps: needed("ssm.conv_kernel")?,
                eps,
            });
            let interval = number("full_attention_interval").unwrap_or(interval);
            let blocks = 0..layers.min(MAX_LAYERS);
            let name = "attention.recurrent_layers";
            config.linear_attention = match get(name) {
                Some(listed) => {
                    let listed = listed.as_bools().and_then(|listed| listed.get(blocks));
                    let bad = || Error::input(path, key(name), "not a flag for every block", DAMAGED);
                    listed.ok_or_else(bad)?.to_vec()
                }
                None => blocks.map(|layer| is_windowed(layer, interval)).collect(),
            };
        }
        let beta = float("attention.temperature_scale").filter(|&beta| beta != 0.0);
        if let Some(beta) = beta.filter(|_| architecture.gguf.temperature) {
            let original = number("rope.scaling.original_context_length").filter(|&original| original > 0);
            let length = original.unwrap_or(config.context);
            config.temperature = Some(AttentionTemperature { beta, length });
        }
        if architecture.forward.scales_embedding {
            config.embedding_scale = (d_model as f64).sqrt();
        }
        let windows = architecture.gguf.windows.filter(|windows| windows.required);
        if windows.is_some() && number("attention.sliding_window").is_none_or(|length| length == 0) {
            return Err(Error::input(path, key("attention.sliding_window"), "missing or 0", DAMAGED));
        }
        if zero_without_attention {
            config.mixers(model, architecture)?;
        }
        config.windows(model, architecture);
        if by_block {
            config.sizes_by_block(model, architecture)?;
        }
        let switched_off = get("rope.scaling.finetuned") == Some(&Value::Bool(false));
        match architecture.forward.unrotated {
            Unrotated::Switched if switched_off => config.unrotated = vec![true; layers.min(MAX_LAYERS)],
            unrotated => config.set_unrotated(unrotated, config.window.is_some()),
        }
        config.checked(path)
    }

    /// Sets the sliding windows, if llama.cpp gives the architecture any.
    fn windows(&mut self, model: &GgufModel, architecture: &Architecture) {
        let Some(windows) = architecture.gguf.windows else { return };
        if !windows.in_models_of(self.layers) {
            return;
        }
        let get = |name: &str| model.first().get(&format!("{}.{name}", architecture.name));
        let given = get("attention.sliding_window").and_then(Value::as_u64).map(|n| n as usize);
        let Some(window) = given.or(windows.length).filter(|&length| length > 0) else { return };
        let pattern = get("attention.sliding_window_pattern");
        let period = pattern.and_then(Value::as_u64).map_or(windows.period, |n| n as usize);
        // The dimensions are not checked yet: they must not size an allocation.
        let layers = self.layers.min(MAX_LAYERS);
        self.windowed = match pattern.and_then(Value::as_bools).and_then(|list| list.get(..layers)) {
            Some(listed) => listed.to_vec(),
            None => (0..layers).map(|layer| is_windowed(layer, period)).collect(),
        };
        self.window = Some(window);
        let Some(rope) = &self.rope else { return };
        let mut local = rope.clone();
        match windows.scaling {
            WindowScaling::Same => {}
            WindowScaling::Factor => {
                local.factors = None;
                local.amplitude = get("rope.scaling.attn_factor").and_then(Value::as_f64).unwrap_or(1.0);
            }
            WindowScaling::Nothing => {
                local.factors = None;
                local.amplitude = 1.0;
            }
        }
        if let Some(base) = get("rope.freq_base_swa").and_then(Value::as_f64).or(windows.rope_base)
            && windows.own_base
        {
            local.base = base;
        }
        if let Some(dim) = get("rope.dimension_count_swa").and_then(Value::as_u64)
            && architecture.gguf.sizes_by_block
        {
            local.dim = dim as usize;
        }
        self.local_rope = (local != *rope).then_some(local);
    }

    /// Sets the sizes of each block and what blocks share, after the windows.
    fn sizes_by_block(&mut self, model: &GgufModel, architecture: &Architecture) -> Result<()> {
        let gguf = model.first();
        let key = |name: &str| format!("{}.{name}", architecture.name);
        let get = |name: &str| gguf.get(&key(name));
        let number = |name: &str| get(name).and_then(Value::as_u64).map(|n| n as usize);
        let error = |name: &str, problem: &str| Error::input(gguf.path(), key(name), problem, DAMAGED);
        // The dimensions are not checked yet: they must not size an allocation.
        let layers = self.layers.min(MAX_LAYERS);
        let of_blocks = |name: &str, usual: usize| match get(name).and_then(counts) {
            Some(all) if all.len() < layers => Err(error(name, "it has no number for every block")),
            Some(all) => Ok(all),
            None => Ok(vec![usual; layers]),
        };
        let kv_heads = of_blocks("attention.head_count_kv", self.kv_heads)?;
        let ff = of_blocks("feed_forward_length", self.ff)?;
        let local_length = number("attention.key_length_swa").unwrap_or(self.head_dim);
        if number("attention.value_length_swa").is_some_and(|length| length != local_length) {
            return Err(error("attention.value_length_swa", "values and keys differ in length"));
        }
        let sizes = (0..layers).map(|layer| {
            let head_dim = if self.window_of(layer).is_some() { local_length } else { self.head_dim };
            BlockSizes { kv_heads: kv_heads[layer], head_dim, ff: ff[layer] }
        });
        let sizes: Vec<BlockSizes> = sizes.collect();
        if let Some(global) = (0..layers).find(|&layer| self.window_of(layer).is_none()) {
            self.kv_heads = sizes[global].kv_heads;
        }
        self.own_sizes = sizes;
        let global = (0..layers).any(|layer| self.window_of(layer).is_none());
        if global && self.rope.as_ref().is_some_and(|rope| rope.factors.is_none()) {
            return Err(Error::input(gguf.path(), "tensor 'rope_freqs'", "missing", DAMAGED));
        }
        self.sharing_blocks = number("attention.shared_kv_layers").unwrap_or(0);
        let lacks = |name: String| model.tensor(&name).is_none();
        self.keys_as_values = (0..layers)
            .map(|layer| self.keys_of(layer) == layer && lacks(format!("blk.{layer}.attn_v.weight")))
            .collect();
        if let Some(layer) = self.shares_unlike_llama_cpp() {
            let problem = format!("block {layer} does not share keys as in Google's models");
            let help = "this variant of the architecture is not supported yet";
            return Err(Error::input(gguf.path(), key("attention.shared_kv_layers"), problem, help));
        }
        if let Some(width) = number("embedding_length_per_layer_input").filter(|&width| width > 0) {
            let vocab = model.tensor("per_layer_token_embd.weight").and_then(|t| t.dims.get(1).copied());
            let missing = || Error::input(gguf.path(), "tensor 'per_layer_token_embd'", "missing", DAMAGED);
            self.per_layer_inputs =
                Some(PerLayerInputs { width, vocab: vocab.ok_or_else(missing)? as usize });
        }
        Ok(())
    }
}

/// The numbers of an array, one for every block.
fn counts(value: &Value) -> Option<Vec<usize>> {
    value.as_i32s()?.iter().map(|&number| usize::try_from(number).ok()).collect()
}

/// A whole number, or one that an array gives for every block.
fn count(value: &Value) -> Option<usize> {
    if let Some(number) = value.as_u64() {
        return Some(number as usize);
    }
    let numbers = value.as_i32s()?;
    let first = *numbers.first()?;
    let same = numbers.iter().all(|number| *number == first);
    same.then_some(first).and_then(|number| usize::try_from(number).ok())
}

fn rope(model: &GgufModel, architecture: &Architecture, head_dim: usize) -> Result<Rope> {
    let gguf = model.first();
    let key = |name: &str| format!("{}.rope.{name}", architecture.name);
    let number = |name: &str| gguf.get(&key(name)).and_then(Value::as_u64);
    let float = |name: &str| gguf.get(&key(name)).and_then(Value::as_f64);
    let dim = number("dimension_count").map_or(head_dim, |dim| dim as usize);
    let mut rope = Rope::plain(float("freq_base").unwrap_or(10000.0), dim);
    let factor = float("scaling.factor").or(float("scale_linear")).filter(|&factor| factor != 0.0);
    let (mut yarn, mut amplitude) = (None, 1.0);
    let linear = match gguf.get(&key("scaling.type")).and_then(Value::as_str) {
        Some("none" | "longrope") => None,
        // llama.cpp's default type is linear.
        None | Some("linear") => factor,
        Some("yarn") => {
            let context = gguf.get(&format!("{}.context_length", architecture.name)).and_then(Value::as_f64);
            let factor = factor.unwrap_or(1.0);
            let own = |name: &str| float(name).filter(|_| architecture.gguf.reads_yarn);
            let original = float("scaling.original_context_length").filter(|&original| original != 0.0);
            let betas = [
                own("scaling.yarn_beta_fast").unwrap_or(YARN_BETAS[0]),
                own("scaling.yarn_beta_slow").unwrap_or(YARN_BETAS[1]),
            ];
            let original = original.or(context).unwrap_or(2048.0);
            let (rule, factor_of_cosines) =
                yarn_of_llama_cpp(factor, original, betas, own("scaling.yarn_log_multiplier"));
            amplitude = factor_of_cosines;
            yarn = Some(rule);
            None
        }
        Some(other) => {
            rope.uncomputed = Some((key("scaling.type"), unknown_scaling(other)));
            None
        }
    };
    // The dimensions are not checked yet: they must not size an allocation.
    let pairs = dim.min(head_dim).min(MAX_HEAD_DIM) / 2;
    let scaled =
        |factors: Vec<f64>| factors.into_iter().map(|factor| factor * linear.unwrap_or(1.0)).collect();
    let own = vector(model, "rope_freqs", pairs)?.or(vector(model, "rope_factors_short", pairs)?);
    rope.factors = own.or_else(|| linear.map(|_| vec![1.0; pairs])).map(scaled);
    if let Some(factors) = vector(model, "rope_factors_long", pairs)? {
        let context = gguf.get(&format!("{}.context_length", architecture.name)).and_then(Value::as_u64);
        let original = number("scaling.original_context_length").or(context).unwrap_or(0);
        rope.long = Some(LongRope { factors: scaled(factors), original_context: original as usize });
    }
    if let Some(yarn) = yarn {
        let own = rope.factors.unwrap_or_else(|| vec![1.0; pairs]);
        let divisors = yarn.factors(rope.base, 2 * pairs);
        rope.factors = Some(own.iter().zip(divisors).map(|(own, divisor)| own * divisor).collect());
    }
    rope.amplitude = amplitude * float("scaling.attn_factor").unwrap_or(1.0);
    Ok(rope)
}

/// A small tensor that belongs to the configuration: a positive number per rotary frequency, `[length]`.
fn vector(model: &GgufModel, name: &str, length: usize) -> Result<Option<Vec<f64>>> {
    let stored = format!("{name}.weight");
    let Some((file, tensor)) = model.tensors().find(|(_, tensor)| tensor.name == stored) else {
        return Ok(None);
    };
    let bad = |problem: String| {
        Error::input(model.first().path(), format!("tensor '{name}'"), problem, "download the file again")
    };
    if tensor.dims != [length as u64] || tensor.dtype != DType::F32 {
        return Err(bad(format!("{} {:?} instead of F32 [{length}]", tensor.dtype.name(), tensor.dims)));
    }
    let bytes = model.files()[file].data(tensor);
    let factors: Vec<f64> =
        bytes.as_chunks::<4>().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes))).collect();
    match factors.iter().all(|factor| factor.is_finite() && *factor > 0.0) {
        true => Ok(Some(factors)),
        false => Err(bad("a factor is not a positive number".into())),
    }
}
