//! How llama.cpp reads the GGUF files of a family.

/// What llama.cpp assumes about a family where a GGUF file does not say it.
#[derive(Clone, Copy, Debug)]
pub struct Gguf {
    /// Default soft caps of attention scores and of logits, for families that have them. Without a default,
    /// attention has no cap, whatever the file says.
    pub soft_caps: Option<[Option<f64>; 2]>,
    /// Sliding windows, if llama.cpp implements them for the family.
    pub windows: Option<Windows>,
    /// Block counts of the models whose attention scale is `sqrt(heads / d_model)` in place of `1 /
    /// sqrt(head_dim)`.
    pub width_scaled_layers: &'static [usize],
    /// Block count of the models that llama.cpp calls 70B if they share key and value heads; llama-quantize
    /// gives their `attn_v` more bits.
    pub layers_of_70b: Option<usize>,
}

/// Sliding windows as llama.cpp implements them for a family.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Of every `period` blocks, the last attends to the whole context and the others to a window.
    pub period: usize,
    /// The window's length in tokens, if the file gives none.
    pub length: Option<usize>,
    /// RoPE base of the windowed blocks, if the file gives none and it differs from that of the others.
    pub rope_base: Option<f64>,
    /// Whether RoPE scaling applies to the windowed blocks too.
    pub scaled: bool,
}
