//! What transformers calls the families, which options it has for each, and what it has none for.

use curmerge_formats::gguf::{Gguf, Value};
use serde_json::{Map, Value as Json, json};

use super::config::shortest;
use crate::arch::{Architecture, Windows, is_windowed};
use crate::base::Base;
use crate::{Error, Result};

/// What transformers calls a family, and says of it beside the dimensions.
pub(super) struct Family {
    /// `model_type`, the first of the architecture's table.
    model_type: &'static str,
    /// The class of the model in transformers.
    pub(super) class: &'static str,
    /// Keys that name the nonlinearity, and its name.
    pub(super) activation: &'static [(&'static str, &'static str)],
    /// What is the same of all models that curmerge opens.
    pub(super) flags: &'static [(&'static str, bool)],
    /// Whether config.json has `head_dim` though it follows from the rest.
    pub(super) has_head_dim: bool,
    /// What else the class can do.
    options: &'static [Optional],
}

/// What a class can do and others cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Optional {
    /// Scores of attention and logits with soft caps, `query_pre_attn_scalar`, windows in some blocks.
    Gemma,
    /// Four multipliers.
    Multipliers,
    /// Biases of all matrices of attention, or of all of the feed-forward part.
    Biases,
    /// A window in all blocks, or none.
    Window,
    /// A window that is off.
    WindowOff,
}

const SILU: &[(&str, &str)] = &[("hidden_act", "silu")];
const GELU: &[(&str, &str)] =
    &[("hidden_activation", "gelu_pytorch_tanh"), ("hidden_act", "gelu_pytorch_tanh")];
const EXPERT_FLAGS: &[(&str, bool)] = &[("output_router_logits", false)];

const LLAMA: Family = Family {
    model_type: "llama",
    class: "LlamaForCausalLM",
    activation: SILU,
    flags: &[],
    has_head_dim: true,
    options: &[Optional::Biases],
};

const FAMILIES: &[Family] = &[
    LLAMA,
    Family { model_type: "mistral", class: "MistralForCausalLM", options: &[Optional::Window], ..LLAMA },
    Family {
        model_type: "mixtral",
        class: "MixtralForCausalLM",
        flags: EXPERT_FLAGS,
        has_head_dim: false,
        options: &[Optional::Window],
        ..LLAMA
    },
    Family {
        model_type: "qwen2",
        class: "Qwen2ForCausalLM",
        has_head_dim: false,
        options: &[Optional::WindowOff],
        ..LLAMA
    },
    Family {
        model_type: "qwen3",
        class: "Qwen3ForCausalLM",
        flags: &[("attention_bias", false)],
        options: &[Optional::WindowOff],
        ..LLAMA
    },
    Family {
        model_type: "qwen3_moe",
        class: "Qwen3MoeForCausalLM",
        flags: &[("attention_bias", false), ("norm_topk_prob", true), ("output_router_logits", false)],
        options: &[Optional::WindowOff],
        ..LLAMA
    },
    Family {
        model_type: "gemma2",
        class: "Gemma2ForCausalLM",
        activation: GELU,
        flags: &[("attention_bias", false)],
        options: &[Optional::Gemma],
        ..LLAMA
    },
    Family {
        model_type: "gemma3_text",
        class: "Gemma3ForCausalLM",
        activation: GELU,
        flags: &[("attention_bias", false)],
        options: &[Optional::Gemma],
        ..LLAMA
    },
    Family {
        model_type: "phi3",
        class: "Phi3ForCausalLM",
        has_head_dim: false,
        options: &[Optional::Window],
        ..LLAMA
    },
    Family {
        model_type: "gpt2",
        class: "GPT2LMHeadModel",
        activation: &[("activation_function", "gelu_new")],
        flags: &[("scale_attn_weights", true)],
        options: &[],
        ..LLAMA
    },
    Family {
        model_type: "olmo2",
        class: "Olmo2ForCausalLM",
        flags: &[("attention_bias", false)],
        has_head_dim: false,
        options: &[],
        ..LLAMA
    },
    Family {
        model_type: "granite",
        class: "GraniteForCausalLM",
        has_head_dim: false,
        options: &[Optional::Biases, Optional::Multipliers],
        ..LLAMA
    },
];

