//! The options that only some of transformers' classes have: which keys they are, and models that would need
//! one that their class does not have.

use curmerge_formats::gguf::{Gguf, Value};
use serde_json::{Map, Value as Json, json};

use super::decimal::shortest;
use crate::arch::{
    BlockKind, Blocks, ClassOption, MixerKind, Presence, Unrotated, WindowedLayers, Windows, is_windowed,
};
use crate::base::{Base, Config, Files};
use crate::{Error, Result};

/// The matrices that get biases by `attention_bias` and by `mlp_bias`.
const BIASED: [(&str, &[&str]); 2] = [
    ("attention_bias", &["attn_q", "attn_k", "attn_v", "attn_output"]),
    ("mlp_bias", &["ffn_gate", "ffn_up", "ffn_down"]),
];

/// What begins the names of tensors that predict further tokens in folders of families whose GGUF files have them in another
/// form.
const PREDICTION: &str = "mtp.";

/// The number of biases of these matrices in all blocks.
fn biases(base: &Base, names: &[&str]) -> usize {
    let of_block =
        |layer: usize| names.iter().filter(|name| base.has_bias(&format!("blk.{layer}.{name}"))).count();
    (0..base.config().layers).map(of_block).sum()
}

/// Refuses a model that transformers' class has no option for.
pub(super) fn check(base: &Base) -> Result<()> {
    let (architecture, config) = (base.architecture(), base.config());
    let class = &architecture.hugging_face;
    let refuse = |place: &str, problem: String| {
        let help = format!("transformers' {} has no option for it: use the model as it is", class.class);
        Err(Error::input(base.path(), place, problem, help))
    };
    let has = |option| class.has(option);
    if !has(ClassOption::SoftCaps) {
        let caps =
            [("attn_logit_softcapping", config.attention_cap), ("final_logit_softcapping", config.logit_cap)];
        if let Some((key, cap)) = caps.into_iter().find_map(|(key, cap)| Some((key, cap?))) {
            return refuse(key, format!("it is {cap}"));
        }
    }
    if let Some(space) = config.state_space.filter(|space| !space.inner().is_multiple_of(config.d_model))
        && has(ClassOption::StateSpaces)
    {
        let problem = format!("it is {}, no multiple of {}", space.inner(), config.d_model);
        return refuse("ssm.inner_size", problem);
    }
    if config.prediction_blocks > 0 && architecture.converter.dropped_prefixes.contains(&PREDICTION) {
        return refuse("nextn_predict_layers", "blocks predict further tokens".into());
    }
    if has(ClassOption::BlocksOfOnePart) && !base.tensors().contains_key("output") {
        return refuse("output.weight", "missing, and the class does not take the embedding for it".into());
    }
    if has(ClassOption::HeadsByKind)
        && let Some((key, problem)) = heads_by_kind(config)
    {
        return refuse(key, problem);
    }
    let expressible = match class.windows {
        WindowedLayers::Listed => true,
        WindowedLayers::All => !config.windowed.contains(&false),
        _ => false,
    };
    if config.windowed.contains(&true) && !expressible {
        return refuse("attention.sliding_window", "some blocks have a sliding window".into());
    }
    if let Some(temperature) = config.temperature.filter(|_| !has(ClassOption::Temperature)) {
        return refuse("attention.temperature_scale", format!("it is {}", temperature.beta));
    }
    let own_unrotated =
        has(ClassOption::UnrotatedLayers) || architecture.forward.unrotated == Unrotated::Global;
    // One key is for all blocks.
    let all = has(ClassOption::StateSpaces) && !config.unrotated.contains(&false);
    let own_unrotated = own_unrotated || all;
    if !config.unrotated.is_empty() && !own_unrotated {
        let count = config.unrotated.iter().filter(|&&unrotated| unrotated).count();
        let problem = format!("{count} of the {} blocks have no rotary embedding", config.layers);
        return refuse("rope.scaling.finetuned", problem);
    }
    if config.local_rope.is_some() && !has(ClassOption::LocalRope) && !has(ClassOption::RopeByKind) {
        return refuse("rope.freq_base_swa", "some blocks have rotary frequencies of their own".into());
    }
    if !has(ClassOption::Multipliers) {
        let usual = architecture.gguf.attention_scale.unwrap_or(1.0 / (config.head_dim as f64).sqrt());
        if !has(ClassOption::QueryScalar) && (config.attention_scale / usual - 1.0).abs() > 1e-6 {
            let problem = format!("attention's scores are scaled by {}, not {usual}", config.attention_scale);
            return refuse("attention.scale", problem);
        }
        let embedding = if architecture.forward.scales_embedding { 1.0 } else { config.embedding_scale };
        let scales = [
            ("embedding_scale", embedding),
            ("residual_scale", config.residual_scale),
            // GGUF stores the divisor.
            ("logit_scale", if has(ClassOption::LogitScale) { 1.0 } else { 1.0 / config.logit_scale }),
        ];
        if let Some((key, scale)) = scales.into_iter().find(|&(_, scale)| scale != 1.0) {
            return refuse(key, format!("it is {scale}"));
        }
    }
    if let Some(experts) = config.experts {
        if experts.scale != 1.0 && !has(ClassOption::ExpertScale) {
            return refuse("expert_weights_scale", format!("it is {}", experts.scale));
        }
        let by_count = class.options.iter().any(|option| matches!(option, ClassOption::SharedExperts(_)));
        if by_count && !experts.shared_ff.unwrap_or(0).is_multiple_of(experts.ff) {
            let problem = format!("{:?} is no multiple of an expert's width", experts.shared_ff);
            return refuse("expert_shared_feed_forward_length", problem);
        }
        let [groups, used] = experts.groups;
        if groups > 1 && !has(ClassOption::ExpertGroups) {
            return refuse(
                "expert_group_count",
                format!("experts are chosen from {used} of {groups} groups"),
            );
        }
    }
    if has(ClassOption::Biases) {
        for (key, names) in BIASED {
            let count = biases(base, names);
            let own = names.iter().filter(|name| architecture.line(&format!("blk.0.{name}")).is_some());
            if count != 0 && count != own.count() * config.layers {
                let problem =
                    format!("{count} biases, where transformers expects one for every matrix or none");
                return refuse(key, problem);
            }
        }
    } else if let Some((key, count)) = input_biases(base) {
        if count != 0 && count != INPUTS.len() * config.layers {
            let problem =
                format!("{count} biases, where transformers expects one for each of q, k and v or none");
            return refuse(key, problem);
        }
    } else {
        // A bias that every model has is the class's own; one that no model has was refused on opening.
        let line = |name: &str| architecture.line(&format!("blk.0.{name}"));
        let may = BIASED
            .iter()
            .flat_map(|(_, names)| *names)
            .filter(|name| line(name).is_some_and(|line| line.bias == Some(Presence::Sometimes)));
        for name in may {
            if biases(base, &[name]) > 0 {
                return refuse(name, "it has a bias".into());
            }
        }
    }
    Ok(())
}

