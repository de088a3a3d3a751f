//! How llama.cpp reads the GGUF files of a family.

use super::Activation;

/// What llama.cpp assumes about a family where a GGUF file does not say it.
#[derive(Clone, Copy, Debug)]
pub struct Gguf {
    /// The soft caps of attention scores and of logits that a file without the keys has. `None`: llama.cpp
    /// reads neither key. `Some([None, None])`: it reads the cap of logits, and a file without one has none.
    /// It reads the cap of scores only if there is a default.
    pub soft_caps: Option<[Option<f64>; 2]>,
    /// Sliding windows. `None` if llama.cpp's graph of the family has none, whatever the file says.
    pub windows: Option<Windows>,
    /// Whether logits are multiplied by the key `logit_scale`; else they are divided by it.
    pub logit_scale_multiplies: bool,
    /// Whether llama.cpp reads YaRN's betas and its log multiplier; else it takes its defaults.
    pub reads_yarn: bool,
    /// Whether llama.cpp gives positions of its own to parts of a head (M-RoPE, arXiv 2409.12191), by the key
    /// `rope.dimension_sections`. Those of a text are all the same, which is RoPE.
    pub sections: bool,
    /// Of a family with linear attention: of every so many blocks, the last has softmax attention, if the file does not say
    /// which have.
    pub linear_attention: Option<usize>,
    /// Whether llama.cpp scales queries by their position, if the file has `attention.temperature_scale`.
    pub temperature: bool,
    /// Block counts of the models whose attention scale is `sqrt(heads / d_model)` in place of `1 /
    /// sqrt(head_dim)`: those that `load_arch_hparams` in llama.cpp's `src/models/FAMILY.cpp` names by their
    /// size and gives another `f_attention_scale`.
    pub width_scaled_layers: &'static [usize],
    /// The nonlinearity of the feed-forward part in llama.cpp, if it is not that of transformers' class.
    pub activation: Option<Activation>,
    /// Whether llama.cpp loads no file without an output head.
    pub needs_head: bool,
    /// Whether the weights of the experts that a token is routed to are scaled to sum to 1. `None`: the key
    /// `expert_weights_norm` says so, and without it they are not; and `expert_weights_scale` is their factor.
    pub normalizes_experts: Option<bool>,
    /// The width of the expert that every token goes through.
    pub shared_expert: SharedExpertWidth,
    /// Whether `leading_dense_block_count` is read: the first blocks have no experts.
    pub dense_first: bool,
    /// Whether blocks without key and value heads have a short convolution.
    pub convolutions: bool,
    /// Whether blocks without key and value heads have a state space.
    pub state_spaces: bool,
    /// Whether a block has one part alone: a feed-forward one if its `feed_forward_length` is not 0.
    pub one_part: bool,
    /// The factor of attention scores in every model, if it does not follow from the width of heads.
    pub attention_scale: Option<f64>,
    /// Whether llama.cpp reads sizes of each block, heads of another length in blocks with a window, and which blocks share
    /// keys and values.
    pub sizes_by_block: bool,
    /// Whether llama.cpp takes all query heads together to be as wide as the residual stream, whatever the file says.
    pub square_heads: bool,
    /// Keys that the converter writes, and llama.cpp does not read: the tensors decide.
    pub ignored_keys: &'static [&'static str],
    /// Block count of the models that llama.cpp calls 70B if they share key and value heads; llama-quantize
    /// gives their `attn_v` more bits.
    pub layers_of_70b: Option<usize>,
    /// Whether llama-quantize has rules of its own for the family: the head is always in Q8_0, and mixtures give
    /// `ffn_down` and `attn_output` fewer bits than in other families.
    pub fewer_bits: bool,
}

impl Gguf {
    /// What llama.cpp assumes about most families: nothing. A family with a name of its own in GGUF starts
    /// from this and not from a sibling.
    pub(in crate::arch) const USUAL: Self = Self {
        soft_caps: None,
        windows: None,
        logit_scale_multiplies: false,
        reads_yarn: false,
        sections: false,
        linear_attention: None,
        temperature: false,
        width_scaled_layers: &[],
        attention_scale: None,
        convolutions: false,
        state_spaces: false,
        one_part: false,
        normalizes_experts: Some(true),
        shared_expert: SharedExpertWidth::OwnOrUsual,
        dense_first: false,
        activation: None,
        needs_head: false,
        sizes_by_block: false,
        square_heads: false,
        ignored_keys: &[],
        layers_of_70b: None,
        fewer_bits: false,
    };
}

/// The key that gives the width of the expert that every token goes through, in a family that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedExpertWidth {
    /// `expert_shared_feed_forward_length`, or else `feed_forward_length`.
    OwnOrUsual,
    /// `expert_shared_feed_forward_length`; a file without it has no such expert.
    Own,
    /// `expert_shared_count`, in widths of an expert; a file without it, or with 0, has no such expert.
    Count,
}

/// Sliding windows as llama.cpp implements them for a family.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Of every `period` blocks, the last attends to the whole context and the others to a window.
    pub period: usize,
    /// The window's length in tokens, if the file gives none.
    pub length: Option<usize>,
    /// RoPE base of the windowed blocks, if the file gives none and it differs from that of the others.
    pub rope_base: Option<f64>,
    /// What of RoPE scaling applies to the windowed blocks.
    pub scaling: WindowScaling,
    /// Whether llama.cpp rotates the windowed blocks by a base of their own, if the file gives one.
    pub own_base: bool,
    /// Whether every model has windows, so that a file must give their length.
    pub required: bool,
    /// The block count of the only models that have windows, whatever the file says; `None` if all have.
    pub only_layers: Option<usize>,
}

impl Windows {
    /// Windows in every block but the last of every `period`, whose blocks rotate as the others do.
    pub(in crate::arch) const fn every(period: usize) -> Self {
        Self {
            period,
            length: None,
            rope_base: None,
            scaling: WindowScaling::Same,
            own_base: true,
            required: false,
            only_layers: None,
        }
    }

    /// Whether a model of so many blocks has windows.
    pub fn in_models_of(&self, layers: usize) -> bool {
        self.only_layers.is_none_or(|only| only == layers)
    }
}

/// What of RoPE scaling applies to the blocks that have a sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowScaling {
    /// All of it.
    Same,
    /// The factor of cosines and sines that a key gives; frequencies are not scaled.
    Factor,
    /// Nothing.
    Nothing,
}