/// The family of an architecture.
pub(super) fn of(architecture: &Architecture) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| architecture.hugging_face.first() == Some(&family.model_type))
}

/// The matrices that `attention_bias` gives biases, and those of `mlp_bias`.
const BIASED: [(&str, &[&str]); 2] = [
    ("attention_bias", &["attn_q", "attn_k", "attn_v", "attn_output"]),
    ("mlp_bias", &["ffn_gate", "ffn_up", "ffn_down"]),
];

/// How many of these matrices have a bias, over all blocks.
fn biases(base: &Base, names: &[&str]) -> usize {
    let of_block =
        |layer: usize| names.iter().filter(|name| base.has_bias(&format!("blk.{layer}.{name}"))).count();
    (0..base.config().layers).map(of_block).sum()
}

/// Refuses what transformers' class has no option for.
pub(super) fn check(base: &Base, family: &Family) -> Result<()> {
    let config = base.config();
    let refuse = |place: &str, problem: String| {
        let help = format!("transformers' {} has no form for it: use the model as it is", family.class);
        Err(Error::input(base.path(), place, problem, help))
    };
    let has = |option| family.options.contains(&option);
    if !has(Optional::Gemma) {
        if config.attention_cap.is_some() || config.logit_cap.is_some() {
            let (key, cap) = match config.attention_cap {
                Some(cap) => ("attn_logit_softcapping", cap),
                None => ("final_logit_softcapping", config.logit_cap.unwrap_or_default()),
            };
            return refuse(key, format!("it is {cap}"));
        }
        let whole = has(Optional::Window) && !config.windowed.contains(&false);
        if config.windowed.contains(&true) && !whole {
            return refuse("attention.sliding_window", "some blocks have a sliding window".into());
        }
        if config.local_rope.is_some() {
            return refuse("rope.freq_base_swa", "some blocks have rotary frequencies of their own".into());
        }
    }
    if !has(Optional::Multipliers) {
        let usual = 1.0 / (config.head_dim as f64).sqrt();
        if !has(Optional::Gemma) && (config.attention_scale / usual - 1.0).abs() > 1e-6 {
            let problem = format!("attention's scores are scaled by {}, not {usual}", config.attention_scale);
            return refuse("attention.scale", problem);
        }
        let embedding = if base.architecture().scales_embedding { 1.0 } else { config.embedding_scale };
        let scales = [
            ("embedding_scale", embedding),
            ("residual_scale", config.residual_scale),
            // GGUF stores the divisor.
            ("logit_scale", 1.0 / config.logit_scale),
        ];
        if let Some((key, scale)) = scales.into_iter().find(|&(_, scale)| scale != 1.0) {
            return refuse(key, format!("it is {scale}"));
        }
    }
    if has(Optional::Biases) {
        for (key, names) in BIASED {
            let count = biases(base, names);
            if count != 0 && count != names.len() * config.layers {
                let problem = format!("{count} biases, where there is one of every matrix or none");
                return refuse(key, problem);
            }
        }
    } else {
        // Those of a table's lines without an option are the class's own, or have been refused on opening.
        let line = |name: &str| base.architecture().line(&format!("blk.0.{name}"));
        let may = BIASED.iter().flat_map(|(_, names)| *names).filter(|name| {
            line(name).is_some_and(|line| line.bias == Some(crate::arch::names::Presence::Sometimes))
        });
        for name in may {
            if biases(base, &[name]) > 0 {
                return refuse(name, "it has a bias".into());
            }
        }
    }
    Ok(())
}

