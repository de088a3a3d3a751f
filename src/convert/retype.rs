//! A model in other types: every tensor decoded and encoded again, as llama-quantize does it.
//!
//! [`file_type`] says which type a tensor gets. Rows are read, converted and appended a few at a time, so that memory
//! does not grow with the model. The bytes of every tensor are those that llama-quantize writes.

use std::collections::BTreeMap;
use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{Gguf, GgufLayout, GgufModel, GgufTensor, NewTensor, Value};
use curmerge_formats::imatrix::Imatrix;
use curmerge_formats::output::{OutputFile, Queue, Stretch, write_behind};
use curmerge_formats::quant;
use rayon::prelude::*;
use serde::Serialize;

use super::{Choice, FileType, file_type};
use crate::{Error, Result};

/// Values that one thread converts at a time; at least a row.
const BLOCK_VALUES: usize = 1 << 16;
/// Blocks in memory at a time, for each thread.
const BLOCKS_A_THREAD: usize = 8;
/// The version of ggml's quantized types (`GGML_QNT_VERSION`).
pub(super) const QUANTIZATION_VERSION: u32 = 2;

/// What a conversion did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ConvertReport {
    /// Bytes of all tensors before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
    /// How many tensors have which type now.
    pub types: BTreeMap<String, usize>,
    /// What a user should know: one line each.
    pub notes: Vec<String>,
}

impl ConvertReport {
    /// Counts a tensor as it is in the new file.
    pub(super) fn count(&mut self, place: &GgufTensor) {
        self.bytes_after += place.bytes;
        *self.types.entry(place.dtype.to_string()).or_default() += 1;
    }
}

/// Write `gguf` to `out` in the types of `file_type`, by the weights of `imatrix` if there is one. `progress` is told how
/// many bytes of how many were read. `out` must be none of `inputs`.
///
/// # Errors
/// Before anything is written: an architecture whose exceptions are not known; a tensor that cannot be decoded; no
/// importance matrix where a type needs one, or one of another size. Later: a value that a type cannot hold, a full disk.
/// After an error nothing stands at `out` that did not before.
pub fn retype(
    gguf: &GgufModel,
    file_type: FileType,
    imatrix: Option<&Imatrix>,
    out: &Path,
    inputs: &[&Path],
    mut progress: impl FnMut(u64, u64),
) -> Result<ConvertReport> {
    let first = gguf.first();
    let tensors = retyped(gguf, file_type, imatrix)?;
    let mut report = ConvertReport { notes: notes(&tensors), ..Default::default() };

    let new = tensors.iter().map(|t| NewTensor {
        name: t.tensor.name.clone(),
        dtype: t.choice.dtype,
        dims: t.tensor.dims.clone(),
    });
    let layout = GgufLayout::new(
        first.version(),
        first.alignment(),
        &metadata(gguf.whole_metadata(), file_type),
        new.collect(),
    )?;
    let file = OutputFile::create(out, inputs)?;
    let mut stretches = frame(&layout);
    let moved = tensors.iter().zip(layout.tensors()).filter(|(tensor, _)| !tensor.changes());
    stretches.extend(moved.map(|(tensor, place)| {
        let &GgufTensor { offset, bytes: len, .. } = tensor.tensor;
        (place.offset, Stretch::Copy { source: tensor.file.file(), offset, len })
    }));
    report.bytes_before = tensors.iter().map(|t| t.tensor.bytes).sum();
    let mut read = 0;
    write_behind(&file, &stretches, |queue| -> Result<()> {
        for (tensor, place) in tensors.iter().zip(layout.tensors()) {
            if tensor.changes() {
                tensor.write_at(place.offset, queue)?;
            }
            report.count(place);
            read += tensor.tensor.bytes;
            progress(read, report.bytes_before);
        }
        Ok(())
    })?;
    file.commit()?;
    Ok(report)
}

/// The header of a file, and the end of the zeros behind its last tensor; those between tensors need no writing.
pub(super) fn frame(layout: &GgufLayout) -> Vec<(u64, Stretch<'_>)> {
    let mut stretches = vec![(0, Stretch::Bytes(layout.header()))];
    let end = layout.file_bytes();
    if layout.tensors().last().is_some_and(|last| last.offset + last.bytes < end) {
        stretches.push((end - 1, Stretch::Bytes(&[0])));
    }
    stretches
}

