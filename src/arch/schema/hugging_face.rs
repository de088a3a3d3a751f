//! What transformers' class of a family reads from config.json, and what curmerge writes there.

/// The class of a family in transformers, and its config.json.
#[derive(Clone, Copy, Debug)]
pub struct HuggingFace {
    /// `model_type` values; the first is written.
    pub model_types: &'static [&'static str],
    /// The class of the language model (`architectures`).
    pub class: &'static str,
    /// Keys that have another name than in llama's config.json: llama's name, and this family's.
    pub keys: &'static [(&'static str, &'static str)],
    /// The class's defaults for keys that config.json leaves out, by this family's names; 1 is true.
    pub defaults: &'static [(&'static str, f64)],
    /// The keys that describe attention heads.
    pub heads: HeadKeys,
    /// Keys that name the activation, and its name.
    pub activation: &'static [(&'static str, &'static str)],
    /// `intermediate_size / hidden_size` of a model whose `intermediate_size` is missing or null; `None` if
    /// it must be given.
    pub ff_ratio: Option<usize>,
    /// Which blocks have a sliding window.
    pub windows: WindowedLayers,
    /// What else the class can be configured to do.
    pub options: &'static [ClassOption],
    /// Keys that have the same value in every model of the family that curmerge opens.
    pub flags: &'static [(&'static str, bool)],
}

impl HuggingFace {
    /// This family's name for a key of llama's config.json.
    pub fn key<'k>(&self, key: &'k str) -> &'k str {
        self.keys.iter().find(|(llama, _)| *llama == key).map_or(key, |(_, own)| own)
    }

    /// The class's default for a key, by this family's name.
    pub fn default(&self, key: &str) -> Option<f64> {
        self.defaults.iter().find(|(name, _)| *name == key).map(|(_, number)| *number)
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
}

/// An option that some classes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassOption {
    /// `attention_bias` and `mlp_bias`: every matrix of attention has a bias, every matrix of the
    /// feed-forward part.
    Biases,
    /// `attn_logit_softcapping` and `final_logit_softcapping`.
    SoftCaps,
    /// `query_pre_attn_scalar`: attention scores are divided by its square root.
    QueryScalar,
    /// `attention_multiplier`, `embedding_multiplier`, `residual_multiplier` and `logits_scaling`.
    Multipliers,
    /// `rope_local_base_freq`: windowed blocks have a RoPE of their own.
    LocalRope,
    /// `partial_rotary_factor`: the leading part of each head is rotated.
    PartialRotary,
    /// `original_max_position_embeddings`: the context length before LongRoPE extends it.
    OriginalContext,
    /// `decoder_sparse_step` and `mlp_only_layers`: every block has experts.
    SparseBlocks,
    /// `n_ctx`: an older name of the context length, written beside it.
    ContextTwice,
}
