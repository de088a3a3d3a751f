//! An open base model, as the modules above see it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use curmerge_formats::gguf::GgufModel;
use curmerge_formats::safetensors::SafeTensors;

use super::config::Config;
use super::onnx::OnnxModel;
use super::tensor::BaseTensor;
use crate::arch::{self, Activation, Architecture};
use crate::{Error, Result, hub};

/// The files that hold a model's tensors.
#[derive(Debug)]
pub enum Files {
    /// A GGUF file, or all files of a split one.
    Gguf(GgufModel),
    /// The safetensors files of a Hugging Face folder, sorted by name.
    HuggingFace(Vec<SafeTensors>),
    /// An ONNX file with its external data files.
    Onnx(Box<OnnxModel>),
}

/// What conversations with a model use in place of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct GivenChat {
    /// The text of a chat template.
    pub(crate) template: Option<String>,
    /// The system message of conversations that have none.
    pub(crate) system: Option<String>,
}

/// An open base model. [`Base::open`] makes one.
#[derive(Debug)]
pub struct Base {
    pub(super) path: PathBuf,
    pub(super) files: Files,
    pub(super) architecture: &'static Architecture,
    /// The architecture by GGUF's name, or by the container's if it is not known.
    pub(super) architecture_name: String,
    pub(super) config: Config,
    pub(super) tensors: BTreeMap<String, BaseTensor>,
    pub(super) notes: Vec<String>,
    pub(super) uncomputed: Option<(String, String)>,
    pub(super) given_chat: GivenChat,
}

impl Base {
    /// The nonlinearity of the feed-forward part: as llama.cpp has it for a GGUF file, and as transformers else.
    pub fn activation(&self) -> Activation {
        let theirs = self.architecture.gguf.activation.filter(|_| matches!(self.files, Files::Gguf(_)));
        theirs.unwrap_or_else(|| self.activation_in_transformers())
    }

    /// The nonlinearity of the feed-forward part in the folder that the model was made of, or that is made of it.
    pub fn activation_in_transformers(&self) -> Activation {
        let tanh = self.config.tanh_gelu.then_some(Activation::Gelu);
        tanh.unwrap_or(self.architecture.forward.activation)
    }

    /// The file or folder that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its files contradict each other, and what holds, one line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What conversations use in place of the model's own.
    pub(crate) fn given_chat(&self) -> &GivenChat {
        &self.given_chat
    }

    /// [`Self::given_chat`], to be set.
    pub(crate) fn given_chat_mut(&mut self) -> &mut GivenChat {
        &mut self.given_chat
    }

    /// What an output must not replace: the file or folder that was opened, and the other files of the model.
    pub fn inputs(&self) -> Vec<&Path> {
        let others: Vec<&Path> = match &self.files {
            Files::Gguf(model) => model.files().iter().map(|file| file.path()).collect(),
            Files::HuggingFace(_) => Vec::new(),
            Files::Onnx(model) => model.onnx().external_files().iter().map(|f| f.file.path()).collect(),
        };
        std::iter::once(self.path()).chain(others).collect()
    }

