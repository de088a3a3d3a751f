//! What transformers' class of a family reads from config.json, and what curmerge writes there.

use serde_json::Value as Json;

/// The class of a family in transformers, and its config.json.
#[derive(Clone, Copy, Debug)]
pub struct HuggingFace {
    /// `model_type` values; the first is written.
    pub model_types: &'static [&'static str],
    /// What tells these models from those of another family with the same `model_type` values.
    pub chosen_by: Option<ChosenBy>,
    /// The `model_type` values of vision models whose `text_config` may have one of these.
    pub within: &'static [&'static str],
    /// The `model_type` that is written, if it is not the first: that of the language model of a vision model.
    pub written_type: Option<&'static str>,
    /// The class of the language model (`architectures`).
    pub class: &'static str,
    /// Of a class that transformers lacks, `auto_map`: what each of its automatic classes finds in the code that folders
    /// bring. Empty if it has the class.
    pub own_code: &'static [(&'static str, &'static str)],
    /// The modules, by the ends of their names, that PEFT loads no LoRA for.
    pub without_lora: &'static [&'static str],
    /// Keys that have another name than in llama's config.json: llama's name, and this family's.
    pub keys: &'static [(&'static str, &'static str)],
    /// The class's defaults for keys that config.json leaves out, by this family's names; 1 is true. They are
    /// in transformers' `configuration_FAMILY.py`. What is given neither here nor in config.json is
    ///
    /// | key | value |
    /// |---|---|
    /// | `rms_norm_eps` | 1e-6 |
    /// | `rope_theta` | 10000 |
    /// | `max_position_embeddings` | 2048 |
    /// | `num_key_value_heads` | `num_attention_heads` |
    /// | `head_dim` | `hidden_size / num_attention_heads` |
    /// | `query_pre_attn_scalar` | `head_dim` |
    /// | `intermediate_size` | by `ff_ratio`, or `moe_intermediate_size` of a mixture of experts |
    /// | soft caps, windows, the RoPE of windowed blocks | none |
    /// | multipliers | 1 |
    ///
    /// Without a default, a folder that lacks `vocab_size`, `hidden_size`, `num_hidden_layers`,
    /// `num_attention_heads` or a number of experts is refused. Opening a folder does not read
    /// `tie_word_embeddings`: the head is tied if the folder has no tensor for it.
    pub defaults: &'static [(&'static str, f64)],
    /// Whether the class scales rotary embeddings by a rule of its own where config.json has neither
    /// `rope_parameters` nor `rope_scaling`. Such a folder is refused.
    pub fills_in_rope_scaling: bool,
    /// The keys that describe attention heads.
    pub heads: HeadKeys,
    /// The key that names the activation.
    pub activation: ActivationKey,
    /// The values of that key with which a model of a family with [`super::Activation::ExactGelu`] has the tanh formula.
    pub tanh_names: &'static [&'static str],
    /// `intermediate_size / hidden_size` of a model whose `intermediate_size` is missing or null; `None` if
    /// it must be given.
    pub ff_ratio: Option<usize>,
    /// What the names of tensors in folders begin with, and what those of transformers' modules, by which PEFT names them,
    /// have in its place.
    pub modules: Option<(&'static str, &'static str)>,
    /// What the names of blocks that predict tokens beyond the next begin with (MTP, arXiv 2412.19437), if they are
    /// not those of further blocks.
    pub prediction: Option<&'static str>,
    /// The key that counts these blocks.
    pub prediction_key: &'static str,
    /// Which blocks have a sliding window.
    pub windows: WindowedLayers,
    /// What else the class can be configured to do. A model that needs an option which its class lacks is not
    /// written as a folder.
    pub options: &'static [ClassOption],
    /// Keys that have the same value in every model of the family that curmerge opens. They are only written.
    /// On reading, `src/base/hugging_face/config.rs` refuses variants, and an unknown bias is refused as a tensor.
    pub flags: &'static [(&'static str, bool)],
}