/// Whether the last blocks, which may share keys, have feed-forward parts of another width than the first.
fn last_blocks_are_wider(config: &Config) -> bool {
    config.sizes_of(config.layers - 1).ff != config.sizes_of(0).ff
}

/// What transformers' class cannot be told of sizes of blocks: GGUF's key, and the problem.
fn heads_by_kind(config: &Config) -> Option<(&'static str, String)> {
    let first_sharing = config.layers - config.sharing_blocks;
    let equal = !config.keys_as_values.is_empty();
    let wide = last_blocks_are_wider(config);
    for layer in 0..config.layers {
        let (own, windowed) = (config.sizes_of(layer), config.window_of(layer).is_some());
        let alike = config.sizes_by_window(windowed);
        if (own.kv_heads, own.head_dim) != (alike.kv_heads, alike.head_dim) {
            return Some(("attention.head_count_kv", format!("block {layer} has heads of its own")));
        }
        let factor = if wide && layer >= first_sharing { 2 } else { 1 };
        if own.ff != factor * config.sizes_of(0).ff {
            return Some(("feed_forward_length", format!("block {layer} has a width of its own")));
        }
        let from_keys = config.keys_as_values.get(layer) == Some(&true);
        if config.keys_of(layer) == layer && from_keys != (equal && !windowed) {
            return Some(("attn_v", format!("block {layer} differs from others of its kind")));
        }
        if !equal && own.kv_heads != config.sizes_of(0).kv_heads {
            return Some((
                "attention.head_count_kv",
                format!("block {layer} has {} of its own", own.kv_heads),
            ));
        }
    }
    config
        .window_of(config.layers - 1)
        .map(|_| ("sliding_window_pattern", "the last block has the window".into()))
}

/// The matrices that read the input of attention.
const INPUTS: [&str; 3] = ["attn_q", "attn_k", "attn_v"];

