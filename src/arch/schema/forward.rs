//! The options of the forward pass that every model of a family shares.

/// Which mathematics a family uses. Dimensions and numbers are in the model's configuration.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    /// How the residual stream is normalised.
    pub norm: NormKind,
    /// How a token's position enters.
    pub positions: Positions,
    /// The blocks that have no rotary embedding, in a family that has one.
    pub unrotated: Unrotated,
    /// Whether both parts of a block read its input. The norm before the feed-forward part may then be that before
    /// attention.
    pub parallel: bool,
    /// Whether the rows of each query head are followed by those of a gate, whose sigmoid multiplies the head's output
    /// (arXiv 2505.06708).
    pub gated_attention: bool,
    /// Whether value heads of linear attention that share a key head follow one another.
    pub grouped_value_heads: bool,
    /// Whether blocks with experts have an MLP beside them that every token goes through, with norms of their own.
    pub mlp_beside_experts: bool,
    /// Whether heads of q and k are normed after their rotation; else before it.
    pub norms_rotated: bool,
    /// Whether each head of the values is normed, without a factor.
    pub value_norm: bool,
    /// How a router's outputs become the weights of experts.
    pub gating: Gating,
    /// Added to the sum by which the weights of a token's experts are divided.
    pub added_to_weights: f64,
    /// The nonlinearity of the feed-forward part. That of a GGUF file may be [another](super::Gguf::activation).
    pub activation: Activation,
    /// Whether embeddings are multiplied by the square root of their width.
    pub scales_embedding: bool,
}

/// A normalisation of the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// RMSNorm: by the root mean square.
    Rms,
    /// LayerNorm: by mean and variance, with a bias.
    Layer,
    /// LayerNorm without a bias.
    LayerUnbiased,
}

/// How attention learns a token's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// RoPE; in the canonical layout the two entries of a pair are neighbours (`LLAMA_ROPE_TYPE_NORM` in
    /// llama.cpp). Of most families, the converter permutes q and k: their tensors have
    /// [`rotary_halves`](super::TensorNames::rotary_halves). Others keep neighbours in the folder and in ONNX
    /// models, too ([`has_rotary_neighbours`](super::Architecture::has_rotary_neighbours)).
    RopeInterleaved,
    /// RoPE; the two entries of a pair are half the rotated length apart (`LLAMA_ROPE_TYPE_NEOX`).
    RopeHalf,
    /// One learned vector per position, added to the token's embedding.
    Learned,
}

/// The blocks without any position (NoPE, arXiv 2305.19466) in a family with rotary embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrotated {
    /// None.
    Never,
    /// All.
    Always,
    /// Of every so many blocks, the last.
    EveryLast(usize),
    /// Those without a sliding window, in a model that has windows.
    Global,
    /// All, if `rope.scaling.finetuned` is false. Only GGUF files say so.
    Switched,
}

/// What makes weights of the outputs of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// The softmax of all.
    Softmax,
    /// The sigmoid of each (DeepSeek-V3, arXiv 2412.19437).
    Sigmoid,
}

impl Gating {
    /// The number in GGUF's `expert_gating_func`.
    pub fn gguf(self) -> u32 {
        match self {
            Self::Softmax => 1,
            Self::Sigmoid => 2,
        }
    }
}

/// The nonlinearity of a feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x sigmoid(x).
    Silu,
    /// GELU by its tanh formula (`gelu_pytorch_tanh`, `gelu_new`).
    Gelu,
    /// GELU itself, by the error function (`gelu`).
    ExactGelu,
    /// max(x, 0)^2 (`relu2`).
    SquaredRelu,
    /// xIELU (`xielu`, arXiv 2411.13010), with numbers of each block: the tensors `xielu.alpha_p`, `xielu.alpha_n`,
    /// `xielu.beta` and `xielu.eps`. Both factors are stored before their softplus.
    Xielu,
    /// SwiGLU with clamped inputs, a steeper sigmoid and 1 added to what it multiplies (gpt-oss).
    ClampedSwiglu,
}
