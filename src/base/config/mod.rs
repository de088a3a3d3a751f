//! A model's dimensions and options, whatever container they were read from.

mod checked;

use std::ops::Range;

use super::rope::Rope;
use super::row_order::RowOrder;
use crate::arch::{BlockKind, HeadKind, MixerKind, RowGroups, Size, TensorNames, Unrotated, is_windowed};

pub(super) const MAX_LAYERS: usize = 1 << 12;

/// The dimensions and options of a decoder-only transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Width of the feed-forward part.
    pub ff: usize,
    /// The sizes of each block, if they differ from the three above; else empty.
    pub own_sizes: Vec<BlockSizes>,
    /// Whether GELU is its tanh formula where the family's is exact.
    pub tanh_gelu: bool,
    /// The last blocks that have no keys and values of their own; see [`Self::keys_of`].
    pub sharing_blocks: usize,
    /// Whether each block makes its values of the output of its matrix for keys; empty if none does.
    pub keys_as_values: Vec<bool>,
    /// Inputs of a token for every block, beside the residual stream.
    pub per_layer_inputs: Option<PerLayerInputs>,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Epsilon that norms add to the mean square or the variance.
    pub norm_eps: f64,
    /// The longest sequence that the model was trained on, in tokens.
    pub context: usize,
    /// Rotary embeddings; `None` if position embeddings are learned.
    pub rope: Option<Rope>,
    /// The rotary embeddings of blocks with a sliding window, if they differ.
    pub local_rope: Option<Rope>,
    /// Whether each block has no rotary embedding; empty if all have.
    pub unrotated: Vec<bool>,
    /// Length of the sliding window: the tokens that a token attends to, itself included.
    pub window: Option<usize>,
    /// Whether each block has the sliding window; empty if none has.
    pub windowed: Vec<bool>,
    /// Factor of the attention scores.
    pub attention_scale: f64,
    /// A factor of queries that grows with their position.
    pub temperature: Option<AttentionTemperature>,
    /// Soft cap of the attention scores s: they become `cap tanh(s / cap)`.
    pub attention_cap: Option<f64>,
    /// Soft cap of the logits.
    pub logit_cap: Option<f64>,
    /// Factor of the embeddings.
    pub embedding_scale: f64,
    /// Factor of the output of attention and of the feed-forward part before it is added to the residual
    /// stream.
    pub residual_scale: f64,
    /// Factor of the logits.
    pub logit_scale: f64,
    /// The mixture of experts, if the feed-forward part is one.
    pub experts: Option<Experts>,
    /// Whether each block has an MLP in place of experts; empty if none has.
    pub dense: Vec<bool>,
    /// Whether each block is a feed-forward part alone, in a model whose blocks have one part each; empty if they have
    /// both.
    pub feed_forward_alone: Vec<bool>,
    /// Whether each head of q and of k is normed, in a family of which some models have these norms.
    pub head_norms: bool,
    /// Whether each of the two parallel parts of a block has a norm of its own, in a family of which some models have
    /// one norm for both.
    pub two_norms: bool,
    /// The heads of linear attention, if some blocks have it.
    pub delta_net: Option<DeltaNetConfig>,
    /// Whether each block has linear attention in place of softmax attention; empty if none has.
    pub linear_attention: Vec<bool>,
    /// Whether each block has a short convolution in place of attention; empty if none has.
    pub convolutions: Vec<bool>,
    /// The heads of state spaces, if some blocks have one.
    pub state_space: Option<StateSpaceConfig>,
    /// Whether each block has a state space in place of attention; empty if none has.
    pub state_spaces: Vec<bool>,
    /// Tokens that a short convolution reads, the last included; 0 if there is none.
    pub convolution_taps: usize,
    /// Further blocks in the file, which predict tokens beyond the next (MTP, arXiv 2412.19437). They are carried, and
    /// not run.
    pub prediction_blocks: usize,
}

/// The sizes of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Width of the feed-forward part.
    pub ff: usize,
}

/// An embedding of each token for every block (Gemma 3n).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerLayerInputs {
    /// The width for one block.
    pub width: usize,
    /// The tokens that have one.
    pub vocab: usize,
}

/// The heads of Gated DeltaNet (arXiv 2412.06464).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeltaNetConfig {
    /// Query and key heads.
    pub key_heads: usize,
    /// Value heads: a multiple of `key_heads`.
    pub value_heads: usize,
    /// Whether value heads that share a key head follow one another; else value head i has key head `i % key_heads`.
    pub grouped: bool,
    /// Width of a query or key head.
    pub key_dim: usize,
    /// Width of a value head.
    pub value_dim: usize,
    /// Tokens that the convolution reads, the last included.
    pub taps: usize,
    /// Added to the square sum of a query or key, by which it is divided.
    pub eps: f64,
}