/// The key that says whether these have biases, if the class has one, and how many have.
fn input_biases(base: &Base) -> Option<(&'static str, usize)> {
    let key = base.architecture().hugging_face.options.iter().find_map(|option| match option {
        ClassOption::InputBiases(key) => Some(*key),
        _ => None,
    })?;
    Some((key, biases(base, &INPUTS)))
}

/// The model's window; for a GGUF file the one that it names, even if llama.cpp ignores it.
fn window(base: &Base, gguf: Option<&Gguf>) -> Option<u64> {
    let Some(gguf) = gguf else { return base.config().window.map(|window| window as u64) };
    let key = format!("{}.attention.sliding_window", base.architecture().name);
    gguf.get(&key).and_then(Value::as_u64).filter(|&window| window > 0)
}

/// A note on a window that transformers will apply to the folder's model, and llama.cpp does not to the
/// file's.
pub(in crate::convert) fn window_note(base: &Base, gguf: &Gguf) -> Option<String> {
    let architecture = base.architecture();
    // Other classes ignore it, and if llama.cpp implements windows, they are the same.
    if architecture.hugging_face.windows != WindowedLayers::All || architecture.gguf.windows.is_some() {
        return None;
    }
    let window = window(base, Some(gguf)).filter(|&window| window < base.config().context as u64)?;
    Some(format!(
        "transformers applies a sliding window of {window} tokens, which llama.cpp ignores for this \
         architecture: longer texts get other logits there than from the file"
    ))
}

/// A note on a nonlinearity that transformers computes otherwise than llama.cpp.
pub(in crate::convert) fn activation_note(base: &Base) -> Option<String> {
    let of_file = matches!(base.files(), Files::Gguf(_));
    let theirs = base.architecture().gguf.activation.filter(|theirs| of_file || base.activation() != *theirs);
    theirs.map(|_| {
        "transformers computes GELU itself, and llama.cpp its tanh formula, which is near: texts get other logits there"
            .to_owned()
    })
}

/// A note on a folder that transformers does not load by itself.
pub(in crate::convert) fn class_note(base: &Base) -> Option<String> {
    let class = &base.architecture().hugging_face;
    (!class.own_code.is_empty()).then(|| {
        format!(
            "transformers has no class {}: put the .py files of the original model beside it, which config.json names",
            class.class
        )
    })
}

