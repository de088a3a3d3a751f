//! Reads an adapter and verifies every byte of its file.
//!
//! The digests of the tensors are checked before the digest of the whole file. So damage to a tensor is
//! named, and the whole-file digest is left with damage to the header.

use std::collections::BTreeMap;
use std::path::Path;

use half::bf16;

use super::check::{Fault, check};
use super::fisher::{self, FisherRecord, TargetFisher};
use super::record::*;
use super::{Adapter, AdapterTarget, BaseInfo};
use crate::detect::{Container, detect};
use crate::dtype::DType;
use crate::error::{Error, FETCH_AGAIN, Result, one_line, quoted};
use crate::mmap::MappedFile;
use crate::safetensors::SafeTensors;
use crate::safetensors::header::Unique;
use crate::safetensors::sealed::{verify_part, verify_seal};

pub(super) fn read(path: &Path) -> Result<Adapter> {
    let file = SafeTensors::open(path).map_err(|error| explain(path, error))?;
    let header = Header { path, texts: file.metadata() };
    header.check_format()?;
    let records: BTreeMap<String, TargetRecord> = header.json::<Unique<_>>(TARGETS)?.0;
    let tensors: usize = records
        .values()
        .map(|record| 3 + record.fisher.iter().map(FisherRecord::tensors).sum::<usize>())
        .sum();
    if tensors != file.tensors().len() {
        let problem =
            format!("{} targets are listed, but there are {} tensors", records.len(), file.tensors().len());
        return Err(malformed(path, TARGETS, problem));
    }
    let targets = records
        .into_iter()
        .map(|(name, record)| read_target(&file, name, record))
        .collect::<Result<Vec<AdapterTarget>>>()?;
    verify_seal(&file)?;

    let adapter = Adapter {
        base: BaseInfo {
            name: header.text(BASE_NAME)?.to_owned(),
            architecture: header.text(BASE_ARCHITECTURE)?.to_owned(),
            container: header.text(BASE_CONTAINER)?.to_owned(),
            other_tensors: header.json::<Unique<_>>(BASE_OTHER_TENSORS)?.0,
        },
        rank: header.number(RANK)?,
        scale: header.number(SCALE)?,
        selection: header.text(SELECTION)?.to_owned(),
        seed: header.number(SEED)?,
        training: header.texts.contains_key(TRAINING).then(|| header.json(TRAINING)).transpose()?,
        targets,
    };
    check(&adapter).map_err(|Fault { place, problem }| malformed(path, place, problem))?;
    Ok(adapter)
}

/// The error of a file that does not open as safetensors: what it is instead, unless it begins as safetensors
/// files do.
fn explain(path: &Path, error: Error) -> Error {
    let (Error::Malformed { .. }, Ok(file)) = (&error, MappedFile::open(path)) else { return error };
    let other = match (detect(path), file.bytes()) {
        (Ok(Container::SafeTensors) | Err(_), _) => return error,
        (Ok(Container::Gguf), _) => "is not an adapter: it is a GGUF file",
        (Ok(Container::Onnx), _) => "is not an adapter: it is an ONNX file",
        (_, [b'P', b'K', 3, 4, ..]) => "is not an adapter: it is a zip archive, as PyTorch writes",
        (_, [b'{' | b'[', ..]) => "is not an adapter: it is a JSON file",
        _ => "is not an adapter, or is damaged",
    };
    Error::malformed(path, "byte 0", other, "name a file that curmerge build wrote, or fetch it again")
}

fn malformed(path: &Path, place: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::malformed(path, place, problem, FETCH_AGAIN)
}

/// The metadata, with errors that name the key.
struct Header<'a> {
    path: &'a Path,
    texts: &'a BTreeMap<String, String>,
}

