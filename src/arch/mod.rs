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

mod gemma2;
mod gemma3;
mod gpt2;
mod granite;
mod llama;
mod mistral;
mod mixtral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;

pub(crate) use pattern::renamed;
pub use schema::*;

/// All architectures that curmerge knows.
pub const ALL: &[&Architecture] = &[
    &llama::LLAMA,
    &mistral::MISTRAL,
    &mixtral::MIXTRAL,
    &qwen2::QWEN2,
    &qwen3::QWEN3,
    &qwen3_moe::QWEN3_MOE,
    &gemma2::GEMMA2,
    &gemma3::GEMMA3,
    &phi3::PHI3,
    &gpt2::GPT2,
    &olmo2::OLMO2,
    &granite::GRANITE,
];

/// Stands for an architecture that is not known: it names no tensors.
pub const UNKNOWN: &Architecture = &Architecture {
    name: "",
    tensors: Tensors { groups: &[], targets: &[], fused: &[], prefixes: &[] },
    hugging_face: HuggingFace { model_types: &[], ..llama::LLAMA.hugging_face },
    ..llama::LLAMA
};

/// The architecture of this name in GGUF. Llama and Mixtral have the same name there; only Mixtral has
/// experts.
pub fn by_gguf_name(name: &str, has_experts: bool) -> Option<&'static Architecture> {
    let named = || ALL.iter().copied().filter(|a| a.name == name);
    named().find(|a| a.has_experts() == has_experts).or_else(|| named().next())
}

/// The architecture of this `model_type` in Hugging Face's config.json.
pub fn by_model_type(name: &str) -> Option<&'static Architecture> {
    ALL.iter().copied().find(|a| a.hugging_face.model_types.contains(&name))
}

/// The known `model_type` values, for an error message.
pub fn known() -> String {
    let mut names: Vec<&str> = ALL.iter().flat_map(|a| a.hugging_face.model_types).copied().collect();
    names.sort_unstable();
    names.join(", ")
}

/// Whether a block has the sliding window if, of every `period` blocks, the last one has not. Period 0 means
/// all blocks.
pub fn is_windowed(layer: usize, period: usize) -> bool {
    period == 0 || !(layer + 1).is_multiple_of(period)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn descriptions_are_consistent() {
        let mut model_types = BTreeSet::new();
        for architecture in ALL {
            let class = &architecture.hugging_face;
            let name = class.class;
            assert!(class.model_types.iter().all(|model_type| model_types.insert(*model_type)), "{name}");
            let genai = architecture.onnx.genai_type;
            assert!(genai.is_none_or(|genai| class.model_types.contains(&genai)), "{name}");
            let experts = !architecture.converter.experts.is_empty();
            assert_eq!(experts, architecture.has_experts(), "{name}");

            let names: Vec<&str> = architecture.names().map(|tensor| tensor.canonical).collect();
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{name}: a tensor twice");
            for (role, target) in architecture.tensors.targets {
                let known = match target.split_once('[') {
                    Some((whole, _)) => architecture.parts(whole).iter().any(|(part, _)| part == role),
                    None => architecture.line(&format!("blk.0.{target}")).is_some(),
                };
                assert!(known, "{name}: {target}");
            }
            for (fused, _) in architecture.tensors.fused {
                assert!(architecture.line(&format!("blk.0.{fused}")).is_some(), "{name}: {fused}");
            }
        }
    }

    #[test]
    fn architectures_are_found_by_their_names() {
        for architecture in ALL {
            let found = by_model_type(architecture.hugging_face.model_types[0]).unwrap();
            assert_eq!(found.hugging_face.class, architecture.hugging_face.class);
            let found = by_gguf_name(architecture.name, architecture.has_experts()).unwrap();
            assert_eq!(found.name, architecture.name);
        }
        assert!(by_model_type("").is_none() && by_gguf_name("", false).is_none());
    }

    #[test]
    fn blocks_are_known_by_the_prefixes_of_every_folder() {
        let all: BTreeSet<String> = ALL.iter().flat_map(|known| known.block_prefixes()).collect();
        let right = [
            "h.",
            "language_model.model.layers.",
            "model.language_model.layers.",
            "model.layers.",
            "transformer.h.",
        ];
        assert_eq!(all.into_iter().collect::<Vec<_>>(), right);
    }
}