/// The keys of the options that the class has, and of its windows.
pub(super) fn keys(base: &Base, gguf: Option<&Gguf>) -> Map<String, Json> {
    let config = base.config();
    let class = &base.architecture().hugging_face;
    let mut json = Map::new();
    let mut set = |name: &str, value: Json| drop(json.insert(name.into(), value));
    for option in class.options {
        match option {
            ClassOption::Biases => {
                for (key, names) in BIASED {
                    set(key, (biases(base, names) > 0).into());
                }
            }
            ClassOption::InputBiases(key) => set(key, (biases(base, &INPUTS) > 0).into()),
            ClassOption::Multipliers => {
                set("attention_multiplier", shortest(config.attention_scale).into());
                set("embedding_multiplier", shortest(config.embedding_scale).into());
                set("residual_multiplier", shortest(config.residual_scale).into());
                let divisor = 1.0 / config.logit_scale;
                // The configuration inverted an f32; its inverse is that f32 after rounding.
                set("logits_scaling", shortest(f64::from(divisor as f32)).into());
            }
            ClassOption::LogitScale => set("logit_scale", shortest(config.logit_scale).into()),
            ClassOption::QueryScalar => {
                let squared = config.attention_scale.powi(-2);
                let whole = (squared - squared.round()).abs() < 1e-6 * squared;
                let scalar = if whole { json!(squared.round() as u64) } else { json!(squared) };
                set("query_pre_attn_scalar", scalar);
            }
            ClassOption::SoftCaps => {
                set("attn_logit_softcapping", config.attention_cap.map(shortest).into());
                set("final_logit_softcapping", config.logit_cap.map(shortest).into());
            }
            ClassOption::SparseBlocks => {
                set("decoder_sparse_step", 1.into());
                set("mlp_only_layers", json!([]));
            }
            ClassOption::HeadNorms(key) => set(key, config.head_norms.into()),
            ClassOption::DenseFirst(key) => set(key, config.dense_first().unwrap_or(0).into()),
            ClassOption::ExpertInterval => {
                set("moe_layer_start_index", config.dense_first().unwrap_or(0).into());
                set("moe_layer_end_index", (config.layers - 1).into());
                set("moe_layer_interval", 1.into());
            }
            ClassOption::SharedExperts(key) => {
                let times = config.experts.map(|experts| experts.shared_ff.unwrap_or(0) / experts.ff.max(1));
                set(key, times.into());
            }
            ClassOption::ExpertGroups => {
                let [groups, used] = config.experts.map_or([1, 1], |experts| experts.groups);
                set("n_group", groups.into());
                set("topk_group", used.into());
            }
            ClassOption::ExpertScale => {
                set("routed_scaling_factor", config.experts.map(|experts| shortest(experts.scale)).into());
            }
            ClassOption::ExpertsNormalized => {
                set("norm_topk_prob", config.experts.is_some_and(|experts| experts.normalized).into());
            }
            ClassOption::SelectionBias(key) => {
                set(key, config.experts.is_some_and(|experts| experts.selection_bias).into());
            }
            ClassOption::UnrotatedLayers => {
                let rotated = (0..config.layers).map(|layer| u8::from(config.rope_of(layer).is_some()));
                set("no_rope_layers", rotated.collect());
            }
            ClassOption::LinearAttention => {
                if let Some(heads) = config.delta_net {
                    set("linear_num_key_heads", heads.key_heads.into());
                    set("linear_num_value_heads", heads.value_heads.into());
                    set("linear_key_head_dim", heads.key_dim.into());
                    set("linear_value_head_dim", heads.value_dim.into());
                    set("linear_conv_kernel_dim", heads.taps.into());
                }
                let kind =
                    |layer| if config.is_linear(layer) { "linear_attention" } else { "full_attention" };
                set("layer_types", (0..config.layers).map(kind).collect());
                let by_interval = |interval: &usize| {
                    (0..config.layers).all(|layer| config.is_linear(layer) == is_windowed(layer, *interval))
                };
                if let Some(interval) = (1..=config.layers).find(by_interval) {
                    set("full_attention_interval", interval.into());
                }
            }
            ClassOption::HeadsByKind => {
                let [global, local] = [false, true].map(|windowed| config.sizes_by_window(windowed));
                set("head_dim", local.head_dim.into());
                set("global_head_dim", global.head_dim.into());
                set("num_key_value_heads", local.kv_heads.into());
                let equal = !config.keys_as_values.is_empty();
                set("num_global_key_value_heads", equal.then_some(global.kv_heads).into());
                set("attention_k_eq_v", equal.into());
                set("num_kv_shared_layers", config.sharing_blocks.into());
                set("intermediate_size", config.sizes_of(0).ff.into());
                set("use_double_wide_mlp", last_blocks_are_wider(config).into());
            }
            ClassOption::Convolutions => {
                let kind = |layer: usize| match config.block_kind(layer).mixer {
                    Some(MixerKind::Convolution) => "conv",
                    _ => "full_attention",
                };
                set("layer_types", (0..config.layers).map(kind).collect());
                set("conv_L_cache", config.convolution_taps.max(1).into());
            }
            ClassOption::StateSpaces => {
                let expand = config.state_space.map(|space| space.inner() / config.d_model);
                set("mamba_expand", expand.into());
                state_space(base).into_iter().for_each(|(key, value)| set(key, value.into()));
                let kind = |layer: usize| match config.block_kind(layer).mixer {
                    Some(MixerKind::StateSpace) => "mamba",
                    _ => "attention",
                };
                set("layer_types", (0..config.layers).map(kind).collect());
                let rotated = (0..config.layers).any(|layer| config.rope_of(layer).is_some());
                set("position_embedding_type", if rotated { "rope" } else { "nope" }.into());
                if config.experts.is_none() {
                    set("num_local_experts", 0.into());
                    set("num_experts_per_tok", 0.into());
                }
            }
            ClassOption::BlocksOfOnePart => {
                state_space(base).into_iter().for_each(|(key, value)| set(key, value.into()));
                let kind = |layer| match config.block_kind(layer) {
                    BlockKind { experts: true, .. } => 'E',
                    BlockKind { feed_forward: true, .. } => '-',
                    BlockKind { mixer: Some(MixerKind::StateSpace), .. } => 'M',
                    _ => '*',
                };
                let kinds: String = (0..config.layers).map(kind).collect();
                // Newer versions also read a list.
                set("hybrid_override_pattern", kinds.into());
                // The converter and older versions of llama.cpp want it, and the converter carries a base that nothing uses.
                set("rms_norm_eps", shortest(config.norm_eps).into());
                let key = format!("{}.rope.freq_base", base.architecture().name);
                if let Some(unused) = gguf.and_then(|gguf| gguf.get(&key)).and_then(Value::as_f64) {
                    set("rope_theta", shortest(unused).into());
                }
                // transformers' class alone holds time steps above its default.
                set("time_step_min", 1e-30.into());
            }
            ClassOption::LatentExperts => {
                let latent = config.experts.and_then(|experts| experts.latent);
                set("moe_latent_size", latent.into());
                set("n_shared_experts", 1.into());
            }
            ClassOption::NewDecoder => {
                let new = config.two_norms || config.kv_heads != 1;
                set("new_decoder_architecture", new.into());
                set("num_ln_in_parallel_attn", new.then_some(if config.two_norms { 2 } else { 1 }).into());
                set("multi_query", true.into());
            }
            ClassOption::AdjustedFeedForward => set("block_auto_adjust_ff_dim", false.into()),
            ClassOption::PerLayerInputs => {
                let inputs = config.per_layer_inputs;
                set("hidden_size_per_layer_input", inputs.map_or(0, |inputs| inputs.width).into());
                set("vocab_size_per_layer_input", inputs.map_or(config.vocab, |inputs| inputs.vocab).into());
            }
            // Written with the dimensions, and with the rotary embeddings.
            ClassOption::ContextTwice
            | ClassOption::LocalRope
            | ClassOption::ModelMaxLength
            | ClassOption::NtkAlpha
            | ClassOption::RopeByKind
            | ClassOption::Temperature
            | ClassOption::PartialRotary
            | ClassOption::Sections
            | ClassOption::OriginalContext => {}
        }
    }
    if !class.own_code.is_empty() {
        let code = class.own_code.iter().map(|&(name, place)| (name.to_owned(), place.into()));
        set("auto_map", Json::Object(code.collect()));
    }
    let has_prediction = base.architecture().names().any(|line| line.blocks == Blocks::Prediction);
    if config.prediction_blocks > 0 || has_prediction && class.prediction.is_none() {
        set(class.prediction_key, config.prediction_blocks.into());
    }
    match class.windows {
        WindowedLayers::None => {}
        WindowedLayers::All => set("sliding_window", window(base, gguf).into()),
        WindowedLayers::Switched
        | WindowedLayers::SwitchedUpper
        | WindowedLayers::SwitchedEveryOther
        | WindowedLayers::SwitchedUnrotated => {
            set("use_sliding_window", false.into());
            set("sliding_window", Json::Null);
            if class.windows != WindowedLayers::SwitchedUnrotated {
                set("max_window_layers", config.layers.into());
            }
        }
        WindowedLayers::Listed => {
            let kind = |&windowed: &bool| if windowed { "sliding_attention" } else { "full_attention" };
            let windowed = (0..config.layers).map(|layer| config.window_of(layer).is_some());
            let windowed: Vec<bool> = windowed.collect();
            set("layer_types", windowed.iter().map(kind).collect());
            // A class whose windows decide about positions takes null for none; others need a number.
            let none = match base.architecture().forward.unrotated {
                Unrotated::Global if config.unrotated.is_empty() => Json::Null,
                _ => config.context.into(),
            };
            set("sliding_window", config.window.map_or(none, Json::from));
            if let Some(period) = base.architecture().gguf.windows.and_then(|w| period(&windowed, w)) {
                // transformers before 4.53 reads this key.
                set("sliding_window_pattern", period.into());
            }
        }
    }
    json
}

/// The keys of the heads of state spaces.
fn state_space(base: &Base) -> Vec<(&'static str, usize)> {
    let (config, class) = (base.config(), &base.architecture().hugging_face);
    let Some(space) = config.state_space else { return Vec::new() };
    let keys = [
        ("mamba_n_heads", space.heads),
        ("mamba_n_groups", space.groups),
        ("mamba_d_state", space.state),
        ("mamba_d_head", space.head_dim),
        ("mamba_d_conv", space.taps),
    ];
    keys.map(|(key, value)| (class.key(key), value)).into()
}

/// The period of the blocks without a window, if there is one.
fn period(windowed: &[bool], usual: Windows) -> Option<usize> {
    [1, usual.period].into_iter().find(|&period| {
        let mut layers = windowed.iter().enumerate();
        layers.all(|(layer, &windowed)| windowed == is_windowed(layer, period))
    })
}