/// The window of the model; of a GGUF file that which it names, whether llama.cpp heeds it or not.
fn window(base: &Base, gguf: Option<&Gguf>) -> Option<u64> {
    let Some(gguf) = gguf else { return base.config().window.map(|window| window as u64) };
    let key = format!("{}.attention.sliding_window", base.architecture().gguf);
    gguf.get(&key).and_then(Value::as_u64).filter(|&window| window > 0)
}

/// What transformers makes of the folder and llama.cpp does not of the file.
pub(super) fn note(base: &Base, gguf: &Gguf) -> Option<String> {
    let family = of(base.architecture())?;
    // Where llama.cpp has windows, they are the same.
    let heeded = base.architecture().windows.is_some() || !family.options.contains(&Optional::Window);
    let window =
        window(base, Some(gguf)).filter(|&window| !heeded && window < base.config().context as u64)?;
    Some(format!(
        "transformers lets the model see {window} tokens in a sliding window, which llama.cpp does not know of its \
         architecture: longer texts give other logits there than the file's"
    ))
}

/// The keys of the options that the class has.
pub(super) fn options(base: &Base, gguf: Option<&Gguf>, family: &Family) -> Map<String, Json> {
    let config = base.config();
    let mut json = Map::new();
    let mut set = |name: &str, value: Json| drop(json.insert(name.into(), value));
    for option in family.options {
        match option {
            Optional::Biases => {
                for (key, names) in BIASED {
                    set(key, (biases(base, names) > 0).into());
                }
            }
            Optional::Multipliers => {
                set("attention_multiplier", shortest(config.attention_scale).into());
                set("embedding_multiplier", shortest(config.embedding_scale).into());
                set("residual_multiplier", shortest(config.residual_scale).into());
                let divisor = 1.0 / config.logit_scale;
                // Once divided and once multiplied, it is an f32 again.
                set("logits_scaling", shortest(f64::from(divisor as f32)).into());
            }
            Optional::Window => set("sliding_window", window(base, gguf).into()),
            Optional::WindowOff => {
                set("use_sliding_window", false.into());
                set("sliding_window", Json::Null);
                set("max_window_layers", config.layers.into());
            }
            Optional::Gemma => {
                let squared = config.attention_scale.powi(-2);
                let whole = (squared - squared.round()).abs() < 1e-6 * squared;
                let scalar = if whole { json!(squared.round() as u64) } else { json!(squared) };
                set("query_pre_attn_scalar", scalar);
                set("attn_logit_softcapping", config.attention_cap.map(shortest).into());
                set("final_logit_softcapping", config.logit_cap.map(shortest).into());
                let kind = |&windowed: &bool| if windowed { "sliding_attention" } else { "full_attention" };
                let windowed = (0..config.layers).map(|layer| config.window_of(layer).is_some());
                let windowed: Vec<bool> = windowed.collect();
                set("layer_types", windowed.iter().map(kind).collect());
                set("sliding_window", config.window.unwrap_or(config.context).into());
                if let Some(period) = base.architecture().windows.and_then(|w| period(&windowed, w)) {
                    // As transformers before 4.53 reads it.
                    set("sliding_window_pattern", period.into());
                }
            }
        }
    }
    if config.experts.is_some() && family.model_type == "qwen3_moe" {
        set("decoder_sparse_step", 1.into());
        set("mlp_only_layers", json!([]));
    }
    json
}

/// Every so many blocks one sees everything, if it is so.
fn period(windowed: &[bool], usual: Windows) -> Option<usize> {
    [1, usual.period].into_iter().find(|&period| {
        let mut layers = windowed.iter().enumerate();
        layers.all(|(layer, &windowed)| windowed == is_windowed(layer, period))
    })
}

#[cfg(test)]
mod tests {
    use super::of;
    use crate::arch;

    #[test]
    fn every_architecture_has_a_line() {
        for architecture in arch::ALL {
            assert!(of(architecture).is_some(), "{:?}", architecture.hugging_face);
        }
    }
}
