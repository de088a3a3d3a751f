//! Granite 3: llama with four multipliers: of embeddings, attention's scores, what each part adds, and logits.

use super::{Architecture, llama};

pub(super) const GRANITE: Architecture = Architecture {
    gguf: "granite",
    hugging_face: &["granite"],
    config_defaults: &[("attention_multiplier", 1.0)],
    ..llama::LLAMA
};