/// Every tensor of a model with the type that it gets, in the model's order.
///
/// # Errors
/// Those that [`retype`] has before anything is written.
pub(crate) fn retyped<'a>(
    gguf: &'a GgufModel,
    file_type: FileType,
    imatrix: Option<&'a Imatrix>,
) -> Result<Vec<Retyped<'a>>> {
    let first = gguf.first();
    let architecture = first.get("general.architecture").and_then(Value::as_str).unwrap_or_default();
    if file_type::EXCEPTIONS.contains(&architecture) {
        let problem =
            format!("llama-quantize has rules of its own for '{architecture}', which curmerge has not");
        let help = "use llama-quantize for this model";
        return Err(Error::input(first.path(), "general.architecture", problem, help));
    }
    let choices = file_type::choose(gguf, file_type, imatrix.is_some());
    let tensors = gguf.tensors().zip(choices);
    tensors
        .map(|((file, tensor), choice)| Retyped::new(&gguf.files()[file], tensor, choice, file_type, imatrix))
        .collect()
}

/// The keys of a model, with those that tell of its types behind them.
pub(crate) fn metadata(mut metadata: Vec<(String, Value)>, file_type: FileType) -> Vec<(String, Value)> {
    let own = [("general.quantization_version", QUANTIZATION_VERSION), ("general.file_type", file_type.id())];
    metadata.retain(|(key, _)| own.iter().all(|(own, _)| own != key));
    metadata.extend(own.map(|(key, value)| (key.to_string(), Value::U32(value))));
    metadata
}

/// What the user should know of the choices.
pub(crate) fn notes(tensors: &[Retyped<'_>]) -> Vec<String> {
    let mut notes = Vec::new();
    let rounded = |dtype: DType| dtype.block_elements() > 1;
    let quantized = |t: &&Retyped<'_>| t.changes() && rounded(t.tensor.dtype) && rounded(t.choice.dtype);
    if let Some(Retyped { tensor, .. }) = tensors.iter().find(quantized) {
        notes.push(format!(
            "{} and others are quantized already ({}); converting them again loses more than converting the original",
            tensor.name, tensor.dtype
        ));
    }
    notes.extend(fallbacks(tensors.iter().map(|t| (t.tensor.name.as_str(), &t.choice))));
    notes
}

/// What the user should know of tensors that cannot have the type they should.
pub(super) fn fallbacks<'a>(choices: impl Iterator<Item = (&'a str, &'a Choice)>) -> Option<String> {
    let fallbacks: Vec<_> = choices.filter(|(_, c)| c.instead_of.is_some()).collect();
    let (name, Choice { dtype, instead_of: Some(wanted) }) = fallbacks.first()? else { return None };
    Some(format!(
        "{} tensors have rows that are no whole blocks of the type they should get: {name} is {dtype} instead of {wanted}",
        fallbacks.len(),
    ))
}

/// The `wanted` weights of a tensor that gets this type, if there are some; else what is wrong with them and what to do.
pub(super) fn weights<'a>(
    imatrix: Option<&'a Imatrix>,
    name: &str,
    wanted: usize,
    dtype: DType,
    file_type: FileType,
) -> std::result::Result<Option<&'a [f32]>, (String, &'static str)> {
    let mut weights = imatrix.and_then(|imatrix| imatrix.weights(name));
    if let Some(found) = weights.filter(|w| w.len() != wanted) {
        // Calibration does not count how often a token is looked up.
        if name != "token_embd.weight" {
            let problem =
                format!("the importance matrix has {} weights for it, and it needs {wanted}", found.len());
            return Err((problem, "use the importance matrix of this model"));
        }
        weights = None;
    }
    let edge = matches!(name, "token_embd.weight" | "output.weight");
    if file_type == FileType::Q2_K_S && dtype == DType::Q2_K && weights.is_none() && !edge {
        let problem = "Q2_K_S is of no use without an importance matrix for it".to_string();
        return Err((problem, "give one with --imatrix, or use q2_k"));
    }
    Ok(weights)
}

