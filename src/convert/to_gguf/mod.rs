//! Converts a Hugging Face folder, or an ONNX model with the files beside it, into the GGUF file that
//! llama.cpp's convert_hf_to_gguf.py writes: the same keys in the same order, the same tensors, the same
//! bytes.
//!
//! The reference is the converter of llama.cpp 11434 (October 2026) with transformers 5, which reads its
//! tokenizers. For the types f32, f16, bf16 and q8_0 the file equals the converter's with that `--outtype`;
//! without a type, that of its `auto`. For any other type it equals what llama-quantize makes from the
//! converter's F32 file. Both programs can write Q8_0, with equal tensors but another order of keys and
//! tensors; here it is the converter's.
//!
//! What differs between architectures is in
//! [`Architecture::converter`](crate::arch::Architecture::converter).

mod chat_templates;
mod general;
mod hub_tokenizer;
mod hyperparameters;
mod keys;
mod model_name;
mod numbers;
mod pre_tokenizer;
mod rope;
mod sentencepiece;
mod special_tokens;
mod tensors;
mod unsupported;
mod vocabulary;

use std::path::{Path, PathBuf};

use curmerge_formats::gguf::{GgufLayout, Value};
use curmerge_formats::imatrix::Imatrix;
use curmerge_formats::output::{OutputFile, Piece, Pieces};

use super::onnx_companions;
use super::retype::{self, QUANTIZATION_VERSION};
use super::{ConvertReport, FileType};
use crate::arch::{Converter, RopeType};
use crate::base::folder::{self, Folder, Object};
use crate::base::{Base, Config, Files};
use crate::chat::templates;
use crate::rewrite::{ComputedTensors, Hooks, Writer};
use crate::{Error, Result};
use keys::Keys;
pub(super) use rope::{ATTENTION_FACTOR, YARN, YARN_OPTIONS};
use serde_json::Value as Json;

/// The GGUF format that is written, and the alignment of its tensors.
const VERSION: u32 = 3;
const ALIGNMENT: u64 = 32;

/// How to convert a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The types to store it in. Default: `None`, which keeps the folder's type, except that F32 becomes F16.
    pub file_type: Option<FileType>,
    /// Weights of the columns' rounding errors. Default: `None`, all alike.
    pub imatrix: Option<&'a Imatrix>,
}

