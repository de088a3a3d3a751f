//! Command R7B and Command A: Command R with a window in three of four blocks, and no positions in the others.

use super::command_r::COMMAND_R;
use super::groups::SIZES;
use super::schema::*;

pub(super) const COHERE2: Architecture = Architecture {
    models: "Command R7B, Command A",
    name: "cohere2",
    forward: Forward { unrotated: Unrotated::Global, ..COMMAND_R.forward },
    gguf: Gguf {
        windows: Some(Windows { own_base: false, required: true, ..Windows::every(4) }),
        logit_scale_multiplies: true,
        ..Gguf::USUAL
    },
    converter: Converter {
        keys: &[
            SIZES,
            &[Key::RopeBase, Key::LayerEpsilon, Key::HeadLengths],
            &[
                Key::FileType,
                Key::LogitScale,
                Key::Window,
                Key::Vocabulary,
                Key::PartialRopeDimensions,
                Key::Unscaled,
            ],
        ],
        ..COMMAND_R.converter
    },
    hugging_face: HuggingFace {
        model_types: &["cohere2"],
        class: "Cohere2ForCausalLM",
        defaults: &[
            ("vocab_size", 256_000.0),
            ("hidden_size", 8192.0),
            ("intermediate_size", 22_528.0),
            ("logit_scale", 0.0625),
            ("num_hidden_layers", 40.0),
            ("num_attention_heads", 64.0),
            ("max_position_embeddings", 8192.0),
            ("layer_norm_eps", 1e-5),
            ("sliding_window", 4096.0),
            ("sliding_window_pattern", 4.0),
        ],
        windows: WindowedLayers::Listed,
        options: &[ClassOption::LogitScale],
        flags: &[("attention_bias", false)],
        ..COMMAND_R.hugging_face
    },
    ..COMMAND_R
};
