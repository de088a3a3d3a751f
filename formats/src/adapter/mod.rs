//! stub

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;

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
    /// Name to SHA-256 (hex) of the stored bytes, for the tensors that are not targets.
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
    /// Reads and verifies.
    pub fn read(_path: &Path) -> Result<Self> {
        todo!()
    }
    /// The file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        todo!()
    }
    /// Writes.
    pub fn write(&self, _path: &Path, _inputs: &[&Path]) -> Result<()> {
        todo!()
    }
    /// Whether the file is an adapter.
    pub fn is_adapter(_path: &Path) -> bool {
        todo!()
    }
}
