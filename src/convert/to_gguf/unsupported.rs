//! Properties of a folder or ONNX model that a GGUF file of its architecture cannot express.
//!
//! The converter drops them silently, and llama.cpp then runs a different model. This refuses them, except
//! for sliding windows, which change nothing for texts that fit into one, and YaRN's options, which llama.cpp
//! does not read: a note tells of these.

use super::super::of_longer_texts;
use super::rope;
use crate::arch::{Architecture, Key, RopeType, Unrotated, is_windowed};
use crate::base::folder::{self, Folder, Object};
use crate::base::{Base, Config, UNROTATED, YARN_BETAS, long_amplitude, yarn_of_llama_cpp};
use crate::{Error, Result};

/// Refuses a model that would lose something, and adds what the user should know to `notes`.
pub(super) fn check(base: &Base, folder: Folder<'_>, json: &Object, notes: &mut Vec<String>) -> Result<()> {
    let (architecture, config) = (base.architecture(), base.config());
    let converter = &architecture.converter;
    let refuse = |key: &str, problem: String| {
        let help = format!("llama.cpp's {} has no key for it: use the model as it is", architecture.name);
        Err(Error::input(folder.join(folder::CONFIG), key, problem, help))
    };
    let has = |key: Key| converter.writes(key);
    let scale = architecture.attention_scale(config.layers, config.d_model, config.heads, config.head_dim);
    if !has(Key::Scales) && (config.attention_scale / scale - 1.0).abs() > 1e-6 {
        let problem = format!("attention's scores are scaled by {}, not {scale}", config.attention_scale);
        return refuse("query_pre_attn_scalar", problem);
    }
    if !has(Key::Scales) {
        let embedding = if architecture.forward.scales_embedding { 1.0 } else { config.embedding_scale };
        let scales = [
            ("embedding_multiplier", embedding),
            ("residual_multiplier", config.residual_scale),
            ("logits_scaling", if has(Key::LogitScale) { 1.0 } else { 1.0 / config.logit_scale }),
        ];
        if let Some((key, scale)) = scales.into_iter().find(|&(_, scale)| scale != 1.0) {
            return refuse(key, format!("it is {scale}, not 1"));
        }
    }
    let told = has(Key::HeadLengths) || has(Key::GivenHeadLengths) && json.contains_key("head_dim");
    let told = told && !architecture.gguf.square_heads;
    if !told && config.head_dim * config.heads != config.d_model {
        let problem =
            format!("{} heads of {} are not {} wide", config.heads, config.head_dim, config.d_model);
        return refuse("head_dim", problem);
    }
    let caps = [
        ("attn_logit_softcapping", config.attention_cap, has(Key::AttentionCap), has(Key::AttentionCap)),
        (
            "final_logit_softcapping",
            config.logit_cap,
            has(Key::LogitCap) || has(Key::GivenLogitCap),
            has(Key::LogitCap),
        ),
    ];
    for (key, cap, may, must) in caps {
        if cap.is_some() && !may || cap.is_none() && must {
            return refuse(key, format!("it is {}", cap.map_or("null".into(), |cap| cap.to_string())));
        }
    }
    if let Some((key, problem)) = experts(architecture, config) {
        return refuse(key, problem);
    }
    if let Some(written) = converter.rms_epsilon.filter(|&written| written != config.norm_eps) {
        return refuse(
            "rms_norm_eps",
            format!("it is {}, and the converter writes {written}", config.norm_eps),
        );
    }
    let tied = json.get("tie_word_embeddings").and_then(|tied| tied.as_bool()) != Some(false);
    if !converter.writes_head && !tied && base.tensors().contains_key("output") {
        return refuse("tie_word_embeddings", "the output head differs from the embedding".into());
    }
    if architecture.gguf.needs_head && !base.tensors().contains_key("output") {
        return refuse("tie_word_embeddings", "there is no lm_head, and llama.cpp needs one".into());
    }
    let given = |key: &str| json.get(key).and_then(|number| number.as_f64());
    let rms =
        given("rms_norm_eps").or(given("norm_eps")).filter(|_| converter.writes(Key::RmsAsLayerEpsilon));
    if let Some(rms) = rms.filter(|&rms| rms != config.norm_eps) {
        let problem = format!("norms add {}, and llama.cpp would add {rms}", config.norm_eps);
        return refuse("layer_norm_epsilon", problem);
    }
    let of_granite = !config.state_spaces.is_empty() && !architecture.gguf.one_part;
    if let Some(space) = config.state_space.filter(|_| of_granite) {
        if space.inner() != 2 * config.d_model {
            let problem =
                format!("state spaces are {} wide, and the model {}", space.inner(), config.d_model);
            return refuse("mamba_expand", problem);
        }
        if config.unrotated.contains(&false) || config.unrotated.is_empty() {
            return refuse("position_embedding_type", "blocks with attention have positions".into());
        }
    }
    if let Some(heads) = config.delta_net {
        if heads.value_dim != heads.key_dim {
            let problem =
                format!("it is {}, and the heads of keys are {} wide", heads.value_dim, heads.key_dim);
            return refuse("linear_value_head_dim", problem);
        }
        if heads.eps != config.norm_eps {
            notes.push(format!(
                "llama.cpp adds {} to the length of the queries and keys of linear attention, as to norms, and transformers \
                 {}: logits differ a little",
                config.norm_eps, heads.eps
            ));
        }
    }
    let dropped = |name: &&str| converter.dropped_prefixes.iter().any(|start| name.starts_with(start));
    let dropped = || base.tensors().values().map(|tensor| tensor.stored_name.as_str()).filter(dropped);
    let predicts = |name: &&str| name.starts_with("model.mtp_") || name.starts_with("mtp.");
    let (predicting, vision) =
        (dropped().filter(predicts).count(), dropped().filter(|name| !predicts(name)).count());
    if vision > 0 {
        notes.push(format!(
            "{vision} tensors of the vision part were left out: the file holds only the language model"
        ));
    }
    if predicting > 0 {
        notes.push(format!(
            "{predicting} tensors that predict further tokens were left out: the file predicts one at a time"
        ));
    }
    if let Some((key, problem)) = rotary(architecture, config, json) {
        return refuse(key, problem);
    }
    notes.extend(of_longer_texts(config));
    if let Some(temperature) = config.temperature.filter(|_| rope::yarn(json).is_none()) {
        return refuse("llama_4_scaling_beta", format!("it is {} without YaRN", temperature.beta));
    }
    if let Some(inputs) = config.per_layer_inputs.filter(|inputs| inputs.vocab != config.vocab) {
        let problem = format!(
            "{} tokens have inputs for every block, and the model has {}",
            inputs.vocab, config.vocab
        );
        return refuse("vocab_size_per_layer_input", problem);
    }
    if let Some(layer) = config.shares_unlike_llama_cpp() {
        let problem = format!("block {layer} reads the keys of another block than in llama.cpp");
        return refuse("num_kv_shared_layers", problem);
    }
    notes.extend(yarn_note(architecture, config, json));
    if let Some(problem) = windows(base, notes) {
        return refuse("layer_types", problem);
    }
    if let Some(problem) = unrotated(architecture, config) {
        return refuse("no_rope_layers", problem);
    }
    Ok(())
}

