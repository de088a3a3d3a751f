//! Granite 3: llama with four multipliers: of embeddings, attention's scores, what each part adds, and logits.

use super::{Architecture, llama};

pub(super) const GRANITE: Architecture =
    Architecture { gguf: "granite", hugging_face: &["granite"], ..llama::LLAMA };
