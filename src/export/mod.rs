//! Exports adapters for other programs. Most load them beside the unchanged base; for Ollama they are merged
//! into it.

mod changes;
mod lora_gguf;
pub mod ollama;
mod onnx_adapter;
mod peft;
mod targets;
mod trained;

use std::path::Path;

pub use changes::relative_changes;
pub use trained::Trained;

use crate::base::Base;
use crate::merge::{BaseCheck, MergeOptions, Source};
use crate::{Error, Result};

/// The formats that an adapter can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A GGUF file for llama.cpp's --lora.
    Gguf,
    /// A folder for PEFT.
    Peft,
    /// A file for onnxruntime, for a base that was converted with LoRA inputs.
    OnnxAdapter,
    /// A file of curmerge's own, for a CURLoRA alone.
    Curmerge,
    /// A folder for `ollama create`: the merged model, and a Modelfile with its chat template. [`ollama`]
    /// says why the Modelfile has no ADAPTER line.
    Ollama,
}

impl Format {
    /// Every format.
    pub const ALL: &[Self] = &[Self::Gguf, Self::Peft, Self::OnnxAdapter, Self::Curmerge, Self::Ollama];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::Gguf => "gguf",
            Format::Peft => "peft",
            Format::OnnxAdapter => "onnx-adapter",
            Format::Curmerge => "curmerge",
            Format::Ollama => "ollama",
        }
    }

    /// The format of an adapter that the name of an output asks for. A name without an ending, one that ends in
    /// `/`, and an existing folder mean a folder for PEFT; `.gguf` and `.onnx_adapter` files of these kinds;
    /// any other ending curmerge's own.
    pub fn of_output(path: &Path) -> Self {
        let slash =
            path.as_os_str().as_encoded_bytes().last().is_some_and(|&b| std::path::is_separator(b.into()));
        match path.extension() {
            _ if slash || path.is_dir() => Self::Peft,
            None => Self::Peft,
            Some(ending) if ending.eq_ignore_ascii_case("gguf") => Self::Gguf,
            Some(ending) if ending.eq_ignore_ascii_case("onnx_adapter") => Self::OnnxAdapter,
            Some(_) => Self::Curmerge,
        }
    }
}

/// Refuses a matrix that the program of this format loads no LoRA for.
///
/// # Errors
/// There is one.
pub fn refuse_unloaded(base: &Base, trained: Trained<'_>, format: Format) -> Result<()> {
    let architecture = base.architecture();
    let unloaded = |name: &str| match format {
        // It multiplies without asking for a LoRA.
        Format::Gguf => architecture.is_without_lora(name).then_some("llama.cpp applies"),
        Format::Peft => {
            let module = base.to_hugging_face(name)?.0;
            let last = module.rsplit('.').next()?;
            architecture.hugging_face.without_lora.contains(&last).then_some("PEFT loads")
        }
        Format::OnnxAdapter | Format::Curmerge | Format::Ollama => None,
    };
    let targets = trained.targets();
    match targets.iter().find_map(|target| Some((unloaded(target.name())?, target.name()))) {
        None => Ok(()),
        Some((program, name)) => {
            let problem = format!("{program} no LoRA of '{name}' in {} models", architecture.name);
            Err(Error::request(
                problem,
                "merge the adapter instead, or train it without this matrix (--targets)",
            ))
        }
    }
}

/// The error of a LoRA in curmerge's own format.
pub fn no_cur(out: &Path) -> Error {
    let problem = "curmerge's own adapter holds a CURLoRA, and this is a LoRA";
    Error::input(out, "output", problem, "name a folder or a .gguf file")
}

/// Writes an adapter to `out`, which must be neither the base nor one of `inputs`. With `force` a folder
/// replaces an existing one. The model for Ollama keeps the base's types. [`ollama::write`] can also change
/// types, and returns a report.
///
/// Only names and shapes of the targets must fit the base. Check first with
/// [`fingerprint::check`](crate::cur::fingerprint::check) that the adapter was made on its values.
///
/// # Errors
/// A target that does not fit the base; those of [`curmerge_formats::output`]. After an error `out` is
/// unchanged.
pub fn export<'a>(
    base: &Base,
    trained: impl Into<Trained<'a>>,
    format: Format,
    out: impl AsRef<Path>,
    inputs: &[&Path],
    force: bool,
) -> Result<()> {
    let (out, trained) = (out.as_ref(), trained.into());
    refuse_unloaded(base, trained, format)?;
    let inputs = [inputs, &base.inputs()].concat();
    match format {
        Format::Gguf => lora_gguf::write(base, trained, out, &inputs),
        Format::Peft => peft::write(base, trained, out, &inputs, force),
        Format::OnnxAdapter => onnx_adapter::write(base, trained, out, &inputs),
        Format::Curmerge => match trained {
            Trained::Cur(adapter) => Ok(adapter.write(out, &inputs)?),
            Trained::Lora(_) => Err(no_cur(out)),
        },
        Format::Ollama => {
            let Trained::Cur(adapter) = trained else {
                let problem = "a model for Ollama is made of a CURLoRA adapter";
                return Err(Error::file(out, problem, "merge the LoRA with `curmerge merge`"));
            };
            let protect = inputs.iter().map(|path| path.to_path_buf()).collect();
            let options = MergeOptions { base_check: BaseCheck::Skip, force, protect, ..Default::default() };
            ollama::write(base, &[(Source::Cur(adapter), 1.0)], &options, out, |_, _| ()).map(drop)
        }
    }
}
