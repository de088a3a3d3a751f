//! InternLM 2 and 2.5 (arXiv 2403.17297): llama, whose folders have queries, keys and values in one matrix. transformers has
//! no class for it; folders bring their own.

use super::groups::{HEAD, OUTPUT};
use super::llama::LLAMA;
use super::schema::Size::{Ff, KeyValue, Model, Query, Vocab};
use super::schema::*;

const fn line(canonical: &'static str, hugging_face: &'static str, shape: &'static [Size]) -> TensorNames {
    TensorNames::new(canonical, hugging_face, shape)
}

const TENSORS: &[TensorNames] = &[
    line("token_embd", "model.tok_embeddings", &[Vocab, Model]),
    line("output_norm", "model.norm", &[Model]),
    TensorNames { hugging_face: "output", ..HEAD },
    line("blk.{}.attn_norm", "model.layers.{}.attention_norm", &[Model]),
    line("blk.{}.attn_q", "", &[Query, Model]),
    line("blk.{}.attn_k", "", &[KeyValue, Model]),
    line("blk.{}.attn_v", "", &[KeyValue, Model]),
    TensorNames { hugging_face: "model.layers.{}.attention.wo", ..OUTPUT },
    line("blk.{}.ffn_norm", "model.layers.{}.ffn_norm", &[Model]),
    line("blk.{}.ffn_gate", "model.layers.{}.feed_forward.w1", &[Ff, Model]),
    line("blk.{}.ffn_up", "model.layers.{}.feed_forward.w3", &[Ff, Model]),
    line("blk.{}.ffn_down", "model.layers.{}.feed_forward.w2", &[Model, Ff]),
];

pub(super) const INTERNLM2: Architecture = Architecture {
    models: "InternLM 2, InternLM 2.5",
    name: "internlm2",
    tensors: Tensors {
        groups: &[TENSORS],
        joined_rows: &[JoinedRows {
            hugging_face: "model.layers.{}.attention.wqkv",
            groups: RowGroups::QKV,
            rotary: 2,
            parts: &[("attn_q", 1), ("attn_k", 1), ("attn_v", 1)],
        }],
        ..LLAMA.tensors
    },
    gguf: Gguf { needs_head: true, ..Gguf::USUAL },
    converter: Converter {
        vocabularies: &[VocabularySource::InternLm2],
        overrides: &[(None, TokenizerOverride::EndByText("<|im_end|>"))],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["internlm2"],
        class: "InternLM2ForCausalLM",
        own_code: &[
            ("AutoConfig", "configuration_internlm2.InternLM2Config"),
            ("AutoModelForCausalLM", "modeling_internlm2.InternLM2ForCausalLM"),
        ],
        defaults: &[
            ("vocab_size", 103_168.0),
            ("hidden_size", 4096.0),
            ("intermediate_size", 11_008.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 32.0),
        ],
        heads: HeadKeys::Grouped,
        options: &[],
        flags: &[("bias", false)],
        ..LLAMA.hugging_face
    },
    onnx: Onnx { genai_type: Some("internlm2") },
    ..LLAMA
};
