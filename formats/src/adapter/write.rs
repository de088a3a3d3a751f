//! Encodes an adapter as the bytes of its file.

use std::collections::BTreeMap;

use super::check::{Fault, check};
use super::fisher::{self, FisherRecord, TargetFisher};
use super::record::*;
use super::{Adapter, AdapterTarget, Training};
use crate::digest::sha256_hex;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::safetensors::NewSafeTensor;
use crate::safetensors::sealed::seal;

pub(super) fn to_bytes(adapter: &Adapter) -> Result<Vec<u8>> {
    check(adapter)
        .map_err(|Fault { place, problem }| Error::encode(place, problem, "train or select again"))?;
    let mut targets: Vec<&AdapterTarget> = adapter.targets.iter().collect();
    targets.sort_by_key(|target| &target.name);

    let mut tensors = Vec::new();
    let mut data = Vec::new();
    let mut records = BTreeMap::new();
    for target in targets {
        let (c, r) = (target.cols.len() as u64, target.rows.len() as u64);
        let mut put = |end: &str, dtype: DType, shape: Vec<u64>, bytes: Vec<u8>| {
            tensors.push(NewSafeTensor { name: format!("{}{end}", target.name), dtype, shape });
            data.extend_from_slice(&bytes);
            sha256_hex(&bytes)
        };
        let record = TargetRecord {
            shape: target.shape,
            stored_dtype: target.stored_dtype.clone(),
            stored_sha256: target.stored_sha256.clone(),
            values_sha256: target.values_sha256.clone(),
            cols_sha256: put(COLS, DType::U32, vec![c], index_bytes(&target.cols)),
            rows_sha256: put(ROWS, DType::U32, vec![r], index_bytes(&target.rows)),
            u_sha256: put(U, DType::F32, vec![c, r], float_bytes(&target.u)),
            sketch: target.sketch.clone(),
            fisher: target
                .fisher
                .iter()
                .enumerate()
                .map(|(task, kept)| fisher_record(task, kept, (c, r), &mut put))
                .collect(),
        };
        records.insert(target.name.as_str(), record);
    }

    // A name that occurs twice among the targets is refused here.
    seal(metadata(adapter, &records)?, tensors, &data)
}

/// The record of a task's Fisher information of U `[c, r]`, whose tensors `put` appends.
fn fisher_record(
    task: usize,
    fisher: &TargetFisher,
    (c, r): (u64, u64),
    put: &mut impl FnMut(&str, DType, Vec<u64>, Vec<u8>) -> String,
) -> FisherRecord {
    // The sizes are those of vectors in memory, so they do not overflow.
    let size = c * r;
    let mut float =
        |part, shape, values| put(&fisher::end(task, part), DType::F32, shape, float_bytes(values));
    match fisher {
        TargetFisher::Matrix(matrix) => {
            FisherRecord::Matrix { matrix_sha256: float(fisher::MATRIX, vec![size, size], matrix) }
        }
        TargetFisher::Sampled { samples, weight, left, right, along } => FisherRecord::Sampled {
            weight: *weight,
            left_sha256: float(fisher::LEFT, vec![c, c], left),
            right_sha256: float(fisher::RIGHT, vec![r, r], right),
            along_sha256: float(fisher::ALONG, vec![c, r], along),
            samples_sha256: put(
                &fisher::end(task, fisher::SAMPLES),
                DType::BF16,
                vec![samples.len() as u64 / size, size],
                samples.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
        },
    }
}

fn float_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn index_bytes(indices: &[u32]) -> Vec<u8> {
    indices.iter().flat_map(|index| index.to_le_bytes()).collect()
}

/// All texts of the header but the digest of the whole file.
fn metadata(adapter: &Adapter, records: &BTreeMap<&str, TargetRecord>) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    let mut put = |key: &str, text: String| texts.insert(key.to_owned(), text);
    put(FORMAT, FORMAT_NAME.to_owned());
    put(VERSION, if adapter.kept_tasks() > 0 { VERSION_WITH_FISHER } else { VERSION_NUMBER }.to_owned());
    put(BASE_NAME, adapter.base.name.clone());
    put(BASE_ARCHITECTURE, adapter.base.architecture.clone());
    put(BASE_CONTAINER, adapter.base.container.clone());
    put(BASE_OTHER_TENSORS, json(BASE_OTHER_TENSORS, &adapter.base.other_tensors)?);
    put(RANK, adapter.rank.to_string());
    put(SCALE, adapter.scale.to_string());
    put(SELECTION, adapter.selection.clone());
    put(SEED, adapter.seed.to_string());
    put(TARGETS, json(TARGETS, records)?);
    if let Some(training) = &adapter.training {
        put(TRAINING, training_json(training)?);
    }
    Ok(texts)
}

fn json<T: serde::Serialize>(key: &str, record: &T) -> Result<String> {
    serde_json::to_string(record)
        .map_err(|error| Error::encode(key, error.to_string(), "report this as a bug"))
}

/// The training record, read back as a check: JSON has no NaN or infinity, and would hold `null` for such a
/// loss.
fn training_json(training: &Training) -> Result<String> {
    let text = json(TRAINING, training)?;
    match serde_json::from_str::<Training>(&text) {
        Ok(back) if back == *training => Ok(text),
        _ => Err(Error::encode(
            TRAINING,
            "a loss or learning rate is not finite",
            "train with a lower learning rate",
        )),
    }
}