impl DeltaNetConfig {
    /// The outputs of the matrix of queries, keys and values.
    pub fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim
    }

    /// Where the query, the key and the value of a value head are among the channels.
    pub fn columns(&self, value_head: usize) -> [Range<usize>; 3] {
        let Self { key_heads, value_heads, grouped, key_dim, value_dim, .. } = *self;
        let key_head = if grouped { value_head / (value_heads / key_heads) } else { value_head % key_heads };
        let [q, k] = [key_head, key_heads + key_head].map(|head| head * key_dim..(head + 1) * key_dim);
        let first = 2 * key_heads * key_dim + value_head * value_dim;
        [q, k, first..first + value_dim]
    }
}

/// The heads of Mamba-2 (arXiv 2405.21060).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSpaceConfig {
    /// Heads.
    pub heads: usize,
    /// Width of a head's values.
    pub head_dim: usize,
    /// Groups of heads that share keys and queries; divides `heads`.
    pub groups: usize,
    /// Width of keys and queries.
    pub state: usize,
    /// Tokens that the convolution reads, the last included.
    pub taps: usize,
}

impl StateSpaceConfig {
    /// The values of all heads.
    pub fn inner(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Values, keys and queries together.
    pub fn channels(&self) -> usize {
        self.inner() + 2 * self.groups * self.state
    }

    /// The outputs of the matrix that reads the input: gates, channels, and a time step for each head.
    pub fn outputs(&self) -> usize {
        self.inner() + self.channels() + self.heads
    }

    /// Where the query, the key and the value of a head are among the channels.
    pub fn columns(&self, head: usize) -> [Range<usize>; 3] {
        let Self { heads, head_dim, groups, state, .. } = *self;
        let group = head / (heads / groups);
        let [k, q] = [group, groups + group].map(|group| {
            let first = self.inner() + group * state;
            first..first + state
        });
        [q, k, head * head_dim..(head + 1) * head_dim]
    }
}

/// A mixture of experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// Experts per block.
    pub count: usize,
    /// Experts that each token is routed to.
    pub used: usize,
    /// Width of one expert.
    pub ff: usize,
    /// Width of a further expert that every token goes through.
    pub shared_ff: Option<usize>,
    /// Width of what the chosen experts read and write, if it is not that of the residual stream.
    pub latent: Option<usize>,
    /// Whether the routing weights of the chosen experts are normalized to sum to 1.
    pub normalized: bool,
    /// A factor of the routing weights.
    pub scale: f64,
    /// The groups that the experts are divided into, and how many of them a token's experts are in.
    pub groups: [usize; 2],
    /// Whether a bias has a say in the choice of experts, in a family that has one.
    pub selection_bias: bool,
}

/// The temperature of attention (Llama 4, Ministral 3): the query at position p is multiplied by
/// `1 + beta ln(1 + floor(p / length))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionTemperature {
    /// How fast it grows.
    pub beta: f64,
    /// The first positions, in tokens, that are not scaled; positive.
    pub length: usize,
}

impl AttentionTemperature {
    /// The factor of the query at this position.
    pub fn factor(&self, position: usize) -> f64 {
        1.0 + self.beta * ((position / self.length.max(1)) as f64).ln_1p()
    }
}

impl Config {
    /// The configuration of an unknown architecture: all dimensions are 0.
    pub(super) fn unknown() -> Self {
        Self {
            layers: 0,
            d_model: 0,
            heads: 0,
            kv_heads: 0,
            head_dim: 0,
            ff: 0,
            own_sizes: Vec::new(),
            tanh_gelu: false,
            sharing_blocks: 0,
            keys_as_values: Vec::new(),
            per_layer_inputs: None,
            vocab: 0,
            norm_eps: 0.0,
            context: 0,
            rope: None,
            local_rope: None,
            unrotated: Vec::new(),
            window: None,
            windowed: Vec::new(),
            attention_scale: 1.0,
            temperature: None,
            attention_cap: None,
            logit_cap: None,
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            experts: None,
            dense: Vec::new(),
            feed_forward_alone: Vec::new(),
            head_norms: false,
            two_norms: false,
            delta_net: None,
            linear_attention: Vec::new(),
            convolutions: Vec::new(),
            state_space: None,
            state_spaces: Vec::new(),
            convolution_taps: 0,
            prediction_blocks: 0,
        }
    }

    /// The number of heads of this kind per layer.
    pub fn head_count(&self, heads: HeadKind) -> usize {
        match heads {
            HeadKind::Query => self.heads,
            HeadKind::KeyValue => self.kv_heads,
        }
    }

    /// The sizes of a block.
    pub fn sizes_of(&self, layer: usize) -> BlockSizes {
        let usual = BlockSizes { kv_heads: self.kv_heads, head_dim: self.head_dim, ff: self.ff };
        self.own_sizes.get(layer).copied().unwrap_or(usual)
    }

