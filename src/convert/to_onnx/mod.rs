//! A model as an ONNX graph that onnxruntime runs, with the inputs and outputs that optimum and transformers.js expect.
//!
//! [`decoder`] builds the graph over any base ([`attention`] a part of it) with a [`builder`]; of matrices it says only in
//! which form they are wanted, and [`matrix`] streams their values into the file ([`blocks`] those of four bits). Weights
//! have Hugging Face's names, and nodes the paths of its modules.
//!
//! The operators are those of opset 14, which every onnxruntime since 2021 and onnxruntime-web have, and for four-bit
//! matrices MatMulNBits, onnxruntime's own.

mod attention;
mod blocks;
mod builder;
mod decoder;
mod genai;
mod grouped;
mod matrix;

use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::onnx::{ElementType, NewOnnx, NewOnnxTensor, OnnxLayout};
use curmerge_formats::output::{OutputFile, OutputFolder};
use serde_json::{Map, Value as Json};

use super::to_hugging_face::{Rounding, class, companions, pretty, write_companions};
use super::{ConvertReport, FileType, onnx_companions};
use crate::base::folder::{CONFIG, Folder, GENAI_CONFIG, GENERATION_CONFIG};
use crate::base::{Base, Files};
use crate::merge::carry_companions;
use crate::{Error, Result};
use builder::{Builder, MICROSOFT};
use matrix::{Form, Sinks, Source};

/// The version of the standard operators, and that of ONNX's file format.
const OPSET: i64 = 14;
const IR_VERSION: i64 = 8;
/// The model within a folder.
pub const MODEL: &str = "model.onnx";

/// What a folder has for images.
const OF_IMAGES: [&str; 2] = ["preprocessor_config.json", "processor_config.json"];
/// What the config.json of a model that also sees may say beside its language model's part, of that too.
const OF_BOTH: [&str; 8] = [
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "transformers.js_config",
];

/// What the matrices of an ONNX model are stored in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnnxType {
    /// FLOAT throughout.
    #[default]
    F32,
    /// Matrices, products and caches in FLOAT16.
    F16,
    /// Matrices but the embedding in blocks of 32 four-bit numbers around zero, as Q4_0 has them; the rest in FLOAT.
    Q4_0,
    /// Likewise, each block with a zero of its own.
    Q4_1,
}

/// How to write the model.
#[derive(Clone, Debug, Default)]
pub struct OnnxOptions {
    /// What matrices are stored in.
    pub file_type: OnnxType,
    /// Whether the weights go into a file beside the model also where one file could hold them.
    pub external_data: bool,
    /// Whether the model is for onnxruntime-genai: attention in the one operator GroupQueryAttention, without
    /// `position_ids`; a folder then has genai_config.json.
    pub genai: bool,
    /// Matrices beside which the model has inputs for a LoRA, in words of `--targets`.
    pub lora_inputs: Option<String>,
    /// Replace a folder that stands.
    pub force: bool,
}

/// The inputs for the LoRA of a module: A `[in, rank]` and B `[rank, out]`.
pub(crate) fn lora_inputs(module: &str) -> [String; 2] {
    ["lora_A", "lora_B"].map(|part| format!("{module}.{part}.weight"))
}

impl OnnxType {
    /// The type of this name.
    ///
    /// # Errors
    /// A type that ONNX models by curmerge have not.
    pub fn of(file_type: FileType) -> Result<Self> {
        match file_type {
            FileType::F32 => Ok(OnnxType::F32),
            FileType::F16 => Ok(OnnxType::F16),
            FileType::Q4_0 => Ok(OnnxType::Q4_0),
            FileType::Q4_1 => Ok(OnnxType::Q4_1),
            other => {
                let problem = format!("an ONNX model is not stored as {other}");
                Err(Error::request(problem, "use --type f32, f16, q4_0 or q4_1"))
            }
        }
    }

    /// What products are computed in.
    fn products(self) -> ElementType {
        if self == OnnxType::F16 { ElementType::FLOAT16 } else { ElementType::FLOAT }
    }

    /// Of types of four bits, whether each block has a zero of its own.
    fn blocks(self) -> Option<bool> {
        match self {
            OnnxType::F32 | OnnxType::F16 => None,
            OnnxType::Q4_0 => Some(false),
            OnnxType::Q4_1 => Some(true),
        }
    }
}

impl std::fmt::Display for OnnxType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Write a base as one ONNX model, with `OUT_data` beside it where its weights pass 2 GB or are wanted there. `progress`
/// is told how many stored bytes of how many were converted.
///
/// # Errors
/// Before anything is written: an architecture that the graph has no form for, a tensor that cannot be decoded. Later: a
/// value that the type cannot hold, a full disk. After an error nothing stands at `out` that did not before.
pub fn to_onnx(
    base: &Base,
    out: &Path,
    options: &OnnxOptions,
    mut progress: impl FnMut(u64, u64),
) -> Result<ConvertReport> {
    let (graph, _) = decoder::decoder(base, options)?;
    let name = out.file_name().map(|name| format!("{}_data", name.to_string_lossy())).unwrap_or_default();
    let plan = Plan::new(graph, options, &name)?;
    let inputs = base.inputs();
    let model = OutputFile::create(out, &inputs)?;
    let external = match plan.is_external() {
        true => Some(OutputFile::create(&out.with_file_name(&name), &inputs)?),
        false => None,
    };
    let report = plan.write(&model, external.as_ref(), options, &mut progress)?;
    model.commit_behind(external)?;
    Ok(report)
}

