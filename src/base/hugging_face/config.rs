//! The configuration of a model from its config.json.

use std::path::PathBuf;

use serde_json::Value as Json;

use super::language_model;
use crate::arch::{Activation, Architecture, ClassOption, Forward, HeadKeys, Positions, Unrotated};
use crate::base::config::{AttentionTemperature, Config, DeltaNetConfig, MAX_LAYERS, PerLayerInputs};
use crate::base::folder::{CONFIG, Folder};
use crate::base::rope::{self, Rope};
use crate::kernels::activation::ClampedSwiglu;
use crate::{Error, Result};

impl Config {
    /// From config.json in a Hugging Face folder of this architecture.
    pub(in crate::base) fn from_folder(
        folder: Folder<'_>,
        architecture: &'static Architecture,
    ) -> Result<Self> {
        let fields = Fields::open(folder, architecture)?;
        fields.refuse_variants()?;
        let (layers, d_model, heads) =
            (fields.layers()?, fields.needed("hidden_size")?, fields.needed("num_attention_heads")?);
        let head_dim = fields.count("head_dim").unwrap_or(d_model / heads.max(1));
        let experts = if architecture.has_experts() { Some(fields.experts()?) } else { None };
        let ff = match fields.adjusted_ff().or(fields.count("intermediate_size")) {
            Some(ff) => ff,
            None if experts.is_some() => fields.needed("moe_intermediate_size")?,
            None => match architecture.hugging_face.ff_ratio {
                Some(ratio) => ratio * d_model,
                None => fields.needed("intermediate_size")?,
            },
        };
        let longest = architecture.hugging_face.has(ClassOption::ModelMaxLength);
        let longest = fields.count("model_max_length").filter(|_| longest);
        let scalar = fields.number("query_pre_attn_scalar").unwrap_or(head_dim as f64);
        let mut config = Self {
            layers,
            d_model,
            heads,
            kv_heads: match architecture.hugging_face.heads {
                HeadKeys::Ungrouped => heads,
                _ if fields.shares_one_key_head() => 1,
                _ => fields.count("num_key_value_heads").unwrap_or(heads),
            },
            head_dim,
            ff,
            vocab: fields.needed("vocab_size")?,
            norm_eps: fields.number("rms_norm_eps").unwrap_or(1e-6),
            context: longest.or(fields.count("max_position_embeddings")).unwrap_or(2048),
            attention_scale: match architecture.gguf.attention_scale {
                Some(always) => always,
                None => fields.number("attention_multiplier").unwrap_or(1.0 / scalar.sqrt()),
            },
            attention_cap: fields.number("attn_logit_softcapping"),
            logit_cap: fields.number("final_logit_softcapping"),
            embedding_scale: fields.number("embedding_multiplier").unwrap_or(1.0),
            residual_scale: fields.number("residual_multiplier").unwrap_or(1.0),
            logit_scale: match architecture.hugging_face.has(ClassOption::LogitScale) {
                true => fields.number("logit_scale").unwrap_or(1.0),
                false => 1.0 / fields.number("logits_scaling").unwrap_or(1.0),
            },
            experts,
            dense: fields.dense(layers),
            head_norms: fields.head_norms(),
            two_norms: fields.two_norms(),
            tanh_gelu: fields.json[architecture.hugging_face.activation.key]
                .as_str()
                .is_some_and(|name| architecture.hugging_face.tanh_names.contains(&name)),
            ..Self::unknown()
        };
        if architecture.hugging_face.has(ClassOption::LinearAttention) {
            let [key_heads, value_heads, key_dim, value_dim, taps] =
                ["num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim", "conv_kernel_dim"]
                    .map(|key| fields.needed(&format!("linear_{key}")));
            config.delta_net = Some(DeltaNetConfig {
                key_heads: key_heads?,
                value_heads: value_heads?,
                grouped: architecture.forward.grouped_value_heads,
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
            config.embedding_scale = (d_model as f64).sqrt();
        }
        let window = fields.count("sliding_window");
        let unrotated = fields.unrotated(layers.min(MAX_LAYERS));
        config.windowed = fields.windowed(layers.min(MAX_LAYERS), &unrotated);
        config.window = window.filter(|_| config.windowed.contains(&true));
        if architecture.hugging_face.has(ClassOption::HeadsByKind) {
            fields.heads_by_kind(&mut config)?;
        }
        let Forward { positions, unrotated: always, .. } = architecture.forward;
        if positions != Positions::Learned && always != Unrotated::Always {
            let head_dim = |windowed| config.sizes_by_window(windowed).head_dim;
            (config.rope, config.local_rope) = fields.ropes([false, true].map(head_dim))?;
        }
        if architecture.hugging_face.has(ClassOption::Convolutions) {
            config.convolutions = fields.convolutions(layers.min(MAX_LAYERS))?;
            config.convolution_taps = fields.needed("conv_L_cache")?;
        }
        if architecture.hugging_face.has(ClassOption::StateSpaces) {
            fields.state_spaces(&mut config)?;
        }
        if architecture.hugging_face.has(ClassOption::BlocksOfOnePart) {
            fields.blocks_of_one_part(&mut config)?;
        }
        if architecture.hugging_face.has(ClassOption::PerLayerInputs) {
            let width = fields.count("hidden_size_per_layer_input").filter(|&width| width > 0);
            let vocab = || fields.needed("vocab_size_per_layer_input");
            config.per_layer_inputs =
                width.map(|width| Ok::<_, Error>(PerLayerInputs { width, vocab: vocab()? })).transpose()?;
        }
        if window.is_none() && architecture.gguf.windows.is_some_and(|windows| windows.required) {
            fields.needed("sliding_window")?;
        }
        match architecture.hugging_face.has(ClassOption::UnrotatedLayers) {
            true => config.unrotated = unrotated,
            false => config.set_unrotated(architecture.forward.unrotated, window.is_some()),
        }
        let by_type = architecture.hugging_face.has(ClassOption::StateSpaces);
        if by_type && fields.json["position_embedding_type"] != "rope" {
            config.unrotated = vec![true; layers.min(MAX_LAYERS)];
        }
        config.checked(&fields.path)
    }
}

/// The keys of a config.json.
pub(super) struct Fields {
    pub(super) path: PathBuf,
    pub(super) json: Json,
    pub(super) architecture: &'static Architecture,
}

impl Fields {
    /// The keys of the language model, for a multimodal model those of its `text_config`.
    fn open(folder: Folder<'_>, architecture: &'static Architecture) -> Result<Self> {
        Ok(Self { path: folder.join(CONFIG), json: language_model(folder)?, architecture })
    }

    /// The number that llama calls `key`, or the architecture's default.
    pub(super) fn number(&self, key: &str) -> Option<f64> {
        let class = &self.architecture.hugging_face;
        let own = class.key(key);
        // An explicit null means that there is none.
        match self.json.get(own) {
            Some(value) => value.as_f64(),
            None => class.default(own),
        }
    }

    pub(super) fn count(&self, key: &str) -> Option<usize> {
        self.number(key).filter(|n| n.fract() == 0.0 && (0.0..1e15).contains(n)).map(|n| n as usize)
    }

    pub(super) fn needed(&self, key: &str) -> Result<usize> {
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
        let class = &self.architecture.hugging_face;
        let activation = &class.activation;
        if let Some(name) = self.json[activation.key].as_str()
            && !activation.names.contains(&name)
            && !class.tanh_names.contains(&name)
        {
            return unlike(activation.key, format!("its activation function is '{}'", name.escape_debug()));
        }
        let flags = [
            ("scale_attn_by_inverse_layer_idx", false),
            ("add_cross_attention", false),
            ("scale_attn_weights", true),
            ("use_bidirectional_attention", false),
            ("qk_layernorm", false),
            ("alibi", false),
            ("parallel_attn", true),
            ("use_parallel_residual", self.architecture.forward.parallel),
        ];
        for (key, usual) in flags {
            if self.json[key].as_bool().is_some_and(|given| given != usual) {
                return unlike(key, format!("it is {}", !usual));
            }
        }
        let has_rope = ["rope_parameters", "rope_scaling"].iter().any(|key| self.json[key].is_object());
        if class.fills_in_rope_scaling && !has_rope {
            return unlike("rope_parameters", "missing".into());
        }
        if self.architecture.forward.activation == Activation::ClampedSwiglu {
            let constants = [("swiglu_alpha", ClampedSwiglu::ALPHA), ("swiglu_limit", ClampedSwiglu::LIMIT)];
            for (key, usual) in constants {
                if self.json[key].as_f64().is_some_and(|given| given != usual) {
                    return unlike(key, format!("it is not {usual}"));
                }
            }
        }
        if self.json["use_bidirectional_attention"] == "all" {
            return unlike("use_bidirectional_attention", "a token attends to those after it, too".into());
        }
        if self.architecture.hugging_face.has(ClassOption::HeadsByKind) {
            // Without them the class has its own.
            if !self.json["rope_parameters"]["full_attention"].is_object() {
                return unlike("rope_parameters", "there are none of full_attention".into());
            }
        }
        if self.json["clip_qkv"].is_number() {
            return unlike("clip_qkv", "the inputs of attention are clipped".into());
        }
        Ok(())
    }

    /// The width of the feed-forward part in a class that adjusts what config.json says.
    fn adjusted_ff(&self) -> Option<usize> {
        if !self.architecture.hugging_face.has(ClassOption::AdjustedFeedForward) {
            return None;
        }
        let given = self.count("block_ff_dim").or(self.count("intermediate_size"))?;
        if self.json["block_auto_adjust_ff_dim"] == false {
            return Some(given);
        }
        let part = 2 * given / 3;
        if self.json.get("block_ffn_dim_multiplier").is_some_and(Json::is_null) {
            return Some(part);
        }
        let scaled = (self.number("block_ffn_dim_multiplier").unwrap_or(1.0) * part as f64) as usize;
        let multiple = self.count("block_multiple_of").unwrap_or(256).max(1);
        // What is out of range is refused with the other sizes.
        Some(scaled.checked_next_multiple_of(multiple).unwrap_or(usize::MAX))
    }

    /// Whether a key, or the class's default for it, is true.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.json[key].as_bool().unwrap_or_else(|| self.number(key).is_some_and(|number| number > 0.0))
    }

    /// The rotary embeddings, and those of windowed blocks if they differ; of heads of these lengths.
    fn ropes(&self, [head_dim, local_head_dim]: [usize; 2]) -> Result<(Option<Rope>, Option<Rope>)> {
        // transformers 5 writes rope_parameters, optionally one for each kind of block. Older versions write
        // rope_theta and rope_scaling.
        let [global, local] = rope::parameters(|key| self.json.get(key));
        let (global, local) = (&global, &local);
        let base = global["rope_theta"].as_f64().or(self.number("rope_theta")).unwrap_or(10000.0);
        let class = &self.architecture.hugging_face;
        if let Some(alpha) = rope::ntk_alpha(global).filter(|_| class.has(ClassOption::NtkAlpha)) {
            return Ok((Some(Rope::plain(rope::raised_base(base, alpha, head_dim), head_dim)), None));
        }
        let part = self.number("partial_rotary_factor").unwrap_or(1.0);
        let made = rope::from_json(&self.path, global, &self.json, base, (head_dim, part))?;
        let local_base = local["rope_theta"].as_f64().or(self.number("rope_local_base_freq"));
        let by_kind = self.architecture.hugging_face.has(ClassOption::RopeByKind);
        let local = match local_base.or(by_kind.then_some(base)) {
            Some(base) => Some(rope::from_json(&self.path, local, &Json::Null, base, (local_head_dim, 1.0))?),
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
}
