//! The tensors as safetensors: transformers' names, its order of rows, one element type.
//!
//! Rows are decoded, rounded and appended a few blocks at a time, so that memory does not grow with the model. Rows that
//! are stored in the wanted type already are copied bit for bit.

use std::collections::BTreeMap;

use curmerge_formats::dtype::DType;
use curmerge_formats::output::{OutputFile, OutputFolder};
use curmerge_formats::quant;
use curmerge_formats::safetensors::{NewSafeTensor, SafeTensorsLayout, shard_name};
use curmerge_formats::shards::groups;
use rayon::prelude::*;
use serde_json::json;

use super::config::pretty;
use crate::base::{Base, RowOrder, Weight};
use crate::convert::ConvertReport;
use crate::{Error, Result};

/// Values that one thread converts at a time; at least a row.
const BLOCK_VALUES: usize = 1 << 16;
/// Blocks in memory at a time, for each thread.
const BLOCKS_A_THREAD: usize = 4;
/// The name of the list of shards.
const INDEX: &str = "model.safetensors.index.json";

/// The type that loses least of what the model's matrices hold, in no more bytes than that takes: their own where all have
/// the same of F32, F16 and BF16, F32 where these are mixed. Decoded blocks fit neither half type exactly, and F16 has
/// three bits more.
pub fn natural_type(base: &Base) -> DType {
    let matrices = || base.tensors().values().filter(|tensor| tensor.shape.len() > 1).map(|t| t.dtype);
    let first = matrices().next().unwrap_or(DType::F32);
    if !matrices().all(|dtype| matches!(dtype, DType::F32 | DType::F16 | DType::BF16)) {
        return DType::F16;
    }
    if matrices().all(|dtype| dtype == first) { first } else { DType::F32 }
}

/// Everything that is to be written, checked.
pub(super) struct Plan<'a> {
    base: &'a Base,
    dtype: DType,
    /// File by file.
    shards: Vec<Vec<Tensor<'a>>>,
}

struct Tensor<'a> {
    canonical: &'a str,
    name: String,
    shape: &'a [u64],
    weight: Weight<'a>,
    order: RowOrder,
}

/// How far rounding moved values.
#[derive(Clone, Copy, Debug, Default)]
struct Rounding {
    values: u64,
    changed: u64,
    /// Sums of squares of the changes and of the values.
    change: f64,
    size: f64,
}

impl<'a> Plan<'a> {
    pub(super) fn new(base: &'a Base, dtype: DType, limit: u64) -> Result<Self> {
        let mut tensors = Vec::new();
        for (canonical, stored) in base.tensors() {
            // What config.json says of the first, and nothing reads of the second.
            if canonical == "rope_freqs" || canonical.ends_with("rot_embd") {
                continue;
            }
            let error = |problem: &str| {
                let mend = "transformers' model has no place for it: use the GGUF file as it is";
                Err(Error::input(
                    base.path(),
                    format!("tensor '{}'", canonical.escape_debug()),
                    problem,
                    mend,
                ))
            };
            let Some((name, names)) = base.architecture().to_hugging_face(canonical) else {
                return error(&format!("no tensor of a {} model in transformers", base.architecture().gguf));
            };
            let weight = base.weight(canonical)?;
            let rows = weight.rows() as u64;
            let Some(order) = base.config().hugging_face_order(names, rows) else {
                return error("its rows are no whole number of heads");
            };
            let name = format!("{name}.weight");
            tensors.push(Tensor { canonical, name, shape: &stored.shape, weight, order });
        }
        tensors.sort_by_cached_key(|tensor| place(base, tensor.canonical));
        let plan = Plan { base, dtype, shards: Vec::new() };
        let groups = groups(tensors.iter().map(|t| plan.bytes(t)), limit);
        let mut rest = tensors.into_iter();
        let shards = groups.into_iter().map(|group| rest.by_ref().take(group.len()).collect()).collect();
        Ok(Plan { shards, ..plan })
    }

    /// Bytes of a tensor as written.
    fn bytes(&self, tensor: &Tensor<'_>) -> u64 {
        let values = tensor.weight.rows() as u64 * tensor.weight.cols() as u64;
        values * self.dtype.block_bytes() as u64
    }

