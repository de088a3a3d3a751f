//! OLMo 3: OLMo 2 with a sliding window in three of four blocks, and YaRN in the others. GGUF files of both
//! have the same architecture.

use super::groups::SIZES;
use super::olmo2::OLMO2;
use super::schema::*;

pub(super) const OLMO3: Architecture = Architecture {
    models: "OLMo 3",
    gguf: Gguf {
        windows: Some(Windows { scaling: WindowScaling::Nothing, own_base: false, ..Windows::every(4) }),
        ..Gguf::USUAL
    },
    converter: Converter {
        keys: &[
            SIZES,
            &[Key::RopeScaling, Key::RopeBase, Key::LocalRopeBase, Key::RmsEpsilon],
            &[Key::GivenHeadLengths, Key::FileType, Key::Window, Key::WindowPattern],
        ],
        ..Converter::USUAL
    },
    hugging_face: HuggingFace {
        model_types: &["olmo3"],
        class: "Olmo3ForCausalLM",
        defaults: &[
            ("vocab_size", 50_304.0),
            ("hidden_size", 4096.0),
            ("intermediate_size", 11_008.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 32.0),
            ("rms_norm_eps", 1e-5),
            ("rope_theta", 500_000.0),
            ("sliding_window", 4096.0),
            ("sliding_window_pattern", 4.0),
        ],
        windows: WindowedLayers::Listed,
        options: &[ClassOption::RopeByKind],
        ..OLMO2.hugging_face
    },
    ..OLMO2
};
