//! The keys of an adapter's metadata, and its JSON records.

use serde::{Deserialize, Serialize};

use super::fisher::FisherRecord;

pub(super) const FORMAT: &str = "format";
pub(super) const FORMAT_NAME: &str = "curmerge-adapter";
pub(super) const VERSION: &str = "version";
pub(super) const VERSION_NUMBER: &str = "1";
/// With Fisher information.
pub(super) const VERSION_WITH_FISHER: &str = "2";
pub(super) const BASE_NAME: &str = "base_name";
pub(super) const BASE_ARCHITECTURE: &str = "base_architecture";
pub(super) const BASE_CONTAINER: &str = "base_container";
pub(super) const BASE_OTHER_TENSORS: &str = "base_other_tensors";
pub(super) const RANK: &str = "rank";
pub(super) const SCALE: &str = "scale";
pub(super) const SELECTION: &str = "selection";
pub(super) const SEED: &str = "seed";
pub(super) const TARGETS: &str = "targets";
pub(super) const TRAINING: &str = "training";

/// Suffixes of a target's tensors.
pub(super) const COLS: &str = ".cols";
pub(super) const ROWS: &str = ".rows";
pub(super) const U: &str = ".u";

/// A target's entry in `targets`. `cols_sha256`, `rows_sha256` and `u_sha256` are digests of its tensors in
/// this file.
#[derive(Serialize, Deserialize)]
pub(super) struct TargetRecord {
    pub(super) shape: [u64; 2],
    pub(super) stored_dtype: String,
    pub(super) stored_sha256: String,
    pub(super) values_sha256: String,
    pub(super) cols_sha256: String,
    pub(super) rows_sha256: String,
    pub(super) u_sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sketch: Option<Vec<f32>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) fisher: Vec<FisherRecord>,
}
