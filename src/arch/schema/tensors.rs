//! The tensors of a model: what each container calls them, their shapes, and how they are stored.

use super::{JoinedExperts, JoinedRows};

/// The tensors of a family.
#[derive(Clone, Copy, Debug)]
pub struct Tensors {
    /// Every tensor that the model reads, in groups that families share.
    pub groups: &'static [&'static [TensorNames]],
    /// What can be adapted: the short word for it, which is the matrix's role, and the canonical name after
    /// `blk.N.`. A word may have several names, of which a block has one.
    pub targets: &'static [(&'static str, &'static str)],
    /// The words that `all` leaves out: matrices with a row a head, which are smaller than a usual rank.
    pub small: &'static [&'static str],
    /// The norms of a block by their place.
    pub norms: BlockNorms,
    /// The canonical name of the norm after the last block.
    pub last_norm: &'static str,
    /// Matrices that hold several roles: the canonical name after `blk.N.`, and the parts from the first row
    /// on.
    pub fused: &'static [(&'static str, &'static [(&'static str, Size)])],
    /// The tensors in which Hugging Face folders have matrices of all experts. Such a matrix has no Hugging Face name of
    /// its own; or it has one: then transformers writes single matrices, and reads both forms.
    pub joined_experts: &'static [JoinedExperts],
    /// The tensors in which Hugging Face folders have rows of several matrices, group by group.
    pub joined_rows: &'static [JoinedRows],
    /// Prefixes that some Hugging Face folders use, and the prefix in this table that each stands for.
    pub prefixes: &'static [(&'static str, &'static str)],
}

/// The norms of a block: canonical names after `blk.N.`. A family whose table lacks the name has no norm there.
#[derive(Clone, Copy, Debug)]
pub struct BlockNorms {
    /// Of the input of attention.
    pub before_attention: &'static str,
    /// Of the input of both parts, in a block without the norm `before_attention`. `None` if the family has no such
    /// block.
    pub before_both: Option<&'static str>,
    /// Of what attention adds to the residual stream.
    pub after_attention: &'static str,
    /// Of the input of the feed-forward part.
    pub before_feed_forward: &'static str,
    /// Of what the feed-forward part adds.
    pub after_feed_forward: &'static str,
}

impl BlockNorms {
    /// What most families call them.
    pub(in crate::arch) const USUAL: Self = Self {
        before_attention: "attn_norm",
        before_both: None,
        after_attention: "post_attention_norm",
        before_feed_forward: "ffn_norm",
        after_feed_forward: "post_ffw_norm",
    };
}

/// The names of one tensor, and how each container stores it.
#[derive(Clone, Copy, Debug)]
pub struct TensorNames {
    /// Canonical name; `{}` stands for a number: the layer's, then the expert's.
    pub canonical: &'static str,
    /// Hugging Face's name, with the same `{}`.
    pub hugging_face: &'static str,
    /// Hugging Face's name in some blocks, if it is another one there: these blocks, and the name.
    pub other_name: Option<(Blocks, &'static str)>,
    /// `[out, in]` of a matrix, `[n]` of a vector.
    pub shape: &'static [Size],
    /// The heads whose rows are permuted: Hugging Face keeps the two rotary halves of each head apart, and
    /// GGUF interleaves them.
    pub rotary_halves: Option<HeadKind>,
    /// Hugging Face stores the rows group by group, of each group those of every segment; GGUF stores the segments of all
    /// groups one after another.
    pub groups: Option<RowGroups>,
    /// Hugging Face stores the matrix as `[in, out]`.
    pub transposed: bool,
    /// Hugging Face stores `w` where the norm multiplies by `1 + w`.
    pub unit_offset: bool,
    /// Hugging Face stores the logarithm of the negated numbers.
    pub log_of_negative: bool,
    /// What ends its names.
    pub endings: Endings,
    /// Hugging Face stores the matrix as `[out, 1, in]`, as torch's convolutions by channels do.
    pub convolution: bool,
    /// Hugging Face stores the vector as a matrix of one row, and so does the converter.
    pub one_row: bool,
    /// The tensor is one number, and GGUF has no such tensor: an array in the metadata has the numbers of all blocks. Its
    /// key is the canonical name after `blk.{}.`, without the architecture's name.
    pub in_metadata: bool,
    /// GGUF stores the vector as a matrix of so many rows.
    pub rows_in_gguf: Option<Size>,
    /// Whether the tensor has a bias; `None` if no model has one.
    pub bias: Option<Presence>,
    /// The blocks that have the tensor, if it is a block's.
    pub blocks: Blocks,
    /// Whether every model has the tensor. A model without the output head has a tied one: the embedding.
    pub presence: Presence,
}

/// How rows are divided into groups, and a group into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowGroups {
    /// The number of groups.
    pub groups: Size,
    /// The rows of each segment, in all groups together.
    pub segments: &'static [Size],
}

