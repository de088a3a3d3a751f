//! Opening a base model, whatever its container.

use std::path::{Path, PathBuf};

use curmerge_formats::detect::{Container, detect};

use super::model::{Base, Files, GivenChat};
use super::opened::Opened;
use super::{gguf, hugging_face, ollama, onnx};
use crate::{Error, Result};

/// The file or folder that a name on the command line stands for: for `ollama:NAME[:TAG]` the blob in
/// Ollama's store, for a folder whose only weights are one ONNX file that file, else the path itself.
///
/// # Errors
/// A name that Ollama's store does not have; a folder with several ONNX files and no other weights.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    onnx::file_in(ollama::resolve(path)?)
}

impl Base {
    /// Opens a model: a GGUF file (of a split model the first), a Hugging Face folder, an ONNX file with its
    /// configuration beside it, a folder with one such file, or `ollama:NAME[:TAG]`. Its content decides
    /// which it is.
    ///
    /// ```
    /// # fn main() -> curmerge::Result<()> {
    /// let base = curmerge::base::Base::open("fixtures/demo/model.gguf")?;
    /// let query = base.weight("blk.0.attn_q")?;
    /// assert_eq!(query.rows(), base.config().heads * base.config().head_dim);
    /// assert_eq!(query.cols(), base.config().d_model);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Nothing to open at this path; an architecture that is not known; a tensor that is missing, unknown, or
    /// of another shape than the configuration says; a damaged file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let base = Self::open_any(path)?;
        base.must_be_known()?;
        Ok(base)
    }

    /// Opens a model whose architecture need not be known. If it is not, the base has tensors under the names
    /// that its container gives them, and nothing else.
    ///
    /// # Errors
    /// Those of [`Self::open`], but for an architecture that is not known.
    pub fn open_any(path: impl AsRef<Path>) -> Result<Self> {
        let path = resolve(path.as_ref())?;
        let refuse = |problem: &str, help: &str| Err(Error::input(&path, "container", problem, help));
        let base = match detect(&path)? {
            Container::Gguf => Self::of(&path, gguf::open(&path)?, Files::Gguf),
            Container::HfFolder => Self::of(&path, hugging_face::open(&path)?, Files::HuggingFace),
            Container::Onnx => Self::of(&path, onnx::open(&path)?, |model| Files::Onnx(Box::new(model))),
            Container::SafeTensors => {
                return refuse(
                    "a safetensors file alone has no configuration and no tokenizer",
                    "name the Hugging Face folder that holds it together with config.json and tokenizer.json",
                );
            }
            Container::Unknown => {
                return refuse(
                    "neither a GGUF or ONNX file nor a Hugging Face folder",
                    "name a .gguf or .onnx file, or a folder with config.json and model.safetensors",
                );
            }
        };
        if base.is_known() {
            base.check_tensors()?;
        }
        Ok(base)
    }

    fn of<F>(path: &Path, opened: Opened<F>, files: impl FnOnce(F) -> Files) -> Self {
        let Opened { files: own, architecture, architecture_name, config, tensors, uncomputed, notes } =
            opened;
        Self {
            path: path.into(),
            files: files(own),
            architecture,
            architecture_name,
            config,
            tensors,
            notes,
            uncomputed,
            given_chat: GivenChat::default(),
        }
    }
}