impl HuggingFace {
    /// The `model_type` of a language model that is written.
    pub fn model_type(&self) -> &'static str {
        self.written_type.or(self.model_types.first().copied()).unwrap_or_default()
    }

    /// Whether the class has this option.
    pub fn has(&self, option: ClassOption) -> bool {
        self.options.contains(&option)
    }

    /// This family's name for a key of llama's config.json.
    pub fn key<'k>(&self, key: &'k str) -> &'k str {
        self.keys.iter().find(|(llama, _)| *llama == key).map_or(key, |(_, own)| own)
    }

    /// The class's default for a key, by this family's name.
    pub fn default(&self, key: &str) -> Option<f64> {
        self.defaults.iter().find(|(name, _)| *name == key).map(|(_, number)| *number)
    }
}

/// What tells two families of one class apart, in config.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChosenBy {
    /// The key of this name is true, or a positive number.
    Key(&'static str),
    /// The same, or the key is absent: the class's default is a positive number.
    KeyOrAbsent(&'static str),
    /// `layer_types` has nothing but attention.
    OnlyAttention,
    /// `layers_block_type`, or else `hybrid_override_pattern`, has a block with experts.
    BlockWithExperts,
}

impl ChosenBy {
    /// Whether it holds in this config.json.
    pub fn holds(self, config: &Json) -> bool {
        let attends = |kind: &Json| matches!(kind.as_str(), Some("attention" | "full_attention"));
        match self {
            Self::KeyOrAbsent(key) if config[key].is_null() => true,
            Self::Key(key) | Self::KeyOrAbsent(key) => {
                config[key] == true || config[key].as_f64().is_some_and(|number| number > 0.0)
            }
            Self::BlockWithExperts => match config["layers_block_type"].as_array() {
                Some(kinds) => kinds.iter().any(|kind| kind == "moe"),
                None => config["hybrid_override_pattern"].as_str().is_some_and(|kinds| kinds.contains('E')),
            },
            Self::OnlyAttention => {
                config["layer_types"].as_array().is_some_and(|kinds| kinds.iter().all(attends))
            }
        }
    }
}

/// How a class names the activation of the feed-forward part in config.json.
#[derive(Clone, Copy, Debug)]
pub struct ActivationKey {
    /// The key that the class reads. If it is missing or null, the class uses the family's function.
    pub key: &'static str,
    /// The values that the class takes for the family's [`Activation`](super::Activation); models with
    /// another value are refused. The first is written. A class can give a name a meaning of its own, as
    /// Gemma's does with `gelu`: look at its configuration, and at `ACT2FN` in transformers' activations.py.
    pub names: &'static [&'static str],
    /// Keys that the class does not read, and that are written for other programs and older versions.
    pub also_written: &'static [&'static str],
}

impl ActivationKey {
    /// The keys that are written.
    pub(crate) fn written(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.key).chain(self.also_written.iter().copied())
    }
}

/// The keys that describe attention heads, beside `num_attention_heads`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKeys {
    /// None: all heads have keys and values of their own.
    Ungrouped,
    /// `num_key_value_heads`, and `head_dim` where it is not `hidden_size / num_attention_heads`.
    Grouped,
    /// `num_key_value_heads`, and always `head_dim`.
    GroupedWithLength,
}

/// Which blocks of a model have the sliding window of `sliding_window` tokens. `layer_types` and
/// `sliding_window_pattern` take precedence in every class that has windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowedLayers {
    /// None: the class ignores these keys.
    None,
    /// Every block, if `sliding_window` is set.
    All,
    /// Blocks by `layer_types` or `sliding_window_pattern`.
    Listed,
    /// Every block, if `use_sliding_window` is set.
    Switched,
    /// If `use_sliding_window` is set, the blocks from `max_window_layers` on.
    SwitchedUpper,
    /// If `use_sliding_window` is set, every other block below `max_window_layers`, from the first on.
    SwitchedEveryOther,
    /// If `use_sliding_window` is set, the blocks without a rotary embedding.
    SwitchedUnrotated,
}