impl RowGroups {
    /// For each key and value head, its queries, the key and the value.
    pub(in crate::arch) const QKV: Self =
        Self { groups: Size::KeyValueHeads, segments: &[Size::Query, Size::KeyValue, Size::KeyValue] };
}

/// What ends the stored names of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endings {
    /// In GGUF files.
    pub gguf: &'static str,
    /// In Hugging Face folders.
    pub hugging_face: &'static str,
}

impl Endings {
    /// Of most tensors.
    pub const WEIGHT: Self = Self { gguf: ".weight", hugging_face: ".weight" };
    /// Of parameters that are no module's weight.
    pub const NONE: Self = Self { gguf: "", hugging_face: "" };
    /// Of such parameters that have the usual ending in GGUF files.
    pub const ONLY_IN_GGUF: Self = Self { gguf: ".weight", hugging_face: "" };
}

/// Which blocks have a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// All.
    All,
    /// Those with softmax attention.
    Attention,
    /// Those with softmax attention over keys and values of their own.
    OwnKeys,
    /// Those whose values have a matrix of their own.
    OwnValues,
    /// Those with linear attention.
    LinearAttention,
    /// Those with a short convolution.
    Convolution,
    /// Those with a state space.
    StateSpace,
    /// Those whose feed-forward part is a mixture of experts.
    Experts,
    /// Those whose feed-forward part is one MLP, in a model with experts.
    Dense,
    /// Those with an expert that every token goes through.
    SharedExpert,
    /// Those whose experts are chosen by their weights and a bias.
    SelectionBias,
    /// Those with softmax attention, if the model norms each head of q and of k, or none.
    HeadNorms,
    /// All, if each of the two parallel parts has a norm of its own, or none.
    TwoNorms,
    /// All, if the model has an input of each token for every block, or none.
    PerLayerInputs,
    /// None of those that are run: those that predict further tokens.
    Prediction,
}

/// What mixes the tokens of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MixerKind {
    /// Softmax attention.
    Attention,
    /// Linear attention: Gated DeltaNet (arXiv 2412.06464).
    LinearAttention,
    /// A gated short convolution (LFM2).
    Convolution,
    /// A state space: Mamba-2 (arXiv 2405.21060).
    StateSpace,
}

/// What decides which tensors a block has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockKind {
    /// What mixes its tokens; `None` in a block that is a feed-forward part alone.
    pub mixer: Option<MixerKind>,
    /// Whether its attention has keys and values of its own; else it reads those of an earlier block.
    pub own_keys: bool,
    /// Whether its values have a matrix of their own; else they are made of its keys, or are an earlier block's.
    pub own_values: bool,
    /// Whether it has an input of each token of its own, beside the residual stream.
    pub per_layer_inputs: bool,
    /// Whether it has a feed-forward part.
    pub feed_forward: bool,
    /// Whether its feed-forward part is a mixture of experts.
    pub experts: bool,
    /// Whether every token goes through a further expert.
    pub shared_expert: bool,
    /// Whether a bias has a say in the choice of experts.
    pub selection_bias: bool,
    /// Whether each head of q and of k is normed, in a family of which some models have these norms.
    pub head_norms: bool,
    /// Whether each of its two parallel parts has a norm of its own, in a family of which some models have one norm for
    /// both.
    pub two_norms: bool,
}

impl BlockKind {
    /// A block with softmax attention, with experts if its family has some, and nothing else that is not usual.
    pub const USUAL: Self = Self {
        mixer: Some(MixerKind::Attention),
        own_keys: true,
        own_values: true,
        per_layer_inputs: false,
        feed_forward: true,
        experts: true,
        shared_expert: true,
        selection_bias: true,
        head_norms: true,
        two_norms: false,
    };
}

