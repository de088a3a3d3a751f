//! One table per architecture: what each container calls a tensor, its shape, how it is stored, and the options of the
//! arithmetic.
//!
//! Canonical tensor names are GGUF's, without `.weight` (`blk.0.attn_q`); a part of a matrix that a container stores
//! together with others has its name in brackets (`blk.0.attn_qkv[q]`, `blk.0.ffn_up_exps[3]`). An architecture is data:
//! to add one, add a table, not code.

mod gemma;
mod gpt2;
mod granite;
mod groups;
mod llama;
pub mod names;
mod olmo2;
pub mod onnx;
mod phi3;
mod qwen;

pub use names::TensorNames;

/// Whose head count divides the rows of a permuted matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// The query heads.
    Query,
    /// The key and value heads.
    KeyValue,
}

/// A dimension of a tensor, which the configuration knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Rows of the embedding.
    Vocab,
    /// Positions that have learned embeddings.
    Context,
    /// Width of the residual stream.
    Model,
    /// All query heads.
    Query,
    /// All key heads, or all value heads.
    KeyValue,
    /// Query, key and value heads together.
    Qkv,
    /// One head.
    Head,
    /// Width of the feed-forward part.
    Ff,
    /// Gate and up together.
    GateUp,
    /// Number of experts.
    Experts,
    /// Width of one expert.
    ExpertFf,
}

/// How the residual stream is normed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// By the root mean square.
    Rms,
    /// By mean and variance, with a bias.
    Layer,
}

/// How a token knows its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Rotary embeddings; the two entries that turn together are neighbours in the canonical layout.
    RopeInterleaved,
    /// Rotary embeddings; they stand half the rotated length apart.
    RopeHalf,
    /// One learned vector a position, added to the token's.
    Learned,
}

/// The feed-forward part's nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x sigmoid(x).
    Silu,
    /// GELU by its tanh formula (`gelu_pytorch_tanh`, `gelu_new`).
    Gelu,
}

/// Sliding windows as llama.cpp has them for an architecture.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Every so many blocks, the last one sees everything; the others see a window.
    pub period: usize,
    /// The window's length, where the file does not say.
    pub length: Option<usize>,
    /// Base of the windowed blocks' rotary frequencies, where it is another and the file does not say.
    pub rope_base: Option<f64>,
    /// Whether the windowed blocks' frequencies are stretched as the others' are.
    pub scaled: bool,
}

/// Whether a block has the window where every so many blocks, the last one sees everything; in all of them where that is 0.
pub fn is_windowed(layer: usize, period: usize) -> bool {
    period == 0 || !(layer + 1).is_multiple_of(period)
}

/// The names, shapes and options of a model family.
#[derive(Debug)]
pub struct Architecture {
    /// `general.architecture` in GGUF, and the prefix of its keys.
    pub gguf: &'static str,
    /// `model_type` values in Hugging Face's config.json.
    pub hugging_face: &'static [&'static str],
    /// Every tensor the model reads.
    pub tensors: &'static [&'static [TensorNames]],
    /// What `--targets` may name: the short word, which is the matrix's role, and the canonical name after `blk.N.`.
    pub targets: &'static [(&'static str, &'static str)],
    /// Matrices that hold several roles: the canonical name after `blk.N.`, and its parts from the first row on.
    pub fused: &'static [(&'static str, &'static [(&'static str, Size)])],
    /// Beginnings of names in Hugging Face folders, and what the tables have instead.
    pub prefixes: &'static [(&'static str, &'static str)],
    /// Keys of config.json that are called otherwise than in llama's: llama's, and this family's.
    pub config_keys: &'static [(&'static str, &'static str)],
    /// What transformers takes for keys that config.json lacks.
    pub config_defaults: &'static [(&'static str, f64)],
    /// How the residual stream is normed.
    pub norm: NormKind,
    /// How a token knows its place.
    pub positions: Positions,
    /// The feed-forward part's nonlinearity.
    pub activation: Activation,
    /// Whether embeddings are multiplied by the root of their width.
    pub scales_embedding: bool,
    /// The soft caps of attention's scores and of logits where a GGUF file gives none, in families that have such; an
    /// attention without a default has none, whatever the file says.
    pub soft_caps: Option<[Option<f64>; 2]>,
    /// Sliding windows, where llama.cpp has them.
    pub windows: Option<Windows>,
    /// Numbers of blocks of the models whose attention is scaled by the model's width over its heads, not by the head's.
    pub scaled_by_width: &'static [usize],
}

