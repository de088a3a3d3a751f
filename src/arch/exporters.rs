//! The names that ONNX exporters give to modules where they differ from Hugging Face's, and how exporters
//! join and split matrices. They hold for every family. Names from onnxruntime-genai's model builder.

use super::schema::Tensors;

/// Names of modules, and Hugging Face's names for them; `{}` stands for a number.
pub const ALIASES: &[(&str, &str)] = &[
    ("model.layers.{}.attn.q_proj", "model.layers.{}.self_attn.q_proj"),
    ("model.layers.{}.attn.k_proj", "model.layers.{}.self_attn.k_proj"),
    ("model.layers.{}.attn.v_proj", "model.layers.{}.self_attn.v_proj"),
    ("model.layers.{}.attn.o_proj", "model.layers.{}.self_attn.o_proj"),
    ("model.layers.{}.attn.qkv_proj", "model.layers.{}.self_attn.qkv_proj"),
    ("model.layers.{}.attn.q_norm", "model.layers.{}.self_attn.q_norm"),
    ("model.layers.{}.attn.k_norm", "model.layers.{}.self_attn.k_norm"),
    // Its number is that of one more block.
    ("model.layers.{}.final_norm_layernorm", "model.norm"),
];

/// Modules that hold the matrices of several roles, one after the other.
pub const JOINED: &[(&str, &[&str])] = &[
    ("model.layers.{}.self_attn.qkv_proj", &["q", "k", "v"]),
    ("model.layers.{}.mlp.gate_up_proj", &["gate", "up"]),
];

/// Modules that hold the matrix of one role, even if Hugging Face joins it with others.
pub const SINGLE: &[(&str, &str)] = &[
    ("model.layers.{}.self_attn.q_proj", "q"),
    ("model.layers.{}.self_attn.k_proj", "k"),
    ("model.layers.{}.self_attn.v_proj", "v"),
    ("model.layers.{}.mlp.gate_proj", "gate"),
    ("model.layers.{}.mlp.up_proj", "up"),
    ("model.layers.{}.self_attn.o_proj", "o"),
    ("model.layers.{}.mlp.down_proj", "down"),
];

/// A canonical name that depends on the family.
pub type OfFamily = fn(&Tensors) -> &'static str;

/// Modules outside the blocks, and canonical names.
pub const ENDS: &[(&str, OfFamily)] =
    &[("model.embed_tokens", |_| "token_embd"), ("model.norm", |tensors| tensors.last_norm)];

/// Norms of a block, and canonical names after `blk.N.`.
pub const NORMS: &[(&str, OfFamily)] = &[
    ("model.layers.{}.input_layernorm", |tensors| tensors.norms.before_attention),
    ("model.layers.{}.post_attention_layernorm", |tensors| tensors.norms.before_feed_forward),
];

/// Last parts of names that do not belong to the module: `q_proj.MatMul.weight_Q4` is `q_proj`.
pub const ENDINGS: &[&str] = &["weight", "bias", "qweight", "MatMul", "Add", "layernorm"];

/// Prefixes of such parts: `weight_Q4`, `weight_quantized`.
pub const ENDING_STARTS: &[&str] = &["weight_", "bias_", "MatMul_"];
