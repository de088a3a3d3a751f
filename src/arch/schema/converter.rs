//! What llama.cpp's convert_hf_to_gguf.py does for a family. It has a class for each; here they are data.

use crate::arch::groups::FIRST_KEYS;

/// How a Hugging Face folder of a family becomes a GGUF file.
#[derive(Clone, Copy, Debug)]
pub struct Converter {
    /// Where the vocabulary may be; the first that the folder has is used. The class's `set_vocab` tries them
    /// in this order.
    pub vocabularies: &'static [VocabularySource],
    /// When `tokenizer.ggml.add_space_prefix` is written.
    pub space_prefix: SpacePrefix,
    /// Tokenizer keys that the class sets itself, after those of the folder: the vocabulary size by which the
    /// converter recognises the models that get the key (`None`: all models), and the key.
    pub overrides: &'static [(Option<usize>, TokenizerOverride)],
    /// Special tokens by their texts, for roles that the folder gives to none: the role, and the text of an added token.
    pub special_tokens: &'static [(&'static str, &'static str)],
    /// The keys under the architecture's name, in the order in which the class's `set_gguf_parameters` writes
    /// them, in groups that families share. A key of a property that the family lacks must not be among them.
    pub keys: &'static [&'static [Key]],
    /// The rules of RoPE scaling that can be written.
    pub rope_types: &'static [RopeType],
    /// The norms' epsilon that is written, whatever the folder says.
    pub rms_epsilon: Option<f64>,
    /// The stacked experts of a block, in the order in which they are written: canonical names after
    /// `blk.N.`.
    pub experts: &'static [&'static str],
    /// Whether an output head in the folder is written. Classes whose `filter_tensors` skips `lm_head.weight`
    /// do not: llama.cpp then takes the embedding for the head.
    pub writes_head: bool,
    /// Prefixes of the folder's tensors that are not written: vision towers and projectors.
    pub dropped_prefixes: &'static [&'static str],
}

impl Converter {
    /// What most of the converter's classes do.
    pub(in crate::arch) const USUAL: Self = Self {
        vocabularies: &[VocabularySource::ByteLevel],
        space_prefix: SpacePrefix::Unset,
        overrides: &[],
        special_tokens: &[],
        keys: &[FIRST_KEYS, &[Key::GivenHeadLengths, Key::FileType]],
        rope_types: &[RopeType::ByKeys],
        rms_epsilon: None,
        experts: &[],
        writes_head: true,
        dropped_prefixes: &[],
    };

    /// Whether files of the family have this key.
    pub fn writes(&self, key: Key) -> bool {
        self.keys.iter().any(|group| group.contains(&key))
    }
}

/// Where a vocabulary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VocabularySource {
    /// tokenizer.model, with pieces and their scores.
    SentencePiece,
    /// tokenizer.model, with the added tokens as Phi 3's class has them, unless the folder says that it is
    /// byte-level.
    Phi3,
    /// tokenizer.model, with the added tokens as in [`Self::Phi3`], no padding, and whether a space is put before texts.
    InternLm2,
    /// tokenizer.json made from a SentencePiece model: merges with a fallback to bytes.
    SentencePieceJson,
    /// tokenizer.json made from a SentencePiece model, whose merges are kept: Gemma 4's.
    Characters,
    /// tokenizer.json of byte-level BPE.
    ByteLevel,
}

/// When `tokenizer.ggml.add_space_prefix` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpacePrefix {
    /// Never.
    Unset,
    /// Before the other tokenizer keys, with the value in tokenizer_config.json, if it has one.
    FromFolder,
    /// After the other tokenizer keys, with the value in tokenizer_config.json, if it has one.
    LastFromFolder,
    /// After the other tokenizer keys, as false, if the vocabulary is tokenizer.model's.
    Off,
}

/// A tokenizer key that a class of the converter sets itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerOverride {
    /// `add_bos_token` is false, whatever the folder says.
    NoBos,
    /// `eot_token_id`. gguf-py has no keys for the other tokens (prefix, suffix, middle) that these classes
    /// set.
    EndOfTurn(u32),
    /// `padding_token_id`.
    Padding(u32),
    /// `unknown_token_id`.
    Unknown(u32),
    /// `eos_token_id` is the id of the added token of this text, if there is one.
    EndByText(&'static str),
    /// `eos_token_id` is `eod_token_id` of config.json, or else this id, and `eot_token_id` the first of several ids in
    /// generation_config.json (HunYuan).
    EndOfDocument(u32),
}

/// A rule of RoPE scaling, and how GGUF states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeType {
    /// All frequencies divided by the same number, or YaRN's rule (arXiv 2309.00071): keys.
    ByKeys,
    /// Llama 3's: a tensor, `rope_freqs.weight`.
    Llama3,
    /// LongRoPE's two sets of factors: two tensors, and a key for the amplitude.
    LongRope,
    /// The first pairs of a head alone, with the frequencies of a head that is rotated throughout: a tensor,
    /// `rope_freqs.weight`. Every model has it.
    Proportional,
}