/// Writes `rows` rows of so many columns from `offset` on, of which `block` makes some from a row on, in parallel and a few blocks at a
/// time.
pub(super) fn write_rows(
    out: &Queue<'_>,
    mut offset: u64,
    rows: usize,
    columns: usize,
    block: impl Fn(usize, usize) -> Result<Vec<u8>> + Sync,
) -> Result<()> {
    let size = (BLOCK_VALUES / columns.max(1)).max(1);
    let starts: Vec<usize> = (0..rows).step_by(size).collect();
    for batch in starts.chunks(BLOCKS_A_THREAD * rayon::current_num_threads()) {
        let done: Vec<Result<Vec<u8>>> =
            batch.par_iter().map(|&start| block(start, size.min(rows - start))).collect();
        for bytes in done {
            let (place, bytes) = (offset, bytes?);
            offset += bytes.len() as u64;
            out.write_at(place, bytes)?;
        }
    }
    Ok(())
}

/// One tensor of the old file and its new type.
#[derive(Clone, Debug)]
pub(crate) struct Retyped<'a> {
    /// The file that holds it.
    pub(crate) file: &'a Gguf,
    /// As it is stored.
    pub(crate) tensor: &'a GgufTensor,
    /// What it becomes.
    pub(crate) choice: Choice,
    /// One importance for each column, for each expert.
    pub(crate) weights: Option<&'a [f32]>,
}

impl<'a> Retyped<'a> {
    fn new(
        file: &'a Gguf,
        stored: &'a GgufTensor,
        choice: Choice,
        file_type: FileType,
        imatrix: Option<&'a Imatrix>,
    ) -> Result<Self> {
        let error = |problem: String, help: &str| {
            let place = format!("tensor '{}'", stored.name.escape_debug());
            Error::input(file.path(), place, problem, help)
        };
        let mut tensor = Retyped { file, tensor: stored, choice, weights: None };
        if !tensor.changes() {
            return Ok(tensor);
        }
        if !stored.dtype.can_decode() {
            let problem = format!("stored as {}, which curmerge does not read", stored.dtype);
            return Err(error(problem, "convert a file in F32, F16 or BF16"));
        }
        let wanted = tensor.columns() * stored.dims.get(2).map_or(1, |&experts| experts as usize);
        tensor.weights = weights(imatrix, &stored.name, wanted, tensor.choice.dtype, file_type)
            .map_err(|(problem, help)| error(problem, help))?;
        Ok(tensor)
    }

    /// Whether its bytes are others afterwards.
    pub(crate) fn changes(&self) -> bool {
        self.choice.dtype != self.tensor.dtype
    }

    /// Values in a row.
    fn columns(&self) -> usize {
        self.tensor.dims.first().map_or(1, |&columns| columns as usize)
    }

    /// Write the tensor in its new type at `offset`.
    pub(crate) fn write_at(&self, offset: u64, out: &Queue<'_>) -> Result<()> {
        let rows = self.tensor.dims[1..].iter().product::<u64>() as usize;
        write_rows(out, offset, rows, self.columns(), |start, count| self.rows(start, count))
    }

    /// `count` rows from `start` on, in the new type.
    fn rows(&self, start: usize, count: usize) -> Result<Vec<u8>> {
        let columns = self.columns();
        let (stored, dtype) = (self.tensor.dtype, self.choice.dtype);
        let bytes_of = |dtype: DType| dtype.bytes_for(columns as u64).unwrap_or(0) as usize;
        let (from, to) = (bytes_of(stored), bytes_of(dtype));
        let source = &self.file.data(self.tensor)[start * from..][..count * from];
        let mut values = vec![0.0; count * columns];
        let mut bytes = vec![0; count * to];
        let error = |e: quant::QuantError| {
            let place = format!("tensor '{}', rows from {start}", self.tensor.name.escape_debug());
            Error::input(self.file.path(), place, e.to_string(), "or download the model again")
        };
        quant::decode(stored, source, &mut values).map_err(error)?;
        let Some(weights) = self.weights else {
            quant::encode(dtype, &values, &mut bytes).map_err(error)?;
            return Ok(bytes);
        };
        // Each expert has its own weights.
        let rows_an_expert = self.tensor.dims.get(1).map_or(1, |&rows| rows as usize);
        for (i, (values, bytes)) in values.chunks(columns).zip(bytes.chunks_mut(to)).enumerate() {
            let expert = (start + i) / rows_an_expert;
            let weights = &weights[expert * columns..][..columns];
            quant::encode_weighted(dtype, values, weights, bytes).map_err(error)?;
        }
        Ok(bytes)
    }
}