    pub(super) fn write(
        &self,
        folder: &OutputFolder,
        report: &mut ConvertReport,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<()> {
        let tensors = || self.shards.iter().flatten();
        report.bytes_before = tensors().map(|t| t.weight.stored_bytes().len() as u64).sum();
        let mut map = BTreeMap::new();
        let (mut read, mut rounding) = (0, Rounding::default());
        for (number, shard) in self.shards.iter().enumerate() {
            let name = shard_name(number, self.shards.len());
            let new = shard.iter().map(|tensor| NewSafeTensor {
                name: tensor.name.clone(),
                dtype: self.dtype,
                shape: tensor.shape.to_vec(),
            });
            // transformers before 5 refuses a file that does not say so.
            let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
            let layout = SafeTensorsLayout::new(&metadata, new.collect())?;
            let mut file = folder.file(&name)?;
            file.append(layout.header())?;
            for tensor in shard {
                rounding = rounding.and(self.append(tensor, &mut file)?);
                read += tensor.weight.stored_bytes().len() as u64;
                progress(read, report.bytes_before);
                report.bytes_after += self.bytes(tensor);
                *report.types.entry(self.dtype.to_string()).or_default() += 1;
                map.insert(tensor.name.as_str(), name.clone());
            }
            file.commit()?;
        }
        if self.shards.len() > 1 {
            let index = json!({ "metadata": { "total_size": report.bytes_after }, "weight_map": map });
            let mut file = folder.file(INDEX)?;
            file.append(pretty(&index).as_bytes())?;
            file.commit()?;
        }
        report.notes.extend(rounding.note(self.dtype));
        Ok(())
    }

    fn append(&self, tensor: &Tensor<'_>, file: &mut OutputFile) -> Result<Rounding> {
        let rows = tensor.weight.rows();
        let block = (BLOCK_VALUES / tensor.weight.cols().max(1)).max(1);
        let starts: Vec<usize> = (0..rows).step_by(block).collect();
        let mut rounding = Rounding::default();
        for batch in starts.chunks(BLOCKS_A_THREAD * rayon::current_num_threads()) {
            let done: Vec<Result<(Vec<u8>, Rounding)>> =
                batch.par_iter().map(|&start| self.rows(tensor, start, block.min(rows - start))).collect();
            for block in done {
                let (bytes, moved) = block?;
                file.append(&bytes)?;
                rounding = rounding.and(moved);
            }
        }
        Ok(rounding)
    }

    /// `count` rows from `start` on, as Hugging Face counts them.
    fn rows(&self, tensor: &Tensor<'_>, start: usize, count: usize) -> Result<(Vec<u8>, Rounding)> {
        let weight = &tensor.weight;
        let canonical = (start..start + count).map(|row| tensor.order.canonical_row(row));
        let mut rounding = Rounding { values: (count * weight.cols()) as u64, ..Default::default() };
        if weight.dtype() == self.dtype {
            let bytes = weight.row_bytes();
            let row = |row: usize| &weight.stored_bytes()[weight.stored_row(row) * bytes..][..bytes];
            return Ok((canonical.flat_map(row).copied().collect(), rounding));
        }
        let mut values = vec![0.0; count * weight.cols()];
        for (row, out) in canonical.zip(values.chunks_exact_mut(weight.cols())) {
            weight.decode_row(row, out);
        }
        let mut bytes = vec![0; values.len() * self.dtype.block_bytes()];
        let error = |e: quant::QuantError| {
            let place = format!("tensor '{}', rows from {start}", tensor.name);
            let mend = match e {
                quant::QuantError::OutOfRange { value, .. } if value.is_finite() => "use --type bf16 or f32",
                _ => "download the model again",
            };
            Error::input(self.base.path(), place, e.to_string(), mend)
        };
        quant::encode(self.dtype, &values, &mut bytes).map_err(error)?;
        if self.dtype != DType::F32 {
            let mut back = vec![0.0; values.len()];
            quant::decode(self.dtype, &bytes, &mut back).map_err(error)?;
            rounding.compare(&values, &back);
        }
        Ok((bytes, rounding))
    }
}

impl Rounding {
    fn compare(&mut self, before: &[f32], after: &[f32]) {
        for (&before, &after) in before.iter().zip(after) {
            let change = f64::from(after) - f64::from(before);
            self.changed += u64::from(change != 0.0);
            self.change += change * change;
            self.size += f64::from(before) * f64::from(before);
        }
    }

    fn and(self, other: Self) -> Self {
        Rounding {
            values: self.values + other.values,
            changed: self.changed + other.changed,
            change: self.change + other.change,
            size: self.size + other.size,
        }
    }

    fn note(&self, dtype: DType) -> Option<String> {
        (self.changed > 0).then(|| {
            format!(
                "{} of {} values were rounded to {dtype}, by {:.4} % of their size (root mean square); --type f32 is exact",
                self.changed,
                self.values,
                100.0 * (self.change / self.size).sqrt()
            )
        })
    }
}

/// Where transformers has a tensor: the embedding, the layers, the norm, the head.
fn place(base: &Base, canonical: &str) -> (usize, usize, usize) {
    let layer: Option<usize> =
        canonical.strip_prefix("blk.").and_then(|rest| rest.split_once('.')?.0.parse().ok());
    let pattern = match layer {
        Some(layer) => canonical.replacen(&format!("blk.{layer}."), "blk.{}.", 1),
        None => canonical.to_string(),
    };
    let line = base.architecture().names().position(|names| names.canonical == pattern);
    let part = match canonical {
        "token_embd" => 0,
        _ if layer.is_some() => 1,
        "output" => 3,
        _ => 2,
    };
    (part, layer.unwrap_or(0), line.unwrap_or(0))
}