impl Blocks {
    /// Whether a block of this kind is among them.
    pub fn include(self, kind: BlockKind) -> bool {
        match self {
            Self::All => true,
            Self::Attention => kind.mixer == Some(MixerKind::Attention),
            Self::OwnKeys => kind.own_keys,
            Self::OwnValues => kind.own_values,
            Self::LinearAttention => kind.mixer == Some(MixerKind::LinearAttention),
            Self::Convolution => kind.mixer == Some(MixerKind::Convolution),
            Self::StateSpace => kind.mixer == Some(MixerKind::StateSpace),
            Self::Experts => kind.experts,
            Self::Dense => kind.feed_forward && !kind.experts,
            Self::SharedExpert => kind.experts && kind.shared_expert,
            Self::SelectionBias => kind.experts && kind.selection_bias,
            Self::HeadNorms => kind.mixer == Some(MixerKind::Attention) && kind.head_norms,
            Self::TwoNorms => kind.two_norms,
            Self::PerLayerInputs => kind.per_layer_inputs,
            Self::Prediction => false,
        }
    }

    /// Whether a block of this kind, which is not among them, may have the tensor all the same: unused. Gemma's files
    /// have keys and values of blocks that read those of an earlier one.
    pub fn may_be_unused_in(self, kind: BlockKind) -> bool {
        let shares = kind.mixer == Some(MixerKind::Attention) && !kind.own_keys;
        shares && matches!(self, Self::OwnKeys | Self::OwnValues)
    }

    /// Whether blocks of this kind that predict further tokens are among them.
    pub fn include_prediction(self, kind: BlockKind) -> bool {
        self == Self::Prediction || self.include(kind)
    }
}

/// Which models of a family have a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Every model.
    Always,
    /// Some models.
    Sometimes,
}

/// A kind of attention heads. The rows of a permuted matrix divide into its heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// The query heads.
    Query,
    /// The key and value heads.
    KeyValue,
}

/// A dimension of a tensor. The model's configuration gives its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Rows of the embedding.
    Vocab,
    /// Positions that have learned embeddings.
    Context,
    /// Width of the residual stream.
    Model,
    /// Three times the width of the residual stream.
    ThreeTimesModel,
    /// Twice the width of the residual stream.
    TwiceModel,
    /// All query heads.
    Query,
    /// All query heads, each with its gate.
    QueryAndGate,
    /// All key heads, or all value heads.
    KeyValue,
    /// Query, key and value heads together.
    Qkv,
    /// One head.
    Head,
    /// The input of a token for one block.
    PerLayer,
    /// The inputs of a token for all blocks.
    AllPerLayer,
    /// The tokens that have such inputs.
    PerLayerVocab,
    /// Number of query heads.
    Heads,
    /// Number of key heads, which is that of value heads.
    KeyValueHeads,
    /// Width of the feed-forward part.
    Ff,
    /// Gate and up together.
    GateUp,
    /// Number of experts.
    Experts,
    /// Width of one expert.
    ExpertFf,
    /// Width of what the chosen experts read and write.
    ExpertModel,
    /// Gate and up of one expert together.
    ExpertGateUp,
    /// Width of the expert that every token goes through.
    SharedFf,
    /// One output.
    One,
    /// Queries, keys and values of linear attention together.
    LinearChannels,
    /// All key heads of linear attention.
    LinearKey,
    /// Number of key heads of linear attention.
    LinearKeyHeads,
    /// Twice the number of value heads of linear attention.
    TwiceLinearHeads,
    /// All value heads of linear attention.
    LinearValue,
    /// Number of value heads of linear attention.
    LinearHeads,
    /// One value head of linear attention.
    LinearHead,
    /// The outputs of a state space's matrix: gates, channels and time steps.
    StateSpaceOutputs,
    /// Values, keys and queries of a state space together.
    StateSpaceChannels,
    /// All heads of a state space.
    StateSpaceInner,
    /// Number of heads of a state space.
    StateSpaceHeads,
    /// Number of groups of a state space's heads.
    StateSpaceGroups,
    /// Taps of the convolution of linear attention or of a state space, or of a short convolution.
    Taps,
}

