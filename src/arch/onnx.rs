//! What programs that write ONNX call tensors where Hugging Face calls them otherwise, and how they join and split
//! matrices. Names from onnxruntime-genai's model builder.

/// Names of modules, and Hugging Face's for them; `{}` stands for a number.
pub const ALIASES: &[(&str, &str)] = &[
    ("model.layers.{}.attn.q_proj", "model.layers.{}.self_attn.q_proj"),
    ("model.layers.{}.attn.k_proj", "model.layers.{}.self_attn.k_proj"),
    ("model.layers.{}.attn.v_proj", "model.layers.{}.self_attn.v_proj"),
    ("model.layers.{}.attn.o_proj", "model.layers.{}.self_attn.o_proj"),
    ("model.layers.{}.attn.qkv_proj", "model.layers.{}.self_attn.qkv_proj"),
    ("model.layers.{}.attn.q_norm", "model.layers.{}.self_attn.q_norm"),
    ("model.layers.{}.attn.k_norm", "model.layers.{}.self_attn.k_norm"),
    // Numbered as if it were a further block's.
    ("model.layers.{}.final_norm_layernorm", "model.norm"),
];

/// Modules that hold the matrices of several roles, one behind the other.
pub const JOINED: &[(&str, &[&str])] = &[
    ("model.layers.{}.self_attn.qkv_proj", &["q", "k", "v"]),
    ("model.layers.{}.mlp.gate_up_proj", &["gate", "up"]),
];

/// Modules that hold the matrix of one role, also where Hugging Face joins it with others.
pub const SINGLE: &[(&str, &str)] = &[
    ("model.layers.{}.self_attn.q_proj", "q"),
    ("model.layers.{}.self_attn.k_proj", "k"),
    ("model.layers.{}.self_attn.v_proj", "v"),
    ("model.layers.{}.mlp.gate_proj", "gate"),
    ("model.layers.{}.mlp.up_proj", "up"),
];

/// Last parts of names that say nothing of the module: `q_proj.MatMul.weight_Q4` is `q_proj`.
pub const ENDINGS: &[&str] = &["weight", "bias", "qweight", "MatMul", "Add", "layernorm"];

/// Beginnings of such parts: `weight_Q4`, `weight_quantized`.
pub const ENDING_STARTS: &[&str] = &["weight_", "bias_", "MatMul_"];