/// What cannot be expressed of experts: the key and the problem.
fn experts(architecture: &Architecture, config: &Config) -> Option<(&'static str, String)> {
    let experts = config.experts?;
    let has = |key: Key| architecture.converter.writes(key);
    let normalizes = architecture.gguf.normalizes_experts;
    if let Some(normalizes) = normalizes.filter(|&normalizes| experts.normalized != normalizes) {
        let what = if normalizes { "do not sum" } else { "are scaled to sum" };
        return Some(("norm_topk_prob", format!("the weights of a token's experts {what} to 1")));
    }
    if experts.scale != 1.0 && !has(Key::ExpertScale) {
        return Some(("routed_scaling_factor", format!("it is {}, not 1", experts.scale)));
    }
    let [groups, used] = experts.groups;
    // llama.cpp refuses to leave no group out.
    if groups > 1 && (!has(Key::ExpertGroups) || groups == used) {
        return Some(("n_group", format!("experts are chosen from {used} of {groups} groups")));
    }
    if !experts.selection_bias {
        return Some(("use_expert_bias", "no bias has a say in the choice of experts".into()));
    }
    match config.dense_first() {
        None => Some(("moe_layer_interval", "a block without experts follows one with experts".into())),
        Some(0) => None,
        Some(first) if !has(Key::DenseFirst) => {
            Some(("moe_layer_start_index", format!("the first {first} blocks have no experts")))
        }
        Some(_) => None,
    }
}

