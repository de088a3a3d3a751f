//! The model families, one file each: what every container calls their tensors, what their configuration
//! files say, and the options of their arithmetic.
//!
//! A family is data, not code. Its file holds one [`Architecture`], built from the types in `schema`; it
//! names only what differs from a sibling. Adding a family that needs no new mathematics takes its file, and
//! here its module and its entry in [`ALL`].
//!
//! Canonical tensor names are GGUF's, without `.weight` (`blk.0.attn_q`). A part of a matrix that a container
//! stores together with others has its name in brackets (`blk.0.attn_qkv[q]`, `blk.0.ffn_up_exps[3]`).

pub mod exporters;
mod groups;
mod pattern;
mod schema;

mod apertus;
mod arcee;
mod cohere2;
mod command_r;
mod ernie4_5;
mod ernie4_5_moe;
mod exaone4;
mod falcon;
mod gemma;
mod gemma2;
mod gemma3;
mod gemma4;
mod glm4;
mod glm4_moe;
mod gpt2;
mod gpt_neox;
mod gpt_oss;
mod granite;
mod granite4;
mod granite_hybrid;
mod granite_hybrid_moe;
mod granite_moe;
mod hunyuan_dense;
mod internlm2;
mod lfm2;
mod lfm2_moe;
mod llama;
mod ministral3;
mod mistral;
mod mixtral;
mod nemotron;
mod nemotron_h;
mod nemotron_h_moe;
mod olmo2;
mod olmo3;
mod olmoe;
mod phi2;
mod phi3;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_5;
mod qwen3_5_moe;
mod qwen3_moe;
mod qwen3_next;
mod qwen_vl;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;

pub(crate) use pattern::renamed;
pub use schema::*;

/// All architectures that curmerge knows.
pub const ALL: &[&Architecture] = &[
    &llama::LLAMA,
    &mistral::MISTRAL,
    &ministral3::MINISTRAL3,
    &mixtral::MIXTRAL,
    &qwen2::QWEN2,
    &qwen2_moe::QWEN2_MOE,
    &qwen3::QWEN3,
    &qwen3_5::QWEN3_5,
    &qwen3_5_moe::QWEN3_5_MOE,
    &qwen3_moe::QWEN3_MOE,
    &qwen3_next::QWEN3_NEXT,
    &qwen_vl::QWEN2_VL,
    &qwen_vl::QWEN3_VL,
    &gemma::GEMMA,
    &gemma2::GEMMA2,
    &gemma3::GEMMA3,
    &gemma4::GEMMA4,
    &gemma4::GEMMA4_MOE,
    &phi2::PHI2,
    &phi3::PHI3,
    &gpt2::GPT2,
    &gpt_neox::GPT_NEOX,
    &falcon::FALCON,
    &gpt_oss::GPT_OSS,
    &olmo2::OLMO2,
    &olmo3::OLMO3,
    &olmoe::OLMOE,
    &granite::GRANITE,
    &granite4::GRANITE4,
    &granite_moe::GRANITE_MOE,
    &granite_hybrid::GRANITE_HYBRID,
    &granite_hybrid_moe::GRANITE_HYBRID_MOE,
    &hunyuan_dense::HUNYUAN_DENSE,
    &internlm2::INTERNLM2,
    &smollm3::SMOLLM3,
    &seed_oss::SEED_OSS,
    &exaone4::EXAONE4,
    &apertus::APERTUS,
    &arcee::ARCEE,
    &starcoder2::STARCODER2,
    &command_r::COMMAND_R,
    &cohere2::COHERE2,
    &ernie4_5::ERNIE4_5,
    &ernie4_5_moe::ERNIE4_5_MOE,
    &glm4::GLM4,
    &glm4_moe::GLM4_MOE,
    &nemotron::NEMOTRON,
    &nemotron_h::NEMOTRON_H,
    &nemotron_h_moe::NEMOTRON_H_MOE,
    &lfm2::LFM2,
    &lfm2_moe::LFM2_MOE,
    &stablelm::STABLELM,
];

/// Stands for an architecture that is not known: it names no tensors.
pub const UNKNOWN: &Architecture = &Architecture {
    models: "",
    name: "",
    tensors: Tensors { groups: &[], targets: &[], ..llama::LLAMA.tensors },
    hugging_face: HuggingFace { model_types: &[], ..llama::LLAMA.hugging_face },
    ..llama::LLAMA
};

/// The architecture of this name in GGUF. Llama and Mixtral have the same name there, and only Mixtral has
/// experts; of OLMo 2 and 3, only OLMo 3 has windows.
pub fn by_gguf_name(name: &str, has_experts: bool, has_windows: bool) -> Option<&'static Architecture> {
    let named = || ALL.iter().copied().filter(|a| a.name == name);
    let alike = || named().filter(|a| a.has_experts() == has_experts);
    let windows = alike().find(|a| a.gguf.windows.is_some() == has_windows);
    windows.or_else(|| alike().next()).or_else(|| named().next())
}

/// The architecture of this `model_type` in Hugging Face's config.json, of which `chooses` says what holds.
pub fn by_model_type(name: &str, chooses: impl Fn(ChosenBy) -> bool) -> Option<&'static Architecture> {
    let named = || ALL.iter().copied().filter(|a| a.hugging_face.model_types.contains(&name));
    let chosen = named().find(|a| a.hugging_face.chosen_by.is_some_and(&chooses));
    chosen.or_else(|| named().find(|a| a.hugging_face.chosen_by.is_none()))
}

/// The architecture that onnxruntime-genai calls this: by Hugging Face's `model_type`, or a name of its own.
pub fn by_genai_type(name: &str) -> Option<&'static Architecture> {
    let own = || ALL.iter().copied().find(|a| a.onnx.genai_type == Some(name));
    by_model_type(name, |_| false).or_else(own)
}

/// The known `model_type` values, for an error message.
pub fn known() -> String {
    let mut names: Vec<&str> = ALL.iter().flat_map(|a| a.hugging_face.model_types).copied().collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// Whether a block has the sliding window if, of every `period` blocks, the last one has not. Period 0 means
/// all blocks.
pub fn is_windowed(layer: usize, period: usize) -> bool {
    period == 0 || !(layer + 1).is_multiple_of(period)
}

#[cfg(test)]
mod tests;
