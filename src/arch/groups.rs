//! Tensors and keys that several families share. Names from llama.cpp's gguf-py constants and transformers'
//! modeling files.

use super::schema::HeadKind::{KeyValue as KeyValueHeads, Query as QueryHeads};
use super::schema::Size::{self, ExpertFf, Experts, Ff, Head, KeyValue, Model, Query, Vocab};
use super::schema::{Key, TensorNames};

const fn line(canonical: &'static str, hugging_face: &'static str, shape: &'static [Size]) -> TensorNames {
    TensorNames::new(canonical, hugging_face, shape)
}

/// The embedding.
pub(super) const EMBEDDING: TensorNames = line("token_embd", "model.embed_tokens", &[Vocab, Model]);

/// The norm after the last block.
pub(super) const LAST_NORM: TensorNames = line("output_norm", "model.norm", &[Model]);

/// The output head. A model without this tensor has a tied head: the embedding.
pub(super) const HEAD: TensorNames = line("output", "lm_head", &[Vocab, Model]).optional();

/// The embedding, the last norm and the output head.
pub(super) const ENDS: &[TensorNames] = &[EMBEDDING, LAST_NORM, HEAD];

/// A norm before attention, and another before the feed-forward part.
pub(super) const NORMS_BEFORE: &[TensorNames] = &[
    line("blk.{}.attn_norm", "model.layers.{}.input_layernorm", &[Model]),
    line("blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm", &[Model]),
];

/// A norm of each head of q and of k.
pub(super) const HEAD_NORMS: &[TensorNames] = &[
    line("blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm", &[Head]),
    line("blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm", &[Head]),
];

/// q and k, permuted by [`super::Positions::RopeInterleaved`], v and o.
pub(super) const PERMUTED: &[TensorNames] = &[
    line("blk.{}.attn_q", "model.layers.{}.self_attn.q_proj", &[Query, Model]).rotary(QueryHeads),
    line("blk.{}.attn_k", "model.layers.{}.self_attn.k_proj", &[KeyValue, Model]).rotary(KeyValueHeads),
    line("blk.{}.attn_v", "model.layers.{}.self_attn.v_proj", &[KeyValue, Model]),
    OUTPUT,
];

/// [`PERMUTED`]; some models have biases.
pub(super) const PERMUTED_ATTENTION: &[TensorNames] = &[
    PERMUTED[0].may_be_biased(),
    PERMUTED[1].may_be_biased(),
    PERMUTED[2].may_be_biased(),
    PERMUTED[3].may_be_biased(),
];

/// q, k, v and o, neither permuted nor biased.
pub(super) const ATTENTION: &[TensorNames] = &[
    line("blk.{}.attn_q", "model.layers.{}.self_attn.q_proj", &[Query, Model]),
    line("blk.{}.attn_k", "model.layers.{}.self_attn.k_proj", &[KeyValue, Model]),
    line("blk.{}.attn_v", "model.layers.{}.self_attn.v_proj", &[KeyValue, Model]),
    OUTPUT,
];

/// The output projection of attention.
pub(super) const OUTPUT: TensorNames =
    line("blk.{}.attn_output", "model.layers.{}.self_attn.o_proj", &[Model, Query]);

/// A gated feed-forward part.
pub(super) const FEED_FORWARD: &[TensorNames] = &[
    line("blk.{}.ffn_gate", "model.layers.{}.mlp.gate_proj", &[Ff, Model]),
    line("blk.{}.ffn_up", "model.layers.{}.mlp.up_proj", &[Ff, Model]),
    line("blk.{}.ffn_down", "model.layers.{}.mlp.down_proj", &[Model, Ff]),
];

/// [`FEED_FORWARD`]; some models have biases.
pub(super) const FEED_FORWARD_BIASED: &[TensorNames] =
    &[FEED_FORWARD[0].may_be_biased(), FEED_FORWARD[1].may_be_biased(), FEED_FORWARD[2].may_be_biased()];

/// Experts as mixtral's folders name them.
pub(super) const MIXTRAL_EXPERTS: &[TensorNames] = &[
    line("blk.{}.ffn_gate_inp", "model.layers.{}.block_sparse_moe.gate", &[Experts, Model]),
    line("blk.{}.ffn_gate_exps[{}]", "model.layers.{}.block_sparse_moe.experts.{}.w1", &[ExpertFf, Model]),
    line("blk.{}.ffn_up_exps[{}]", "model.layers.{}.block_sparse_moe.experts.{}.w3", &[ExpertFf, Model]),
    line("blk.{}.ffn_down_exps[{}]", "model.layers.{}.block_sparse_moe.experts.{}.w2", &[Model, ExpertFf]),
];

/// Experts as qwen's folders name them.
pub(super) const QWEN_EXPERTS: &[TensorNames] = &[
    line("blk.{}.ffn_gate_inp", "model.layers.{}.mlp.gate", &[Experts, Model]),
    line("blk.{}.ffn_gate_exps[{}]", "model.layers.{}.mlp.experts.{}.gate_proj", &[ExpertFf, Model]),
    line("blk.{}.ffn_up_exps[{}]", "model.layers.{}.mlp.experts.{}.up_proj", &[ExpertFf, Model]),
    line("blk.{}.ffn_down_exps[{}]", "model.layers.{}.mlp.experts.{}.down_proj", &[Model, ExpertFf]),
];

/// The matrices of attention.
pub(super) const ATTENTION_TARGETS: &[(&str, &str)] =
    &[("q", "attn_q"), ("k", "attn_k"), ("v", "attn_v"), ("o", "attn_output")];

/// The matrices of attention and of a feed-forward part without a gate.
pub(super) const UNGATED_TARGETS: &[(&str, &str)] = &[
    ATTENTION_TARGETS[0],
    ATTENTION_TARGETS[1],
    ATTENTION_TARGETS[2],
    ATTENTION_TARGETS[3],
    ("up", "ffn_up"),
    ("down", "ffn_down"),
];

/// The matrices of attention and of a gated feed-forward part.
pub(super) const TARGETS: &[(&str, &str)] = &[
    ("q", "attn_q"),
    ("k", "attn_k"),
    ("v", "attn_v"),
    ("o", "attn_output"),
    ("gate", "ffn_gate"),
    ("up", "ffn_up"),
    ("down", "ffn_down"),
];

/// The dimensions that the converter's base class writes first.
pub(super) const SIZES: &[Key] =
    &[Key::Blocks, Key::Context, Key::Width, Key::FeedForward, Key::Heads, Key::KeyValueHeads];

/// [`SIZES`] of a mixture of experts, whose folder may lack the width of a dense feed-forward part.
pub(super) const SIZES_OF_EXPERTS: &[Key] =
    &[Key::Blocks, Key::Context, Key::Width, Key::GivenFeedForward, Key::Heads, Key::KeyValueHeads];

/// The GGUF keys that most of the converter's classes write first.
pub(super) const FIRST_KEYS: &[Key] = &[
    Key::Blocks,
    Key::Context,
    Key::Width,
    Key::FeedForward,
    Key::Heads,
    Key::KeyValueHeads,
    Key::RopeScaling,
    Key::RopeBase,
    Key::RmsEpsilon,
];

/// Prefixes of the language model within a vision model, in older and in newer folders.
pub(super) const WITHIN_VISION: &[(&str, &str)] =
    &[("language_model.", ""), ("model.language_model.", "model.")];

/// Prefixes of the other tensors of a vision model.
pub(super) const VISION: &[&str] =
    &["vision_tower.", "model.vision_tower.", "multi_modal_projector.", "model.multi_modal_projector."];
