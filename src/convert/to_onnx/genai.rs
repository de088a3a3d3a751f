//! genai_config.json, the configuration of onnxruntime-genai: a model's dimensions, the names of its inputs
//! and outputs, its special tokens and its sampling.

use curmerge_formats::onnx::NewGraph;
use serde_json::{Map, Value as Json, json};

use super::options::MODEL;
use crate::base::{Base, json};
use crate::error::CallerOption;
use crate::{Error, Result};

/// The defaults of sampling that generation_config.json may override.
const SEARCH: &[(&str, f64)] =
    &[("temperature", 1.0), ("top_k", 50.0), ("top_p", 1.0), ("repetition_penalty", 1.0)];

/// `model.type` of a base.
///
/// # Errors
/// An architecture that onnxruntime-genai does not run.
pub(super) fn model_type(base: &Base) -> Result<&'static str> {
    let architecture = base.architecture();
    if let Some(name) = architecture.onnx.genai_type {
        return Ok(name);
    }
    let name = architecture.hugging_face.model_type();
    let problem = format!("curmerge writes no {name} models for onnxruntime-genai");
    let help = "make the model for onnxruntime itself";
    Err(Error::input(base.path(), "architecture", problem, help).avoidable(CallerOption::Genai))
}

/// The text of genai_config.json. Special tokens and sampling come from generation_config.json, or from
/// config.json.
pub(super) fn config(
    base: &Base,
    config: &[u8],
    generation: Option<&[u8]>,
    graph: &NewGraph,
) -> Result<String> {
    let parse = |text: &[u8]| json::parse::<Json>(text).unwrap_or_default();
    let (config, generation) = (parse(config), parse(generation.unwrap_or_default()));
    let said = |key: &str| {
        let own = [&generation, &config].into_iter().map(|json| &json[key]);
        own.into_iter().find(|value| !value.is_null()).cloned().unwrap_or(Json::Null)
    };
    let dimensions = base.config();
    let mut inputs = Map::new();
    for input in graph.inputs.iter().map(|input| &input.name).filter(|name| !name.contains('.')) {
        inputs.insert(input.clone(), input.clone().into());
    }
    inputs.insert("past_key_names".into(), "past_key_values.%d.key".into());
    inputs.insert("past_value_names".into(), "past_key_values.%d.value".into());
    let eos = said("eos_token_id");
    let end = eos.as_array().and_then(|list| list.first()).unwrap_or(&eos);
    // onnxruntime-genai refuses null: the end stands in for a token that the model does not have.
    let or_end = |key: &str| Some(said(key)).filter(|id| !id.is_null()).unwrap_or_else(|| end.clone());
    let mut tokens = vec![("bos_token_id", or_end("bos_token_id")), ("eos_token_id", eos.clone())];
    tokens.push(("pad_token_id", or_end("pad_token_id")));
    let mut search = Map::new();
    for &(key, usual) in SEARCH {
        let value = said(key).as_f64().unwrap_or(usual);
        search.insert(key.into(), if key == "top_k" { json!(value as i64) } else { json!(value) });
    }
    search.insert("do_sample".into(), said("do_sample").as_bool().unwrap_or(false).into());
    search.insert("min_length".into(), 0.into());
    search.insert("max_length".into(), dimensions.context.into());
    search.insert("num_beams".into(), 1.into());
    search.insert("past_present_share_buffer".into(), true.into());
    let mut json = json!({
        "model": {
            "type": model_type(base)?,
            "context_length": dimensions.context,
            "vocab_size": dimensions.vocab,
            "decoder": {
                "session_options": { "log_id": "onnxruntime-genai", "provider_options": [] },
                "filename": MODEL,
                "head_size": dimensions.head_dim,
                "hidden_size": dimensions.d_model,
                "num_attention_heads": dimensions.heads,
                "num_key_value_heads": dimensions.kv_heads,
                "num_hidden_layers": dimensions.layers,
                "inputs": inputs,
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": search,
    });
    if dimensions.convolutions.contains(&true) {
        let word = |convolves: &bool| if *convolves { "conv" } else { "full_attention" };
        let decoder = &mut json["model"]["decoder"];
        decoder["layer_types"] = dimensions.convolutions.iter().map(word).collect();
        decoder["conv_cache_size"] = dimensions.convolution_taps.saturating_sub(1).into();
        decoder["inputs"]["past_conv_names"] = "past.%d.conv".into();
        decoder["outputs"]["present_conv_names"] = "present.%d.conv".into();
    }
    for (key, id) in tokens.into_iter().filter(|(_, id)| !id.is_null()) {
        json["model"][key] = id;
    }
    Ok(format!("{json:#}\n"))
}