/// Write a base as a folder: [`MODEL`] with its configuration and tokenizer as transformers has them, made of a GGUF
/// file's metadata or carried along from a folder.
///
/// # Errors
/// Those of [`to_onnx`]; a tokenizer or option of a GGUF file that transformers has no form for; a folder that stands.
pub fn to_onnx_folder(
    base: &Base,
    out: &Path,
    options: &OnnxOptions,
    mut progress: impl FnMut(u64, u64),
) -> Result<ConvertReport> {
    let (graph, own_head) = decoder::decoder(base, options)?;
    let external = format!("{MODEL}_data");
    let plan = Plan::new(graph, options, &external)?;
    let mut notes = Vec::new();
    let dtype = if options.file_type == OnnxType::F16 { DType::F16 } else { DType::F32 };
    let mut files = match base.files() {
        Files::Gguf(model) => companions(base, model, dtype, &mut notes)?,
        Files::HuggingFace(_) => {
            let config = Folder::new(base.path()).bytes(CONFIG)?.unwrap_or_default();
            vec![(CONFIG.into(), config)]
        }
        Files::Onnx(model) => onnx_companions::companions(base, model, dtype, own_head, &mut notes)?,
    };
    let mut sees = false;
    for (_, config) in files.iter_mut().filter(|(name, _)| name == Path::new(CONFIG)) {
        if let Some(text) = language_model(base, config) {
            (sees, *config) = (true, text);
            let files = OF_IMAGES.join(" and ");
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
    if let Files::HuggingFace(_) = base.files() {
        let made: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
        notes.extend(carry_companions(base.path(), &folder, |name| {
            made.iter().any(|own| own == name) || sees && OF_IMAGES.iter().any(|file| name == Path::new(file))
        })?);
    }
    write_companions(&folder, files)?;
    let data = plan.is_external().then(|| folder.file(&external)).transpose()?;
    let model = folder.file(MODEL)?;
    let mut report = plan.write(&model, data.as_ref(), options, &mut progress)?;
    report.notes.extend(notes);
    model.commit_behind(data)?;
    folder.commit()?;
    Ok(report)
}

/// What transformers.js should know: that the one model there is has the plain name, the type of its cache, and whether
/// there is an external file.
fn settings(file_type: OnnxType, external: bool) -> Map<String, Json> {
    let mut settings = Map::new();
    settings.insert("dtype".into(), "fp32".into());
    if file_type == OnnxType::F16 {
        settings.insert("kv_cache_dtype".into(), "float16".into());
    }
    if external {
        settings.insert("use_external_data_format".into(), true.into());
    }
    settings
}

/// The config.json of the language model within one that also sees, as the one of a text model.
fn language_model(base: &Base, config: &[u8]) -> Option<Vec<u8>> {
    let whole: Map<String, Json> = serde_json::from_slice(config).ok()?;
    let mut text = whole.get("text_config")?.as_object()?.clone();
    for key in OF_BOTH {
        if let (Some(value), None | Some(Json::Null)) = (whole.get(key), text.get(key)) {
            text.insert(key.into(), value.clone());
        }
    }
    let name = base.architecture().hugging_face.first()?;
    text.insert("model_type".into(), (*name).into());
    if let Some(class) = class(base.architecture()) {
        text.insert("architectures".into(), vec![class].into());
    }
    Some(pretty(&text.into()).into())
}

/// Gives a config.json the settings of transformers.js: where it has some, in place of those of the same names and of none
/// that [`settings`] leaves out; else at the end, and nothing else of the text changes.
fn with_settings(config: &mut Vec<u8>, settings: &Map<String, Json>) {
    const KEY: &str = "transformers.js_config";
    const OWN: [&str; 3] = ["dtype", "kv_cache_dtype", "use_external_data_format"];
    let Ok(mut json) = serde_json::from_slice::<Map<String, Json>>(config) else { return };
    if let Some(standing) = json.get_mut(KEY) {
        let mut members = standing.as_object().cloned().unwrap_or_default();
        members.retain(|name, _| !OWN.contains(&name.as_str()));
        members.extend(settings.clone());
        *standing = members.into();
        *config = pretty(&json.into()).into();
        return;
    }
    let Some(end) = config.iter().rposition(|&byte| byte == b'}') else { return };
    let before = config[..end].trim_ascii_end().len();
    let comma = if json.is_empty() { "" } else { "," };
    let member = format!("{comma}\n  \"{KEY}\": {}\n", Json::from(settings.clone()));
    config.splice(before..end, member.into_bytes());
}

/// A model that is ready to be written.
struct Plan<'a> {
    model: NewOnnx,
    matrices: Vec<(usize, matrix::Matrix<'a>)>,
    layout: OnnxLayout,
}

impl<'a> Plan<'a> {
    /// With `external` as the name of the file beside the model, if it needs one.
    fn new(builder: Builder<'a>, options: &OnnxOptions, external: &str) -> Result<Self> {
        let mut opsets = vec![(String::new(), OPSET)];
        if builder.graph.nodes.iter().any(|node| node.domain == MICROSOFT) {
            opsets.push((MICROSOFT.into(), 1));
        }
        let model = NewOnnx {
            ir_version: IR_VERSION,
            producer: ("curmerge".into(), env!("CARGO_PKG_VERSION").into()),
            opsets,
            metadata: Vec::new(),
            graph: builder.graph,
        };
        let layout = match OnnxLayout::new(&model, None) {
            Ok(layout) if !options.external_data => layout,
            // Too large for one file.
            _ => OnnxLayout::new(&model, Some(external))?,
        };
        Ok(Plan { model, matrices: builder.matrices, layout })
    }

    fn is_external(&self) -> bool {
        self.layout.external_bytes() > 0
    }

    /// Writes all of the files, which are still to be committed.
    fn write(
        &self,
        model: &OutputFile,
        external: Option<&OutputFile>,
        options: &OnnxOptions,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<ConvertReport> {
        let mut report = ConvertReport {
            bytes_before: self.matrices.iter().map(|(_, matrix)| matrix.stored_bytes()).sum(),
            bytes_after: self.layout.places().iter().map(|place| place.bytes).sum(),
            ..Default::default()
        };
        for (offset, bytes) in self.layout.frame() {
            model.write_all_at(offset, bytes)?;
        }
        let sinks = Sinks { model, external };
        let (mut read, mut rounding) = (0, Rounding::default());
        for (first, matrix) in &self.matrices {
            let moved = matrix.write(&self.layout.places()[*first..], &sinks)?;
            if let Source::Angles(_) = matrix.source {
                continue;
            }
            rounding = rounding.and(moved);
            read += matrix.stored_bytes();
            progress(read, report.bytes_before);
            let name = match matrix.form {
                Form::Blocks { .. } => options.file_type.to_string(),
                Form::Rows(element) | Form::Columns(element) => {
                    element.dtype().map_or("", DType::name).into()
                }
            };
            *report.types.entry(name).or_default() += 1;
        }
        let vectors = self.model.graph.initializers.iter();
        // Neither constants of the graph nor the places for a LoRA.
        let own = |tensor: &&NewOnnxTensor| !tensor.name.starts_with('/') && !tensor.dims.contains(&0);
        let vectors = vectors.filter(|tensor| tensor.values.is_some()).filter(own);
        for vector in vectors {
            *report.types.entry(vector.element.dtype().map_or("", DType::name).into()).or_default() += 1;
        }
        report.notes.extend(rounding.note(options.file_type));
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_stand_at_the_end_of_a_configuration_without() {
        let with = |config: &str| {
            let mut config = config.as_bytes().to_vec();
            with_settings(&mut config, &settings(OnnxType::F32, false));
            String::from_utf8(config).unwrap()
        };
        let right = "{\n  \"a\": {},\n  \"transformers.js_config\": {\"dtype\":\"fp32\"}\n}\n";
        assert_eq!(with("{\n  \"a\": {}\n}\n"), right);
        assert_eq!(with("{ }"), "{\n  \"transformers.js_config\": {\"dtype\":\"fp32\"}\n}");
        assert_eq!(with("no JSON }"), "no JSON }");
    }

    #[test]
    fn settings_stand_in_place_of_others() {
        let with = |standing: Json, settings: Map<String, Json>| -> Json {
            let mut config =
                json!({ "a": 1e-5, "transformers.js_config": standing }).to_string().into_bytes();
            with_settings(&mut config, &settings);
            let config: Json = serde_json::from_slice(&config).unwrap();
            assert_eq!(config["a"], 1e-5);
            config["transformers.js_config"].clone()
        };
        // SmolLM2's own.
        let standing = json!({ "kv_cache_dtype": { "fp16": "float16" } });
        let half = json!({ "dtype": "fp32", "kv_cache_dtype": "float16", "use_external_data_format": true });
        assert_eq!(with(standing.clone(), settings(OnnxType::F16, true)), half);
        assert_eq!(with(standing, settings(OnnxType::F32, false)), json!({ "dtype": "fp32" }));
        let standing = json!({ "use_external_data_format": true, "device": "webgpu", "dtype": "q4" });
        let right = json!({ "device": "webgpu", "dtype": "fp32" });
        assert_eq!(with(standing, settings(OnnxType::Q4_0, false)), right);
        assert_eq!(with(json!(null), settings(OnnxType::Q4_0, false)), json!({ "dtype": "fp32" }));
    }
}
