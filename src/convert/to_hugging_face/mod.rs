//! Converts a GGUF or ONNX model into a Hugging Face folder that transformers loads, with the same tokens and
//! logits.
//!
//! `config_json` makes config.json from GGUF's keys. `weights` stores every tensor under transformers'
//! name and in the layout of its class. `tokenizer` writes the vocabulary for the `tokenizers` library, and
//! `sentencepiece` its scores. Everything that can be refused is refused before anything is written; the
//! folder appears as a whole.

mod experts;
mod merges;
mod numbers;
mod pre_tokenizers;
mod sentencepiece;
mod tokenizer;
mod weights;

use std::path::{Path, PathBuf};

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{Gguf, GgufModel};
use curmerge_formats::output::OutputFolder;

use super::config_json::{self, Tokens, pretty};
use super::{ConvertReport, onnx_companions};
use crate::base::folder;
use crate::base::{Base, Files};
use crate::chat::templates;
use crate::{Error, Result};

pub(super) use weights::Rounding;
pub use weights::natural_type;

/// The default of [`FolderOptions::max_shard_size`].
pub const MAX_SHARD_SIZE: u64 = 5_000_000_000;

/// How to write the folder.
#[derive(Clone, Debug, Default)]
pub struct FolderOptions {
    /// F32, F16 or BF16. Default: `None`, the result of [`natural_type`].
    pub dtype: Option<DType>,
    /// Upper limit of the bytes of tensors in one file. Default: `None`, [`MAX_SHARD_SIZE`].
    pub max_shard_size: Option<u64>,
    /// Whether to replace an existing folder. Default: false.
    pub force: bool,
}

/// Writes the model of a GGUF or ONNX file as a Hugging Face folder; the tokenizer files of an ONNX model are
/// copied. `progress` gets the stored bytes converted so far, and their total.
///
/// # Errors
/// Before anything is written: a base that is already a folder, a type other than the three, a tensor,
/// tokenizer or RoPE scaling that transformers' model cannot express. Later: a value that the type cannot
/// hold, a full disk. After an error, what was at `out` before is unchanged.
pub fn to_hugging_face(
    base: &Base,
    out: impl AsRef<Path>,
    options: &FolderOptions,
    mut progress: impl FnMut(u64, u64),
) -> Result<ConvertReport> {
    let out = out.as_ref();
    if let Files::HuggingFace(_) = base.files() {
        let problem = "it is already a Hugging Face folder";
        return Err(Error::file(base.path(), problem, "name a GGUF or ONNX file"));
    }
    let dtype = options.dtype.unwrap_or_else(|| natural_type(base));
    if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        let problem = format!("a Hugging Face folder is not stored as {dtype}");
        return Err(Error::request(problem, "use f32, f16 or bf16, or convert into a GGUF file"));
    }
    base.must_be_expressible()?;
    let mut report = ConvertReport::default();
    let own_head = match onnx_companions::configuration_of(base)? {
        Some(config) => onnx_companions::has_own_head(base, &config)?,
        None => true,
    };
    let limit = options.max_shard_size.unwrap_or(MAX_SHARD_SIZE);
    let weights = weights::Plan::new(base, dtype, limit, own_head)?;
    let companions = match base.files() {
        Files::Gguf(model) => {
            report.notes.extend(config_json::window_note(base, model.first()));
            report.notes.extend(config_json::activation_note(base));
            report.notes.extend(config_json::class_note(base));
            companions(base, model, dtype, &mut report.notes)?
        }
        Files::Onnx(model) => onnx_companions::companions(base, model, dtype, own_head, &mut report.notes)?,
        Files::HuggingFace(_) => Vec::new(),
    };

    let folder = OutputFolder::create(out, &base.inputs(), options.force)?;
    weights.write(&folder, &mut report, &mut progress)?;
    write_companions(&folder, companions)?;
    let given = base.given_chat().template.as_deref();
    given.map_or(Ok(()), |source| templates::set_in_folder(&folder, source))?;
    folder.commit()?;
    Ok(report)
}

/// The names and contents of the files beside the weights, which have this type.
///
/// # Errors
/// A tokenizer, an option or a RoPE scaling that transformers' model cannot express.
pub(super) fn companions(
    base: &Base,
    model: &GgufModel,
    dtype: DType,
    notes: &mut Vec<String>,
) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let gguf = model.first();
    let words = base.tokenizer()?;
    let tokens = Tokens::of_gguf(base.path(), gguf, &words)?;
    let mut files: Vec<(PathBuf, Vec<u8>)> = vec![
        (
            folder::CONFIG.into(),
            pretty(&config_json::config(base, Some(gguf), dtype, &tokens)?.into()).into(),
        ),
        (folder::GENERATION_CONFIG.into(), config_json::generation(&tokens).into()),
        (folder::TOKENIZER.into(), tokenizer::library(base.path(), &words, notes)?.into()),
        (folder::TOKENIZER_CONFIG.into(), tokenizer::settings(base, gguf, &words, &tokens).into()),
    ];
    files.extend(
        sentencepiece::model(gguf, &words, &tokens).map(|model| (folder::SENTENCEPIECE.into(), model)),
    );
    files.extend(templates(gguf, notes).into_iter().map(|(name, text)| (name, text.into())));
    Ok(files)
}

/// Writes files with these names and contents into a folder.
pub(super) fn write_companions(folder: &OutputFolder, files: Vec<(PathBuf, Vec<u8>)>) -> Result<()> {
    for (name, bytes) in files {
        folder.write(name, &bytes)?;
    }
    Ok(())
}

/// The files of the chat templates: the model's own, and those with names.
fn templates<'a>(gguf: &'a Gguf, notes: &mut Vec<String>) -> Vec<(PathBuf, &'a str)> {
    let mut found = Vec::new();
    for (key, value) in gguf.metadata() {
        let (Some(rest), Some(text)) = (key.strip_prefix("tokenizer.chat_template"), value.as_str()) else {
            continue;
        };
        let name = rest.strip_prefix('.').unwrap_or(rest);
        // The template's name becomes that of a file.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if rest.is_empty() {
            found.push((folder::CHAT_TEMPLATE.into(), text));
        } else if rest.starts_with('.') && (1..=64).contains(&name.len()) && name.chars().all(plain) {
            found.push((folder::additional_chat_template(name), text));
        } else {
            notes.push(format!("{key} was left out: its name cannot be a file name"));
        }
    }
    found
}