impl TensorNames {
    /// A tensor that every model has, without a bias, and that both containers store alike.
    pub(in crate::arch) const fn new(
        canonical: &'static str,
        hugging_face: &'static str,
        shape: &'static [Size],
    ) -> Self {
        Self {
            canonical,
            hugging_face,
            other_name: None,
            shape,
            rotary_halves: None,
            groups: None,
            transposed: false,
            unit_offset: false,
            log_of_negative: false,
            endings: Endings::WEIGHT,
            convolution: false,
            one_row: false,
            in_metadata: false,
            rows_in_gguf: None,
            bias: None,
            blocks: Blocks::All,
            presence: Presence::Always,
        }
    }

    /// Hugging Face's name in blocks of this kind.
    pub(in crate::arch) fn hugging_face_in(&self, kind: BlockKind) -> &'static str {
        let other = self.other_name.filter(|(blocks, _)| blocks.include(kind));
        other.map_or(self.hugging_face, |(_, name)| name)
    }

    /// With another name in these blocks of Hugging Face folders.
    pub(in crate::arch) const fn named_in(mut self, blocks: Blocks, name: &'static str) -> Self {
        self.other_name = Some((blocks, name));
        self
    }

    /// With the rotary halves of these heads apart in Hugging Face folders.
    pub(in crate::arch) const fn rotary(mut self, heads: HeadKind) -> Self {
        self.rotary_halves = Some(heads);
        self
    }

    /// Stored group by group in Hugging Face folders.
    pub(in crate::arch) const fn grouped(mut self, groups: RowGroups) -> Self {
        self.groups = Some(groups);
        self
    }

    /// Stored as `[in, out]` in Hugging Face folders.
    pub(in crate::arch) const fn transposed(mut self) -> Self {
        self.transposed = true;
        self
    }

    /// Stored without the 1 that is added to it in Hugging Face folders.
    pub(in crate::arch) const fn unit_offset(mut self) -> Self {
        self.unit_offset = true;
        self
    }

    /// Stored as the logarithm of its negative in Hugging Face folders.
    pub(in crate::arch) const fn log_of_negative(mut self) -> Self {
        self.log_of_negative = true;
        self
    }

    /// With these endings of its names.
    pub(in crate::arch) const fn ending(mut self, endings: Endings) -> Self {
        self.endings = endings;
        self
    }

    /// The kernel of a convolution by channels.
    pub(in crate::arch) const fn convolution(mut self) -> Self {
        self.convolution = true;
        self
    }

    /// Stored as a matrix of one row in Hugging Face folders.
    pub(in crate::arch) const fn one_row(mut self) -> Self {
        self.one_row = true;
        self
    }

    /// In the metadata of GGUF files. In Hugging Face folders it is no module's weight.
    pub(in crate::arch) const fn in_metadata(mut self) -> Self {
        self.in_metadata = true;
        self.ending(Endings::NONE)
    }

    /// The key of the array that GGUF has in place of the tensor, if it has one.
    pub fn metadata_key(&self) -> Option<&'static str> {
        self.canonical.strip_prefix("blk.{}.").filter(|_| self.in_metadata)
    }

    /// Stored as a matrix of so many rows in GGUF files.
    pub(in crate::arch) const fn matrix_in_gguf(mut self, rows: Size) -> Self {
        self.rows_in_gguf = Some(rows);
        self
    }

    /// With a bias in every model.
    pub(in crate::arch) const fn biased(mut self) -> Self {
        self.bias = Some(Presence::Always);
        self
    }

    /// With a bias in some models.
    pub(in crate::arch) const fn may_be_biased(mut self) -> Self {
        self.bias = Some(Presence::Sometimes);
        self
    }

    /// Only in these blocks.
    pub(in crate::arch) const fn only_in(mut self, blocks: Blocks) -> Self {
        self.blocks = blocks;
        self
    }

    /// In every model, of a tensor that some models of other families lack.
    pub(in crate::arch) const fn required(mut self) -> Self {
        self.presence = Presence::Always;
        self
    }

    /// Missing from some models.
    pub(in crate::arch) const fn optional(mut self) -> Self {
        self.presence = Presence::Sometimes;
        self
    }
}