/// An option that some classes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassOption {
    /// `attention_bias` and `mlp_bias`: every matrix of attention has a bias, every matrix of the
    /// feed-forward part.
    Biases,
    /// The key of this name: q, k and v have a bias.
    InputBiases(&'static str),
    /// `attn_logit_softcapping` and `final_logit_softcapping`.
    SoftCaps,
    /// `query_pre_attn_scalar`: attention scores are divided by its square root.
    QueryScalar,
    /// `attention_multiplier`, `embedding_multiplier`, `residual_multiplier` and `logits_scaling`.
    Multipliers,
    /// `model_max_length`: the context length, where config.json has it.
    ModelMaxLength,
    /// `logit_scale`: logits are multiplied by it.
    LogitScale,
    /// `rope_local_base_freq`: windowed blocks have a RoPE of their own.
    LocalRope,
    /// `rope_parameters` by kind of block; the older `rope_scaling` is that of blocks without a window alone.
    RopeByKind,
    /// `llama_4_scaling_beta` among the rotary parameters: queries are scaled by their position.
    Temperature,
    /// `no_rope_layers` (0: no rotary embedding), or else `no_rope_layer_interval`.
    UnrotatedLayers,
    /// `alpha` among the rotary parameters of the type "dynamic": the base is raised (HunYuan).
    NtkAlpha,
    /// `mrope_section` among the rotary parameters: the parts of a head with positions of their own in an image.
    Sections,
    /// `partial_rotary_factor`: the leading part of each head is rotated.
    PartialRotary,
    /// `layer_types` of `linear_attention` and `full_attention`, or else `full_attention_interval`; and the `linear_` keys.
    LinearAttention,
    /// `original_max_position_embeddings`: the context length before LongRoPE extends it.
    OriginalContext,
    /// Two kinds of heads, and what goes with them: `global_head_dim`, `num_global_key_value_heads`, `attention_k_eq_v`,
    /// `num_kv_shared_layers` and `use_double_wide_mlp`.
    HeadsByKind,
    /// `layer_types` of `conv` and `full_attention`, or else `full_attn_idxs`; and `conv_L_cache`.
    Convolutions,
    /// `layer_types` of `mamba` and `attention`, in newer folders `linear_attention` and `full_attention`; the `mamba_` keys;
    /// and `position_embedding_type`, without which no block has positions.
    StateSpaces,
    /// `layers_block_type`, or else `hybrid_override_pattern`: every block has one part alone; and the sizes of state spaces.
    BlocksOfOnePart,
    /// `moe_latent_size`: the width of what the chosen experts read and write, if it is not that of the residual stream.
    LatentExperts,
    /// The `block_` keys, by which `intermediate_size` is adjusted.
    AdjustedFeedForward,
    /// `hidden_size_per_layer_input` and `vocab_size_per_layer_input`: an input of each token for every block.
    PerLayerInputs,
    /// `decoder_sparse_step` and `mlp_only_layers`: every block has experts.
    SparseBlocks,
    /// The key of this name: so many of the first blocks have no experts.
    DenseFirst(&'static str),
    /// `moe_layer_start_index`, `moe_layer_end_index` and `moe_layer_interval`: the blocks that have experts.
    ExpertInterval,
    /// The key of this name: the width of the expert that every token goes through, in widths of an expert.
    SharedExperts(&'static str),
    /// `n_group` and `topk_group`: experts are chosen from the best groups of them.
    ExpertGroups,
    /// `routed_scaling_factor`: a factor of the weights of experts.
    ExpertScale,
    /// `norm_topk_prob`: whether the weights of a token's experts are scaled to sum to 1.
    ExpertsNormalized,
    /// The key of this name: whether a bias has a say in the choice of experts.
    SelectionBias(&'static str),
    /// The key of this name: whether each head of q and of k is normed.
    HeadNorms(&'static str),
    /// `new_decoder_architecture`: there are `num_kv_heads` key and value heads. Each of the two parallel parts of a
    /// block has a norm of its own, unless `num_ln_in_parallel_attn` is 1. Without it there is one norm, and
    /// `multi_query` says whether there is one key and value head.
    NewDecoder,
    /// `n_ctx`: an older name of the context length, written beside it.
    ContextTwice,
}