impl Header<'_> {
    fn check_format(&self) -> Result<()> {
        if self.texts.get(FORMAT).is_none_or(|format| format != FORMAT_NAME) {
            let problem = "the file is safetensors, but not a curmerge adapter";
            return Err(Error::malformed(
                self.path,
                FORMAT,
                problem,
                "name a file that curmerge build wrote",
            ));
        }
        match self.text(VERSION)? {
            VERSION_NUMBER | VERSION_WITH_FISHER => Ok(()),
            other => Err(Error::unsupported(
                self.path,
                VERSION,
                format!("adapter version {} is not known", quoted(other)),
                "use the curmerge that wrote it, or a newer one",
            )),
        }
    }

    fn text(&self, key: &str) -> Result<&str> {
        self.texts.get(key).map(String::as_str).ok_or_else(|| malformed(self.path, key, "the key is missing"))
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<T> {
        let text = self.text(key)?;
        text.parse().map_err(|_| malformed(self.path, key, format!("{} is not a valid number", quoted(text))))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T> {
        serde_json::from_str(self.text(key)?).map_err(|error| malformed(self.path, key, one_line(&error)))
    }
}

fn read_target(file: &SafeTensors, name: String, record: TargetRecord) -> Result<AdapterTarget> {
    let target = Tensors { file, target: &name };
    let cols = target.vector(COLS, &record.cols_sha256)?;
    let rows = target.vector(ROWS, &record.rows_sha256)?;
    let [c, r] = [&cols, &rows].map(|indices| indices.len() as u64);
    let u = target.floats(U, [c, r], &record.u_sha256)?;
    let fishers = record.fisher.into_iter().enumerate();
    let fisher = fishers.map(|(task, record)| target.fisher(task, record, [c, r])).collect::<Result<_>>()?;
    Ok(AdapterTarget {
        cols,
        rows,
        u,
        fisher,
        shape: record.shape,
        stored_dtype: record.stored_dtype,
        stored_sha256: record.stored_sha256,
        values_sha256: record.values_sha256,
        sketch: record.sketch,
        name,
    })
}

/// The tensors of a target.
struct Tensors<'a> {
    file: &'a SafeTensors,
    target: &'a str,
}

impl<'a> Tensors<'a> {
    /// A vector of indices.
    fn vector(&self, end: &str, digest: &str) -> Result<Vec<u32>> {
        let bytes = self.verified(end, DType::U32, None, digest)?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }

    /// A matrix of this shape.
    fn floats(&self, end: &str, shape: [u64; 2], digest: &str) -> Result<Vec<f32>> {
        let bytes = self.verified(end, DType::F32, Some(shape), digest)?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// The Fisher information of a task.
    fn fisher(&self, task: usize, record: FisherRecord, [c, r]: [u64; 2]) -> Result<TargetFisher> {
        let matrix = |part, shape, digest: &str| self.floats(&fisher::end(task, part), shape, digest);
        // The values of U, which has been read.
        let size = c * r;
        match record {
            FisherRecord::Matrix { matrix_sha256 } => {
                Ok(TargetFisher::Matrix(matrix(fisher::MATRIX, [size, size], &matrix_sha256)?))
            }
            FisherRecord::Sampled { weight, samples_sha256, left_sha256, right_sha256, along_sha256 } => {
                let end = fisher::end(task, fisher::SAMPLES);
                let texts = self
                    .file
                    .tensor(&format!("{}{end}", self.target))
                    .map_or(0, |found| found.shape.first().copied().unwrap_or_default());
                let bytes = self.verified(&end, DType::BF16, Some([texts, size]), &samples_sha256)?;
                Ok(TargetFisher::Sampled {
                    samples: bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes)).collect(),
                    weight,
                    left: matrix(fisher::LEFT, [c, c], &left_sha256)?,
                    right: matrix(fisher::RIGHT, [r, r], &right_sha256)?,
                    along: matrix(fisher::ALONG, [c, r], &along_sha256)?,
                })
            }
        }
    }

    /// The bytes of a tensor: a vector, or a matrix of the given shape.
    fn verified(&self, end: &str, dtype: DType, matrix: Option<[u64; 2]>, digest: &str) -> Result<&'a [u8]> {
        let found = self.file.tensor(&format!("{}{end}", self.target));
        let found = found.ok_or_else(|| self.malformed(end, "it is missing"))?;
        let shape_fits = match matrix {
            None => found.shape.len() == 1,
            Some(matrix) => found.shape == matrix,
        };
        if found.dtype != dtype || !shape_fits {
            let problem =
                format!("it is {} of shape {:?}, which does not fit its target", found.dtype, found.shape);
            return Err(self.malformed(end, problem));
        }
        let bytes = self.file.data(found);
        verify_part(self.file.path(), self.place(end), digest, bytes)?;
        Ok(bytes)
    }

    fn place(&self, end: &str) -> String {
        format!("tensor {}", quoted(&format!("{}{end}", self.target)))
    }

    fn malformed(&self, end: &str, problem: impl Into<String>) -> Error {
        malformed(self.file.path(), self.place(end), problem)
    }
}