/// What cannot be expressed of the rotary embeddings: the key and the problem.
fn rotary(architecture: &Architecture, config: &Config, json: &Object) -> Option<(&'static str, String)> {
    let rope = config.rope.as_ref()?;
    let has = |key: Key| architecture.converter.writes(key);
    let kind = rope::scaling(json);
    let kind = kind.as_deref();
    let form = match kind {
        None => None,
        Some("linear" | rope::YARN) => Some(RopeType::ByKeys),
        Some("longrope" | "su") => Some(RopeType::LongRope),
        Some("proportional") => Some(RopeType::Proportional),
        Some(_) if has(Key::RaisedBase) && rope::has_raised_base(json) => None,
        // The converter writes nothing, and llama.cpp never changes frequencies with the length.
        Some("dynamic") if rope.longest.is_some() => None,
        Some(_) => Some(RopeType::Llama3),
    };
    if architecture.converter.rope_types.contains(&RopeType::Proportional)
        && !(form == Some(RopeType::Proportional)
            && rope.factors.iter().flatten().all(|&f| f == 1.0 || f == UNROTATED))
    {
        return Some(("rope_parameters", "blocks without a window have no proportional frequencies".into()));
    }
    if form.is_some_and(|form| !architecture.converter.rope_types.contains(&form)) {
        let kind = kind.unwrap_or_default().escape_debug();
        return Some(("rope_parameters", format!("frequencies are scaled by the rule '{kind}'")));
    }
    if kind == Some(rope::YARN) && rope::yarn(json).is_none() {
        return Some(("rope_parameters", "YaRN without factor and original_max_position_embeddings".into()));
    }
    if !has(Key::RopeBase) && rope.base != 10000.0 {
        return Some(("rope_theta", format!("it is {}, not 10000", rope.base)));
    }
    if !has(Key::PartialRopeDimensions) && rope.dim != config.head_dim {
        let problem = format!("{} of the {} entries of a head are rotated", rope.dim, config.head_dim);
        return Some(("partial_rotary_factor", problem));
    }
    if let Some(long) = &rope.long {
        let usual = long_amplitude(config.context as f64, long.original_context as f64);
        if (rope.amplitude / usual - 1.0).abs() > 1e-6 {
            return Some(("attention_factor", format!("it is {}, not {usual}", rope.amplitude)));
        }
    }
    let local = has(Key::LocalRopeBase);
    let same = match (&config.local_rope, architecture.gguf.windows.map(|windows| windows.own_base)) {
        (Some(own), Some(false)) => own.base == rope.base && own.factors.is_none(),
        (Some(own), _) => local && own.factors.is_none() && own.dim == config.sizes_by_window(true).head_dim,
        (None, _) => !local || rope.factors.is_none() || config.window.is_none(),
    };
    (!same).then(|| ("rope_parameters", "blocks with a window have frequencies of their own".into()))
}

/// A note on YaRN's options that llama.cpp does not read, if they change the angles.
fn yarn_note(architecture: &Architecture, config: &Config, json: &Object) -> Option<String> {
    let (rope, yarn) = (config.rope.as_ref()?, rope::yarn(json)?);
    let option = |name: &str| yarn.options.iter().find(|(key, _)| key.ends_with(name)).map(|(_, x)| *x);
    let own = |number: Option<f64>| number.filter(|_| architecture.gguf.reads_yarn);
    let betas = [
        own(option("beta_fast")).unwrap_or(YARN_BETAS[0]),
        own(option("beta_slow")).unwrap_or(YARN_BETAS[1]),
    ];
    let (read, amplitude) =
        yarn_of_llama_cpp(yarn.factor, yarn.original_context as f64, betas, own(rope::log_multiplier(json)));
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs();
    let own = rope.factors.iter().flatten();
    let same = own.zip(read.factors(rope.base, rope.dim)).all(|(own, theirs)| near(*own, theirs))
        && near(rope.amplitude, amplitude);
    (!same).then(|| {
        "llama.cpp does not read all of YaRN's options of this model for its architecture: texts get other logits \
         there"
            .into()
    })
}

/// Blocks without rotary embeddings that llama.cpp would rotate, or the reverse.
fn unrotated(architecture: &Architecture, config: &Config) -> Option<String> {
    let unrotated = |layer: usize| config.rope_of(layer).is_none();
    let assumed = |layer: usize| match architecture.forward.unrotated {
        Unrotated::EveryLast(period) => !is_windowed(layer, period),
        Unrotated::Global => {
            architecture.gguf.windows.is_some_and(|windows| windows.in_models_of(config.layers))
                && unrotated(layer)
        }
        Unrotated::Always => true,
        // What says so is written.
        Unrotated::Never | Unrotated::Switched => {
            architecture.converter.writes(Key::Rotated) && unrotated(layer)
        }
    };
    config.rope.as_ref()?;
    let odd = (0..config.layers).find(|&layer| unrotated(layer) != assumed(layer))?;
    Some(match unrotated(odd) {
        true => format!("block {odd} has no rotary embedding"),
        false => format!("block {odd} has a rotary embedding"),
    })
}

/// What cannot be expressed of sliding windows.
fn windows(base: &Base, notes: &mut Vec<String>) -> Option<String> {
    let config: &Config = base.config();
    let Some(known) = base.architecture().gguf.windows else {
        if let Some(window) = config.window.filter(|&window| window < config.context) {
            notes.push(format!(
                "the model has a sliding window of {window} tokens, which llama.cpp ignores for its \
                 architecture: longer texts get other logits there"
            ));
        }
        return None;
    };
    let has_any = known.in_models_of(config.layers);
    let Some(window) = config.window else {
        if known.required {
            return Some("no block has a window, and llama.cpp needs their length".into());
        }
        let length = known.length.filter(|_| has_any)?;
        return Some(format!("no block has a window, and llama.cpp assumes one of {length}"));
    };
    if !has_any {
        notes.push(format!(
            "the model has a sliding window of {window} tokens, which llama.cpp ignores in models of {} \
             blocks of its architecture: texts get other logits there",
            config.layers
        ));
        return None;
    }
    if base.architecture().converter.writes(Key::WindowPattern) {
        return None;
    }
    let mut layers = config.windowed.iter().enumerate();
    let usual = layers.all(|(layer, &windowed)| windowed == is_windowed(layer, known.period));
    let every = known.period;
    (!usual).then(|| format!("the blocks with the window of {window} are not all but every {every}th"))
}