    /// The sizes of the first block with a sliding window, or without one; of all blocks if there is none.
    pub fn sizes_by_window(&self, windowed: bool) -> BlockSizes {
        let alike =
            (0..self.layers.min(MAX_LAYERS)).find(|&layer| self.window_of(layer).is_some() == windowed);
        self.sizes_of(alike.unwrap_or(usize::MAX))
    }

    /// The first block that reads the keys of another block here than in llama.cpp: there those of the last two blocks
    /// before the [sharing ones](Self::sharing_blocks), by whether these have a window.
    pub fn shares_unlike_llama_cpp(&self) -> Option<usize> {
        let first = self.layers.saturating_sub(self.sharing_blocks);
        (first..self.layers.min(MAX_LAYERS)).find(|&layer| {
            let back = if self.window_of(layer).is_some() { 2 } else { 1 };
            Some(self.keys_of(layer)) != first.checked_sub(back)
        })
    }

    /// What decides which tensors a block has, which may be one that predicts further tokens.
    pub fn block_kind(&self, layer: usize) -> BlockKind {
        let mixer = match (self.is_linear(layer), self.convolutions.get(layer), self.state_spaces.get(layer))
        {
            (true, ..) => MixerKind::LinearAttention,
            (false, Some(true), _) => MixerKind::Convolution,
            (false, _, Some(true)) => MixerKind::StateSpace,
            (false, ..) => MixerKind::Attention,
        };
        let alone = self.feed_forward_alone.get(layer).copied();
        let mixer = Some(mixer).filter(|_| alone != Some(true));
        let feed_forward = alone != Some(false);
        let own_keys = mixer == Some(MixerKind::Attention) && self.keys_of(layer) == layer;
        let from_keys = self.keys_as_values.get(layer) == Some(&true);
        let per_layer_inputs = self.per_layer_inputs.is_some();
        let experts = self.experts.filter(|_| feed_forward && self.dense.get(layer) != Some(&true));
        BlockKind {
            mixer,
            own_keys,
            own_values: own_keys && !from_keys,
            per_layer_inputs,
            feed_forward,
            experts: experts.is_some(),
            shared_expert: experts.is_some_and(|experts| experts.shared_ff.is_some()),
            selection_bias: experts.is_some_and(|experts| experts.selection_bias),
            head_norms: self.head_norms,
            two_norms: self.two_norms,
        }
    }

    /// How many of the first blocks have no experts. `None` if a later block has none either.
    pub fn dense_first(&self) -> Option<usize> {
        let first = self.dense.iter().take_while(|&&dense| dense).count();
        (!self.dense[first..].contains(&true)).then_some(first)
    }

    /// The block whose keys and values this one reads. One of the [last blocks](Self::sharing_blocks) reads those of
    /// the last block before them that has a window, or none, as it has.
    pub fn keys_of(&self, layer: usize) -> usize {
        let first = self.layers.saturating_sub(self.sharing_blocks);
        if layer < first || layer >= self.layers {
            return layer;
        }
        let alike = |&other: &usize| self.window_of(other).is_some() == self.window_of(layer).is_some();
        (0..first).rev().find(alike).unwrap_or(layer)
    }