/// A key of a GGUF file under the architecture's name, or a few that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `block_count`.
    Blocks,
    /// `context_length`.
    Context,
    /// `context_length`, always 2048.
    UsualContext,
    /// `tensor_data_layout`, always "jploski": in one matrix, all keys follow all queries, and all values all keys.
    TensorLayout,
    /// `rope.scaling.original_context_length`: the context length before RoPE scaling extends it.
    OriginalContext,
    /// `embedding_length`.
    Width,
    /// `feed_forward_length`.
    FeedForward,
    /// [`Self::FeedForward`], if config.json has `intermediate_size`.
    GivenFeedForward,
    /// `attention.head_count`.
    Heads,
    /// `attention.head_count_kv`.
    KeyValueHeads,
    /// `rope.scaling.type` and the numbers of linear scaling or of YaRN.
    RopeScaling,
    /// `rope.freq_base`.
    RopeBase,
    /// `rope.freq_base` of a family without rotary embeddings, if config.json has `rope_theta`.
    UnusedRopeBase,
    /// `rope.freq_base_swa`: the base of windowed blocks.
    LocalRopeBase,
    /// `attention.layer_norm_rms_epsilon`.
    RmsEpsilon,
    /// `attention.layer_norm_epsilon`.
    LayerEpsilon,
    /// The same, of a family with RMSNorm; and before it [`Self::RmsEpsilon`], if config.json has
    /// `rms_norm_eps` or `norm_eps`.
    RmsAsLayerEpsilon,
    /// `expert_count` and `expert_used_count`.
    Experts,
    /// `expert_feed_forward_length`.
    ExpertFeedForward,
    /// `expert_shared_feed_forward_length`, if every token goes through a further expert.
    SharedFeedForward,
    /// `expert_shared_count`: the width of the expert that every token goes through, in widths of an expert.
    SharedExperts,
    /// `expert_shared_count`: the experts that every token goes through, which config.json counts.
    OneSharedExpert,
    /// `moe_latent_size`: the width of what the chosen experts read and write, if it is not that of the residual stream.
    LatentWidth,
    /// `expert_group_count` and `expert_group_used_count`.
    ExpertGroups,
    /// `expert_count` and `expert_used_count` of a model without experts: both 0.
    NoExperts,
    /// `expert_shared_feed_forward_length` of a model without experts: the width of its feed-forward part.
    DenseAsShared,
    /// `expert_gating_func`.
    ExpertGating,
    /// `expert_weights_scale`.
    ExpertScale,
    /// `expert_weights_norm`.
    ExpertsNormalized,
    /// `leading_dense_block_count`: the first blocks, which have no experts.
    DenseFirst,
    /// `interleave_moe_layer_step`, always 1: all further blocks have experts.
    ExpertInterval,
    /// `shortconv.l_cache`: the tokens that a short convolution reads, the last included.
    ConvolutionTaps,
    /// `attention.shared_kv_layers`: the last blocks, which have no keys and values of their own.
    SharingBlocks,
    /// `embedding_length_per_layer_input`: the width of a token's input for one block, or 0.
    PerLayerInputs,
    /// `attention.key_length_swa` and `attention.value_length_swa`: of blocks with a window.
    LocalHeadLengths,
    /// `rope.dimension_count` and `rope.dimension_count_swa`.
    RopeDimensionsByKind,
    /// `attention.key_length` and `attention.value_length`.
    HeadLengths,
    /// [`Self::HeadLengths`], if config.json has `head_dim`.
    GivenHeadLengths,
    /// `general.file_type`.
    FileType,
    /// `vocab_size`.
    Vocabulary,
    /// `rope.dimension_count` of a family that rotates whole heads.
    RopeDimensions,
    /// `rope.dimension_count` of a family without rotary embeddings: the width of the residual stream by query heads.
    UnusedRopeDimensions,
    /// `rope.dimension_count` of a family that may rotate the leading part of a head.
    PartialRopeDimensions,
    /// `attn_logit_softcapping`.
    AttentionCap,
    /// `final_logit_softcapping`.
    LogitCap,
    /// [`Self::LogitCap`], if the model has one.
    GivenLogitCap,
    /// `attention.sliding_window`, if the model has one.
    Window,
    /// `attention.sliding_window`, or 0.
    WindowOrZero,
    /// `attention.sliding_window_pattern`: whether each block has the window, if the model has one.
    WindowPattern,
    /// `rope.scaling.yarn_log_multiplier` and `attention.temperature_scale`.
    Temperature,
    /// `logit_scale`, which multiplies.
    LogitScale,
    /// `rope.dimension_sections`: the parts of a head with positions of their own in an image.
    Sections,
    /// [`Self::Sections`] of a Qwen 3.5 whose config.json has none.
    UsualSections,
    /// `n_deepstack_layers`: the blocks that images enter.
    Deepstack,
    /// `ssm.conv_kernel`, `ssm.state_size`, `ssm.group_count`, `ssm.time_step_rank`, `ssm.inner_size`,
    /// `attention.recurrent_layers` and `full_attention_interval`: the heads of linear attention, and the blocks.
    LinearAttention,
    /// `ssm.conv_kernel`, `ssm.state_size`, `ssm.group_count`, `ssm.inner_size` and `ssm.time_step_rank`: the heads of state
    /// spaces.
    StateSpace,
    /// `rope.scaling.finetuned`: whether blocks have positions.
    Rotated,
    /// `nextn_predict_layers`: the blocks that predict further tokens, if there are some.
    PredictionBlocks,
    /// `tokenizer.ggml.add_bos_token`, false unless the folder says otherwise.
    NoBos,
    /// `use_parallel_residual`.
    ParallelResidual,
    /// `rope.scaling.type`, always "none".
    Unscaled,
    /// Of a base that `alpha` raises: `rope.scaling.type` "none", and the numbers that belong to it.
    RaisedBase,
    /// `attention.scale`, `embedding_scale`, `residual_scale` and `logit_scale`.
    Scales,
}
