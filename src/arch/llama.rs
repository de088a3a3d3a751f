//! Llama 1 to 3, SmolLM2, TinyLlama and what else is built like them: RMSNorm, rotary embeddings, grouped-query
//! attention, SwiGLU. Names from llama.cpp's gguf-py constants and transformers' modeling_llama.

use super::{Architecture, Heads, TensorNames};

const fn plain(canonical: &'static str, hugging_face: &'static str) -> TensorNames {
    TensorNames { canonical, hugging_face, rotary_halves: None }
}

const fn rotary(canonical: &'static str, hugging_face: &'static str, heads: Heads) -> TensorNames {
    TensorNames { canonical, hugging_face, rotary_halves: Some(heads) }
}

pub(super) const LLAMA: Architecture = Architecture {
    gguf: "llama",
    hugging_face: &["llama"],
    tensors: &[
        plain("token_embd", "model.embed_tokens"),
        plain("output_norm", "model.norm"),
        plain("output", "lm_head"),
        plain("blk.{}.attn_norm", "model.layers.{}.input_layernorm"),
        rotary("blk.{}.attn_q", "model.layers.{}.self_attn.q_proj", Heads::Query),
        rotary("blk.{}.attn_k", "model.layers.{}.self_attn.k_proj", Heads::KeyValue),
        plain("blk.{}.attn_v", "model.layers.{}.self_attn.v_proj"),
        plain("blk.{}.attn_output", "model.layers.{}.self_attn.o_proj"),
        plain("blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm"),
        plain("blk.{}.ffn_gate", "model.layers.{}.mlp.gate_proj"),
        plain("blk.{}.ffn_up", "model.layers.{}.mlp.up_proj"),
        plain("blk.{}.ffn_down", "model.layers.{}.mlp.down_proj"),
    ],
    targets: &[
        ("q", "attn_q"),
        ("k", "attn_k"),
        ("v", "attn_v"),
        ("o", "attn_output"),
        ("gate", "ffn_gate"),
        ("up", "ffn_up"),
        ("down", "ffn_down"),
    ],
};
