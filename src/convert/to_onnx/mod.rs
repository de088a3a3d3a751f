//! A model as an ONNX graph that onnxruntime runs, with the inputs and outputs that optimum and
//! transformers.js expect.
//!
//! `decoder` builds the graph over any base, with `attention` in standard operators or `grouped` in
//! onnxruntime's own, `norms`, and `feed_forward` or `experts`, from its `modules` and a `builder`. The graph says only in which form it wants a
//! matrix; `plan` lays the files out, and `matrix` streams the values into them (`blocks` those of four
//! bits). Weights have Hugging Face's names, and nodes the paths of its modules.
//!
//! The operators are those of opset 14, which every onnxruntime since 2021 and onnxruntime-web implement, and
//! for four-bit matrices and for experts onnxruntime's own: MatMulNBits, MoE and QMoE. So are
//! short convolutions.

mod attention;
mod blocks;
mod builder;
mod decoder;
mod experts;
mod feed_forward;
mod genai;
mod grouped;
mod matrix;
mod modules;
mod norms;
mod options;
mod plan;
mod short_convolution;
mod transformers_js;

use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::output::{OutputFile, OutputFolder};
use serde_json::{Map, Value as Json};

use super::config_json::pretty;
use super::to_hugging_face::{companions, write_companions};
use super::{ConvertReport, of_longer_texts, onnx_companions};
use crate::Result;
use crate::base::folder::{CONFIG, Folder, GENAI_CONFIG, GENERATION_CONFIG};
use crate::base::quantized::SETTINGS_BESIDE;
use crate::base::{Base, Files, json};
use crate::rewrite::copy_companions;
use plan::Plan;
use transformers_js::{settings, with_settings};

pub(crate) use options::lora_inputs;
pub use options::{MODEL, OnnxOptions, OnnxType};

/// Files of a folder that configure its image processor.
const IMAGE_FILES: [&str; 2] = ["preprocessor_config.json", "processor_config.json"];
/// Keys that the config.json of a vision model may have beside `text_config`, and that hold for the language
/// model too.
const SHARED_KEYS: [&str; 8] = [
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "transformers.js_config",
];

/// Writes a base as one ONNX model, with `OUT_data` beside it if its weights exceed 2 GB or the options ask
/// for it. `progress` gets the stored bytes converted so far, and their total.
///
/// # Errors
/// Before anything is written: an architecture that the graph cannot express, a tensor that cannot be
/// decoded. Later: a value that the type cannot hold, a full disk. After an error, what was at `out` before
/// is unchanged.
pub fn to_onnx(
    base: &Base,
    out: impl AsRef<Path>,
    options: &OnnxOptions,
    mut progress: impl FnMut(u64, u64),
) -> Result<ConvertReport> {
    let out = out.as_ref();
    base.must_be_computed()?;
    let (graph, _) = decoder::decoder(base, options)?;
    let name = out.file_name().map(|name| format!("{}_data", name.to_string_lossy())).unwrap_or_default();
    let plan = Plan::new(graph, options, &name)?;
    let inputs = base.inputs();
    let mut paths = vec![out.to_path_buf()];
    if plan.is_external() {
        paths.insert(0, out.with_file_name(&name));
    }
    let mut files = OutputFile::create_together(&paths, &inputs)?;
    let (model, external) = (files.swap_remove(files.len() - 1), files.pop());
    let mut report = plan.write(&model, external.as_ref(), options, &mut progress)?;
    report.notes.extend(of_longer_texts(base.config()));
    model.commit_after(external)?;
    Ok(report)
}

/// Writes a base as a folder: [`MODEL`] with its configuration and tokenizer in transformers' form, made from
/// a GGUF file's metadata or copied from a folder.
///
/// # Errors
/// Those of [`to_onnx`]; a tokenizer or option of a GGUF file that transformers cannot express; an existing
/// folder.
pub fn to_onnx_folder(
    base: &Base,
    out: impl AsRef<Path>,
    options: &OnnxOptions,
    mut progress: impl FnMut(u64, u64),
) -> Result<ConvertReport> {
    let out = out.as_ref();
    base.must_be_computed()?;
    let (graph, own_head) = decoder::decoder(base, options)?;
    let external = format!("{MODEL}_data");
    let plan = Plan::new(graph, options, &external)?;
    let mut notes: Vec<String> = of_longer_texts(base.config()).into_iter().collect();
    let dtype = if options.file_type == OnnxType::F16 { DType::F16 } else { DType::F32 };
    let mut files = match base.files() {
        Files::Gguf(model) => companions(base, model, dtype, &mut notes)?,
        Files::HuggingFace(_) => {
            let mut config = Folder::new(base.path()).bytes(CONFIG)?.unwrap_or_default();
            if base.quantized_by().is_some()
                && let Ok(Json::Object(mut object)) = json::parse(&config)
            {
                object.remove("quantization_config");
                config = pretty(&object.into()).into();
            }
            vec![(CONFIG.into(), config)]
        }
        Files::Onnx(model) => onnx_companions::companions(base, model, dtype, own_head, &mut notes)?,
    };
    let mut vision = false;
    for (_, config) in files.iter_mut().filter(|(name, _)| name == Path::new(CONFIG)) {
        if let Some(text) = language_model(base, config) {
            (vision, *config) = (true, text);
            let files = IMAGE_FILES.join(" and ");
            notes.push(format!("only the language model is written, {files} are left behind"));
        }
        with_settings(config, &settings(options.file_type, plan.is_external()));
    }

    if options.genai {
        let of_file =
            |name: &str| files.iter().find(|(own, _)| own == Path::new(name)).map(|(_, bytes)| bytes.clone());
        let beside = || Folder::new(base.path()).bytes(GENERATION_CONFIG).ok().flatten();
        let generation = of_file(GENERATION_CONFIG).or_else(beside);
        let config = of_file(CONFIG).unwrap_or_default();
        let text = genai::config(base, &config, generation.as_deref(), &plan.model.graph)?;
        files.push((GENAI_CONFIG.into(), text.into()));
    }

    let folder = OutputFolder::create(out, &base.inputs(), options.force)?;
    let mut copied = Vec::new();
    if let Files::HuggingFace(_) = base.files() {
        let made: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
        copied = copy_companions(base.path(), &folder, |name| {
            made.iter().any(|own| own == name)
                || SETTINGS_BESIDE.iter().any(|file| base.quantized_by().is_some() && name == Path::new(file))
                || vision && IMAGE_FILES.iter().any(|file| name == Path::new(file))
        })?;
    }
    write_companions(&folder, files)?;
    let data = plan.is_external().then(|| folder.file(&external)).transpose()?;
    let model = folder.file(MODEL)?;
    let mut report = plan.write(&model, data.as_ref(), options, &mut progress)?;
    report.notes.extend(notes);
    report.companions = copied;
    model.commit_after(data)?;
    folder.commit()?;
    Ok(report)
}

/// The config.json of the language model within a vision model; `None` for a text model.
fn language_model(base: &Base, config: &[u8]) -> Option<Vec<u8>> {
    let whole: Map<String, Json> = json::parse(config).ok()?;
    let mut text = whole.get("text_config")?.as_object()?.clone();
    for key in SHARED_KEYS {
        if let (Some(value), None | Some(Json::Null)) = (whole.get(key), text.get(key)) {
            text.insert(key.into(), value.clone());
        }
    }
    let class = &base.architecture().hugging_face;
    text.insert("model_type".into(), class.model_type().into());
    text.insert("architectures".into(), vec![class.class].into());
    Some(pretty(&text.into()).into())
}
