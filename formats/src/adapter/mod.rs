//! curmerge's adapter: the chosen columns and rows of each matrix, the trained matrices U, and digests that
//! identify the base model and detect damage.
//!
//! An adapter is a safetensors file, so any tool that reads safetensors opens it. Each target has three
//! tensors under its canonical name: `NAME.cols` U32 \[c\], `NAME.rows` U32 \[r\], `NAME.u` F32 \[c, r\]. Where the
//! Fisher information of task K is kept, it has `NAME.fisher.K.matrix` F32 \[c r, c r\], or `.samples` BF16
//! \[texts, c r\], `.left` F32 \[c, c\], `.right` F32 \[r, r\] and `.along` F32 \[c, r\]; then `version` is 2. The
//! metadata hold `format`, `version`, the fields of [`BaseInfo`] and [`Adapter`], and two JSON texts:
//! `targets` (the shape and digests of each target, and the SHA-256 of its three tensors, which locate
//! damage) and `training`. `sha256` is the digest of the whole file with its own 64 digits read as zeros, so
//! one flipped bit anywhere is found. Equal adapters give equal files.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::output::OutputFile;
use crate::safetensors::SafeTensors;

mod check;
mod fisher;
mod read;
mod record;
mod write;

pub use fisher::TargetFisher;

/// What an adapter changes in one matrix W: `W + scale * W[:, cols] * u * W[rows, :]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterTarget {
    /// Canonical name of the matrix, such as `blk.0.attn_q`.
    pub name: String,
    /// Chosen columns, ascending, each less than `shape[1]`; `[c]`.
    pub cols: Vec<u32>,
    /// Chosen rows, ascending, each less than `shape[0]`; `[r]`.
    pub rows: Vec<u32>,
    /// The trained matrix U, `[c, r]`, row by row.
    pub u: Vec<f32>,
    /// `[out, in]` of W.
    pub shape: [u64; 2],
    /// The type W was stored in, such as `Q4_1`.
    pub stored_dtype: String,
    /// SHA-256 of W's stored bytes, hex.
    pub stored_sha256: String,
    /// SHA-256 of W's values as little-endian `f32` in the canonical layout, hex.
    pub values_sha256: String,
    /// Random projections of C and of R, which estimate how far another base's C and R are from these. Older
    /// adapters have none.
    pub sketch: Option<Vec<f32>>,
    /// What protects the tasks that it was trained on, if that was kept; all targets have as many.
    pub fisher: Vec<TargetFisher>,
}

/// How an adapter was trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// SHA-256 of the training file, hex.
    pub data_sha256: String,
    /// Examples in it that were used.
    pub examples: u64,
    /// Optimizer steps done.
    pub steps: u64,
    /// Optimizer steps the schedule was made for.
    pub planned_steps: u64,
    /// Name of the optimizer.
    pub optimizer: String,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Examples a step.
    pub batch_size: u64,
    /// Tokens at which examples were cut.
    pub max_seq_len: u64,
    /// Training loss at the last step, nats per token.
    pub final_loss: f64,
    /// Training losses over time, if they were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub losses: Option<Vec<f64>>,
    /// Loss on the validation file, if there was one, nats per token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_loss: Option<f64>,
    /// How the model was kept from forgetting, if a penalty did it: its name and its options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<String>,
    /// The options of the program that trained it, as its TOML, without paths. Older adapters have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
}

/// The model that an adapter belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseInfo {
    /// The model's name.
    pub name: String,
    /// Its architecture, such as `llama`.
    pub architecture: String,
    /// `gguf`, `safetensors` or `onnx`.
    pub container: String,
    /// Name to SHA-256 (hex) of the stored bytes, for the tensors that are not targets. If some parts
    /// (`NAME[PART]`) of a tensor are targets, its other parts are listed.
    pub other_tensors: BTreeMap<String, String>,
}

/// A CURLoRA adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// The model it belongs to.
    pub base: BaseInfo,
    /// Columns and rows chosen of each target.
    pub rank: u32,
    /// Factor of the change.
    pub scale: f32,
    /// How columns and rows were chosen.
    pub selection: String,
    /// Seed of that choice.
    pub seed: u64,
    /// How it was trained; `None` for one that was only selected.
    pub training: Option<Training>,
    /// The targets, sorted by name.
    pub targets: Vec<AdapterTarget>,
}

impl Adapter {
    /// Reads and verifies a file: every digest, shape and index.
    ///
    /// # Errors
    /// [`Error::Checksum`](crate::Error::Checksum) that names the damaged tensor, or the whole file if the
    /// damage is in its header; [`Error::Malformed`](crate::Error::Malformed) for a file that is not an
    /// adapter or not consistent; [`Error::Unsupported`](crate::Error::Unsupported) for another version;
    /// [`Error::Io`](crate::Error::Io).
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        read::read(path.as_ref())
    }

    /// The file's bytes, the same for equal adapters. The targets may be in any order.
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode) if [`Adapter::read`] would refuse the file, as for a U that is
    /// not finite.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        write::to_bytes(self)
    }

    /// Writes the file, whole or not at all; it must be none of `inputs`.
    ///
    /// # Errors
    /// Those of [`Adapter::to_bytes`] and [`OutputFile`].
    pub fn write(&self, path: impl AsRef<Path>, inputs: &[&Path]) -> Result<()> {
        let bytes = self.to_bytes()?;
        let mut file = OutputFile::create(path.as_ref(), inputs)?;
        file.append(&bytes)?;
        file.commit()
    }

    /// How many tasks it keeps Fisher information of.
    pub fn kept_tasks(&self) -> usize {
        self.targets.first().map_or(0, |target| target.fisher.len())
    }

    /// Whether the file says that it is an adapter, of whatever version. It may still be damaged.
    pub fn is_adapter(path: &Path) -> bool {
        let Ok(file) = SafeTensors::open(path) else { return false };
        file.metadata().get(record::FORMAT).is_some_and(|format| format == record::FORMAT_NAME)
    }
}