/// Writes the Hugging Face folder or ONNX model `base` to `out`, and returns the types that it chose.
/// `progress` gets the stored bytes converted so far, and their total. `out` must be neither in `protect` nor
/// a file of the folder.
///
/// # Errors
/// Before anything is written: missing or malformed files of the folder; an unknown kind of vocabulary, a
/// pre-tokenizer that llama.cpp has no name for; tensors that are not part of the architecture or cannot be
/// decoded; a type that needs an importance matrix, without one. Later: a value that a type cannot hold, a
/// full disk. After an error, what was at `out` before is unchanged.
pub fn to_gguf(
    base: &Base,
    options: &Options<'_>,
    out: impl AsRef<Path>,
    protect: &[PathBuf],
    mut progress: impl FnMut(u64, u64),
) -> Result<(FileType, ConvertReport)> {
    let out = out.as_ref();
    let configuration = onnx_companions::configuration_of(base)?;
    let folder = match (base.files(), &configuration) {
        (Files::Onnx(model), Some(config)) => Folder::with_config(model.folder(), config),
        _ => Folder::new(base.path()),
    };
    if !base.is_known() || matches!(base.files(), Files::Gguf(_)) {
        let problem = "not a Hugging Face folder or ONNX model of a known architecture";
        return Err(Error::input(
            base.path(),
            "architecture",
            problem,
            "use convert_hf_to_gguf.py of llama.cpp",
        ));
    }
    base.must_be_expressible()?;
    let architecture = base.architecture();
    let converter = &architecture.converter;
    let mut report = ConvertReport::default();
    let json = language_model(folder.object(folder::CONFIG)?.unwrap_or_default());
    let config = base.config();
    unsupported::check(base, folder, &json, &mut report.notes)?;
    report.notes.extend(crate::convert::config_json::activation_note(base));
    let own_head = converter.writes_head && onnx_companions::has_own_head(base, &json)?;
    let mut tensors = tensors::of(base, rope_tensors(converter, config, &json), own_head)?;
    let size = tensors::size(&tensors);
    let file_type = options.file_type.unwrap_or_else(|| tensors::guess(&tensors));

    let mut keys = Keys::default();
    keys.text("general.architecture", architecture.name);
    // The converter writes this key when it makes the tensors of factors, before all others.
    if let Some(rope) = config.rope.as_ref().filter(|rope| rope.long.is_some()) {
        let key = format!("{}.rope.scaling.attn_factor", architecture.name);
        keys.set(key, Value::F32(rope.amplitude as f32));
    }
    // As are the arrays in place of tensors, when it has seen the last tensor of each.
    numbers::set(&mut keys, base)?;
    keys.text("general.type", "model");
    general::set(&mut keys, folder, &json, size, &mut report.notes)?;
    let experts_are_mxfp4 = tensors.iter().any(tensors::Tensor::is_mxfp4);
    let by_experts = experts_are_mxfp4 && matches!(file_type, FileType::F32 | FileType::F16 | FileType::BF16);
    let named = if by_experts { FileType::MXFP4_MOE } else { file_type };
    hyperparameters::set(&mut keys, architecture, config, &json, named.id());
    keys.set("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
    vocabulary::set(&mut keys, folder, converter, config.vocab, &mut report.notes)?;
    let mut metadata = keys.into_inner();
    if let Some(source) = &base.given_chat().template {
        templates::set_in_metadata(&mut metadata, source);
    }

    if !tensors::converter_writes(file_type) {
        tensors::sort(&mut tensors);
    }
    let headers = |tensors: &[tensors::Tensor<'_>]| tensors.iter().map(|tensor| tensor.header()).collect();
    let planned = GgufLayout::new(VERSION, ALIGNMENT, &metadata, headers(&tensors))?;
    let get = |key: &str| metadata.iter().find(|(known, _)| known == key).map(|(_, value)| value);
    let note = tensors::set_types(&mut tensors, planned.tensors(), &get, file_type, options.imatrix)?;
    report.notes.extend(note);
    if !tensors::converter_writes(file_type) {
        metadata = retype::metadata(metadata, file_type);
    }
    let layout = GgufLayout::new(VERSION, ALIGNMENT, &metadata, headers(&tensors))?;

    let inputs: Vec<&Path> = base.inputs().into_iter().chain(protect.iter().map(PathBuf::as_path)).collect();
    report.bytes_before = tensors.iter().map(tensors::Tensor::stored_bytes).sum();
    layout.tensors().iter().for_each(|place| report.count(place.dtype, place.bytes));
    let (mut new, mut placed, mut total) = (ComputedTensors::default(), Vec::new(), 0);
    for (tensor, place) in tensors.iter().zip(layout.tensors()) {
        let indices = new.push(tensor, tensor.parts().len());
        let own = tensor.pieces(place.offset, indices);
        if own.iter().any(|(_, piece)| matches!(piece, Piece::Computed { .. })) {
            total += tensor.stored_bytes();
        }
        placed.extend(own);
    }
    let pieces = Pieces::laid_out(layout.header(), placed, layout.file_bytes());
    let mut read = 0;
    let hooks = Hooks {
        confirm: None,
        done: &mut |tensor: &&tensors::Tensor<'_>, ()| {
            read += tensor.stored_bytes();
            progress(read, total);
        },
    };
    let file = OutputFile::create(out, &inputs)?;
    Writer::new(&new, hooks).write(&pieces, &file)?;
    file.commit()?;
    Ok((file_type, report))
}

/// The keys of config.json; in that of a vision model, the language model's keys take precedence.
fn language_model(mut json: Object) -> Object {
    if let Some(Json::Object(text)) = json.remove("text_config") {
        json.extend(text);
    }
    json
}

/// The tensors of RoPE scaling.
fn rope_tensors(converter: &Converter, config: &Config, json: &Object) -> Vec<(&'static str, Vec<f32>)> {
    let Some(rope) = &config.rope else { return Vec::new() };
    let single = |factors: &[f64]| factors.iter().map(|&factor| factor as f32).collect();
    if let (Some(short), Some(long)) = (&rope.factors, &rope.long) {
        return vec![
            ("rope_factors_long.weight", single(&long.factors)),
            ("rope_factors_short.weight", single(short)),
        ];
    }
    if converter.rope_types.contains(&RopeType::Proportional) {
        return rope.factors.iter().map(|factors| ("rope_freqs.weight", single(factors))).collect();
    }
    let factors = rope::llama3_factors(json, rope.base, config.head_dim)
        .filter(|_| converter.rope_types.contains(&RopeType::Llama3));
    factors.into_iter().map(|factors| ("rope_freqs.weight", factors)).collect()
}