impl Architecture {
    /// Every line of the table.
    pub fn names(&'static self) -> impl Iterator<Item = &'static TensorNames> {
        self.tensors.iter().copied().flatten()
    }

    /// The canonical name of what Hugging Face calls so (without `.weight` or `.bias`), and its line of the table.
    pub fn of_hugging_face(&'static self, name: &str) -> Option<(String, &'static TensorNames)> {
        let plain = self
            .prefixes
            .iter()
            .find_map(|(theirs, ours)| name.strip_prefix(theirs).map(|rest| format!("{ours}{rest}")));
        let name = plain.as_deref().unwrap_or(name);
        self.names().find_map(|n| Some((names::renamed(name, n.hugging_face, n.canonical)?, n)))
    }

    /// Hugging Face's name (without `.weight`) of the canonical one, and its line of the table.
    pub fn to_hugging_face(&'static self, name: &str) -> Option<(String, &'static TensorNames)> {
        self.names().find_map(|n| Some((names::renamed(name, n.canonical, n.hugging_face)?, n)))
    }

    /// The line of the table for this canonical name (without `.bias`); of a tensor that stacks experts, that of its
    /// parts.
    pub fn line(&'static self, name: &str) -> Option<&'static TensorNames> {
        self.names().find(|n| {
            let whole = n.canonical.strip_suffix("[{}]");
            names::fits(name, n.canonical) || whole.is_some_and(|whole| names::fits(name, whole))
        })
    }

    /// What attention's scores are multiplied by in a model of these dimensions, where nothing says otherwise.
    pub fn attention_scale(&self, layers: usize, d_model: usize, heads: usize, head_dim: usize) -> f64 {
        let by_width = self.scaled_by_width.contains(&layers);
        let width = if by_width { d_model / heads.max(1) } else { head_dim };
        1.0 / (width as f64).sqrt()
    }

    /// The canonical name, after `blk.N.`, of the matrix that has this role.
    pub fn target(&self, role: &str) -> Option<&'static str> {
        self.targets.iter().find(|(word, _)| *word == role).map(|(_, name)| *name)
    }

    /// Whether the feed-forward part is a mixture of experts.
    pub fn has_experts(&'static self) -> bool {
        self.names().any(|n| n.shape.first() == Some(&Size::Experts))
    }

    /// What this family's config.json calls a key of llama's.
    pub fn config_key<'k>(&self, key: &'k str) -> &'k str {
        self.config_keys.iter().find(|(llama, _)| *llama == key).map_or(key, |(_, own)| own)
    }
}

/// All architectures that curmerge knows.
pub const ALL: &[&Architecture] = &[
    &llama::LLAMA,
    &llama::MISTRAL,
    &llama::MIXTRAL,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &qwen::QWEN3_MOE,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &phi3::PHI3,
    &gpt2::GPT2,
    &olmo2::OLMO2,
    &granite::GRANITE,
];

/// The architecture of a model that is none of these, of which tensors alone are known.
pub const UNKNOWN: &Architecture =
    &Architecture { gguf: "", hugging_face: &[], tensors: &[], targets: &[], ..llama::LLAMA };

/// The architecture that GGUF names so; two share the name of llama, told apart by whether the file has experts.
pub fn by_gguf_name(name: &str, has_experts: bool) -> Option<&'static Architecture> {
    let of_name = |a: &&'static Architecture| a.gguf == name && (a.has_experts() == has_experts);
    ALL.iter().copied().find(of_name).or_else(|| ALL.iter().copied().find(|a| a.gguf == name))
}

/// The architecture that Hugging Face's `model_type` names so.
pub fn by_model_type(name: &str) -> Option<&'static Architecture> {
    ALL.iter().copied().find(|a| a.hugging_face.contains(&name))
}

/// The known names, for an error message.
pub fn known() -> String {
    let mut names: Vec<&str> = ALL.iter().flat_map(|a| a.hugging_face).copied().collect();
    names.sort_unstable();
    names.join(", ")
}