    /// The files that hold the tensors.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The table of the model's architecture; [`arch::UNKNOWN`] if it is not known.
    pub fn architecture(&self) -> &'static Architecture {
        self.architecture
    }

    /// The architecture by GGUF's name, or by the container's if it is not known.
    pub fn architecture_name(&self) -> &str {
        &self.architecture_name
    }

    /// Whether the model's architecture is known. An unknown one has tensors and nothing else.
    pub fn is_known(&self) -> bool {
        !self.architecture.name.is_empty()
    }

    /// The name of the method by which another program quantized matrices of a folder.
    pub fn quantized_by(&self) -> Option<&'static str> {
        self.tensors.values().find_map(|tensor| Some(tensor.quantized.as_ref()?.method))
    }

    /// [`Self::quantized_by`], if a model that is written of the base cannot keep the codes. Those of MXFP4 stay:
    /// GGUF files have the type, too, and they are experts', which no adapter changes.
    pub fn decoded_codes_of(&self) -> Option<&'static str> {
        let mut decoded = self.tensors.values().filter(|tensor| !tensor.is_mxfp4());
        decoded.find_map(|tensor| Some(tensor.quantized.as_ref()?.method))
    }

    /// Requires that the model can be run: a known architecture, and no setting that asks for other
    /// arithmetic.
    ///
    /// # Errors
    /// Those of [`Self::must_be_known`]; the key of such a setting.
    pub fn must_be_computed(&self) -> Result<()> {
        self.must_be_known()?;
        let mut ropes = self.config.rope.iter().chain(&self.config.local_rope);
        match ropes.find_map(|rope| rope.uncomputed.as_ref()).or(self.uncomputed.as_ref()) {
            None => Ok(()),
            Some((key, problem)) => {
                let help = "merge, convert and export --format gguf or peft still work";
                Err(Error::input(&self.path, key.clone(), problem.clone(), help))
            }
        }
    }

    /// Requires that another container can say what the model computes: no setting that is not known, nor files
    /// that contradict each other.
    ///
    /// # Errors
    /// The key of such a setting.
    pub fn must_be_expressible(&self) -> Result<()> {
        match &self.uncomputed {
            None => Ok(()),
            Some((key, problem)) => {
                Err(Error::input(&self.path, key.clone(), problem.clone(), "keep the model in its container"))
            }
        }
    }

    /// Whether it is a GGUF file with what llama.cpp puts before a language model, which all have one architecture.
    fn is_projector(&self) -> bool {
        self.architecture_name == "clip" && matches!(self.files, Files::Gguf(_))
    }

    /// Requires a known architecture, for callers that need more than tensors.
    ///
    /// # Errors
    /// The architecture is not known; the message lists those that are.
    pub fn must_be_known(&self) -> Result<()> {
        if self.is_known() {
            return Ok(());
        }
        let unknown = |problem: &str, help: &str| {
            let (problem, help) = (problem.into(), help.into());
            Err(Error::UnknownArchitecture { path: self.path.clone(), problem, help })
        };
        if self.architecture_name.is_empty() && matches!(self.files, Files::Onnx(_)) {
            let problem = "there is neither a config.json nor a genai_config.json beside it";
            let help = "put the model's config.json beside it";
            return unknown(problem, help);
        }
        if self.is_projector() {
            let problem = "it is the vision or audio part of a model (mmproj), not a language model";
            let help = "name the file of the language model; llama.cpp takes this one beside it (--mmproj)";
            return unknown(problem, help);
        }
        let problem = format!("'{}' is not known", self.architecture_name.escape_debug());
        let help = format!(
            "curmerge knows {} (`curmerge inspect --architectures` says more); of other models it can select, \
             merge, verify and export (for llama.cpp) matrices by their names",
            arch::known()
        );
        unknown(&problem, &help)
    }

    /// The model's dimensions and options.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The longest sequence that the model can read, in tokens. Only learned position embeddings set such a
    /// limit.
    pub fn max_tokens(&self) -> Option<usize> {
        (self.architecture.forward.positions == arch::Positions::Learned).then_some(self.config.context)
    }

    /// `gguf`, `safetensors` or `onnx`.
    pub fn container(&self) -> &'static str {
        match self.files {
            Files::Gguf(_) => "gguf",
            Files::HuggingFace(_) => "safetensors",
            Files::Onnx(_) => "onnx",
        }
    }

    /// The model's own name: `general.name` in GGUF, else its architecture. Never its path, which must not be
    /// written to an adapter.
    pub fn name(&self) -> String {
        let own = match &self.files {
            Files::Gguf(model) => model.first().get("general.name").and_then(|v| v.as_str()),
            Files::HuggingFace(_) | Files::Onnx(_) => None,
        };
        own.unwrap_or(&self.architecture_name).to_string()
    }

    /// The model's repository at Hugging Face (`owner/name`), if the file names it, or it is a folder in the Hub's
    /// cache.
    pub fn hugging_face_repository(&self) -> Option<String> {
        const HOST: &str = "https://huggingface.co/";
        let Files::Gguf(gguf) = &self.files else { return hub::repository_of(&self.path) };
        let keys = ["general.repo_url", "general.source.url", "general.base_model.0.repo_url"];
        let urls = keys.iter().filter_map(|key| gguf.first().get(key)?.as_str()?.strip_prefix(HOST));
        urls.map(|name| name.trim_end_matches('/').to_string())
            .find(|name| name.split('/').count() == 2 && !name.chars().any(char::is_control))
    }

    /// All tensors by canonical name. A tensor that the architecture does not name keeps its stored name.
    pub fn tensors(&self) -> &BTreeMap<String, BaseTensor> {
        &self.tensors
    }

    /// The stored bytes of a tensor: all of them for a tensor that joins several matrices, and only the codes
    /// for one that [is not plain](BaseTensor::is_plain).
    pub fn bytes(&self, tensor: &BaseTensor) -> &[u8] {
        self.stored_bytes(tensor.file, tensor.offset, tensor.bytes)
    }

    /// Refuses a file of this index that was changed or replaced since it was opened.
    pub(super) fn must_be_unchanged(&self, file: usize) -> Result<()> {
        match &self.files {
            Files::Gguf(model) => model.files()[file].file().unchanged()?,
            Files::HuggingFace(shards) => shards[file].file().unchanged()?,
            Files::Onnx(model) => model.must_be_unchanged(file)?,
        }
        Ok(())
    }

    /// Bytes of one of the model's files.
    pub(super) fn stored_bytes(&self, file: usize, offset: u64, bytes: u64) -> &[u8] {
        let file = match &self.files {
            Files::Gguf(model) => model.files()[file].bytes(),
            Files::HuggingFace(shards) => shards[file].bytes(),
            Files::Onnx(model) => model.bytes(file),
        };
        // Opening the container checked that every tensor lies within its file.
        &file[offset as usize..(offset + bytes) as usize]
    }
}