    /// The length of this dimension of a tensor, of this block if it is a block's.
    pub fn size(&self, size: Size, layer: Option<usize>) -> usize {
        let BlockSizes { kv_heads, head_dim, ff } = self.sizes_of(layer.unwrap_or(usize::MAX));
        let (query, key_value) = (self.heads * head_dim, kv_heads * head_dim);
        match size {
            Size::Vocab => self.vocab,
            Size::Context => self.context,
            Size::Model => self.d_model,
            Size::TwiceModel => 2 * self.d_model,
            Size::ThreeTimesModel => 3 * self.d_model,
            Size::Query => query,
            Size::QueryAndGate => 2 * query,
            Size::KeyValue => key_value,
            Size::Qkv => query + 2 * key_value,
            Size::Head => head_dim,
            Size::PerLayer => self.per_layer_inputs.map_or(0, |inputs| inputs.width),
            Size::AllPerLayer => self.per_layer_inputs.map_or(0, |inputs| self.layers * inputs.width),
            Size::PerLayerVocab => self.per_layer_inputs.map_or(0, |inputs| inputs.vocab),
            Size::Heads => self.heads,
            Size::KeyValueHeads => kv_heads,
            Size::Ff => ff,
            Size::GateUp => 2 * ff,
            Size::Experts => self.experts.map_or(0, |e| e.count),
            Size::ExpertFf => self.experts.map_or(0, |e| e.ff),
            Size::ExpertModel => self.experts.and_then(|e| e.latent).unwrap_or(self.d_model),
            Size::ExpertGateUp => self.experts.map_or(0, |e| 2 * e.ff),
            Size::SharedFf => self.experts.and_then(|e| e.shared_ff).unwrap_or(0),
            Size::One => 1,
            Size::LinearChannels => self.delta_net.map_or(0, |heads| heads.channels()),
            Size::LinearKey => self.delta_net.map_or(0, |heads| heads.key_heads * heads.key_dim),
            Size::LinearKeyHeads => self.delta_net.map_or(0, |heads| heads.key_heads),
            Size::TwiceLinearHeads => self.delta_net.map_or(0, |heads| 2 * heads.value_heads),
            Size::LinearValue => self.delta_net.map_or(0, |heads| heads.value_heads * heads.value_dim),
            Size::LinearHeads => self.delta_net.map_or(0, |heads| heads.value_heads),
            Size::LinearHead => self.delta_net.map_or(0, |heads| heads.value_dim),
            Size::StateSpaceOutputs => self.state_space.map_or(0, |space| space.outputs()),
            Size::StateSpaceChannels => self.state_space.map_or(0, |space| space.channels()),
            Size::StateSpaceInner => self.state_space.map_or(0, |space| space.inner()),
            Size::StateSpaceHeads => self.state_space.map_or(0, |space| space.heads),
            Size::StateSpaceGroups => self.state_space.map_or(0, |space| space.groups),
            Size::Taps => match (self.delta_net, self.state_space) {
                (Some(heads), _) => heads.taps,
                (None, Some(space)) => space.taps,
                (None, None) => self.convolution_taps,
            },
        }
    }

    /// Hugging Face's order of the `rows` of a matrix with these names. `None` if they are not a whole number
    /// of heads.
    pub fn hugging_face_order(&self, names: &TensorNames, rows: u64) -> Option<RowOrder> {
        match (names.rotary_halves, names.groups) {
            (Some(heads), _) => RowOrder::rotary_halves(rows, self.head_count(heads)),
            (None, Some(RowGroups { groups, segments })) => {
                let sizes: Vec<usize> = segments.iter().map(|&size| self.size(size, None)).collect();
                RowOrder::segments(rows, self.size(groups, None), &sizes)
            }
            (None, None) => self.value_head_order(*names.shape.first()?, rows),
        }
    }

    /// Hugging Face's order of the `columns` of a matrix with these names.
    pub fn hugging_face_columns(&self, names: &TensorNames, columns: u64) -> Option<RowOrder> {
        match names.shape {
            [_, size] => self.value_head_order(*size, columns),
            _ => Some(RowOrder::CANONICAL),
        }
    }

    /// Hugging Face's order of a dimension of this kind: it groups value heads by their key head.
    fn value_head_order(&self, size: Size, length: u64) -> Option<RowOrder> {
        let Some(heads) = self.delta_net.filter(|heads| !heads.grouped) else {
            return Some(RowOrder::CANONICAL);
        };
        let (first, width) = match size {
            Size::LinearChannels => (2 * heads.key_heads * heads.key_dim, heads.value_dim),
            Size::LinearValue => (0, heads.value_dim),
            Size::LinearHeads => (0, 1),
            _ => return Some(RowOrder::CANONICAL),
        };
        RowOrder::grouped(length, first, heads.key_heads, heads.value_heads, width)
    }

    /// The rotary embeddings of a block, if it has any.
    pub fn rope_of(&self, layer: usize) -> Option<&Rope> {
        if self.unrotated.get(layer) == Some(&true) {
            return None;
        }
        let local = self.local_rope.as_ref().filter(|_| self.window_of(layer).is_some());
        local.or(self.rope.as_ref())
    }

    /// Whether a block has linear attention.
    pub fn is_linear(&self, layer: usize) -> bool {
        self.linear_attention.get(layer) == Some(&true)
    }

    /// The length of the sliding window of a block, if it has one.
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        self.window.filter(|_| self.windowed.get(layer) == Some(&true))
    }

    /// Sets which blocks have no rotary embedding, after the windows. `has_windows` tells whether the model has a
    /// window, even if no block uses it.
    pub(super) fn set_unrotated(&mut self, unrotated: Unrotated, has_windows: bool) {
        // The dimensions are not checked yet: they must not size an allocation.
        let layers = 0..self.layers.min(MAX_LAYERS);
        self.unrotated = match unrotated {
            // Without rotary embeddings in any block, the model has none.
            Unrotated::Never | Unrotated::Always | Unrotated::Switched => Vec::new(),
            Unrotated::EveryLast(period) => layers.map(|layer| !is_windowed(layer, period)).collect(),
            Unrotated::Global if !has_windows => Vec::new(),
            Unrotated::Global => layers.map(|layer| self.window_of(layer).is_none()).collect(),
        };
    }
}
