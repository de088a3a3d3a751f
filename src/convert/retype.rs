//! A GGUF model in other types: its tensors decoded and encoded again, as llama-quantize does it.
//!
//! [`file_type`] says which type a tensor gets. The bytes of every tensor are those that llama-quantize
//! writes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{Gguf, GgufModel, GgufTensor, Value};
use curmerge_formats::imatrix::Imatrix;
use curmerge_formats::quant;
use serde::Serialize;

use super::{Choice, FileType, file_type};
use crate::error::CallerOption;
use crate::rewrite::{self, Companion, ComputedTensor, ComputedTensors, Destination, Hooks, in_blocks};
use crate::{Error, Result};

/// The version of ggml's quantized types (`GGML_QNT_VERSION`).
pub(super) const QUANTIZATION_VERSION: u32 = 2;

/// What a conversion did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ConvertReport {
    /// Bytes of all tensors before the conversion.
    pub bytes_before: u64,
    /// Bytes of all tensors after it.
    pub bytes_after: u64,
    /// The number of tensors of each type in the output.
    pub types: BTreeMap<String, usize>,
    /// What a user should know, one line each.
    pub notes: Vec<String>,
    /// Files of the model's folder that the output lacks or has in another form.
    pub companions: Vec<Companion>,
}

impl ConvertReport {
    /// Counts a tensor of the output: its type and its length in bytes.
    pub(super) fn count(&mut self, dtype: DType, bytes: u64) {
        self.bytes_after += bytes;
        *self.types.entry(dtype.to_string()).or_default() += 1;
    }
}

/// Writes `gguf` to `out` in the types of `file_type`, by the weights of `imatrix` if there is one.
/// `chat_template` takes the place of its own. `progress` is told how many bytes of how many were converted.
/// `out` must be none of `inputs`.
///
/// # Errors
/// Before anything is written: an architecture whose exceptions are not known; a tensor that cannot be
/// decoded; a type that needs an importance matrix without one, or with one of another size. Later: a value
/// that a type cannot hold, a full disk. After an error `out` is as it was before.
pub fn retype(
    gguf: &GgufModel,
    file_type: FileType,
    imatrix: Option<&Imatrix>,
    out: impl AsRef<Path>,
    inputs: &[&Path],
    chat_template: Option<&str>,
    mut progress: impl FnMut(u64, u64),
) -> Result<ConvertReport> {
    let out = out.as_ref();
    let tensors = retyped(gguf, file_type, imatrix)?;
    let mut report = ConvertReport { notes: notes(&tensors), ..Default::default() };
    report.bytes_before = tensors.iter().map(|t| t.tensor.bytes).sum();
    tensors.iter().for_each(|t| report.count(t.choice.dtype, t.bytes()));

    let mut new = ComputedTensors::default();
    for tensor in tensors.iter().filter(|tensor| tensor.changes()) {
        new.replace([tensor.tensor.name.as_str()], tensor);
    }
    let total = new.iter().map(|(tensor, _)| tensor.tensor.bytes).sum();
    let mut converted = 0;
    let hooks = Hooks {
        confirm: None,
        done: &mut |tensor: &&Retyped<'_>, ()| {
            converted += tensor.tensor.bytes;
            progress(converted, total);
        },
    };
    let metadata = metadata(gguf.whole_metadata(), file_type);
    let to = Destination { chat_template, ..Destination::file(out, inputs) };
    rewrite::gguf::write(gguf, Some(&metadata), &new, &to, hooks)?;
    Ok(report)
}

/// Every tensor of a model with its new type, in the model's order.
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
            format!("llama-quantize has rules of its own for '{architecture}' that curmerge does not know");
        let help = "use llama-quantize for this model";
        return Err(Error::input(first.path(), "general.architecture", problem, help));
    }
    let choices = file_type::choose(gguf, file_type, imatrix.is_some());
    let tensors = gguf.tensors().zip(choices);
    tensors
        .map(|((file, tensor), choice)| Retyped::new(&gguf.files()[file], tensor, choice, file_type, imatrix))
        .collect()
}

/// The keys of a model, with those that describe its types at the end.
pub(crate) fn metadata(mut metadata: Vec<(String, Value)>, file_type: FileType) -> Vec<(String, Value)> {
    let own = [("general.quantization_version", QUANTIZATION_VERSION), ("general.file_type", file_type.id())];
    metadata.retain(|(key, _)| own.iter().all(|(own, _)| own != key));
    metadata.extend(own.map(|(key, value)| (key.to_string(), Value::U32(value))));
    metadata
}

/// What a user should know of the choices, one line each.
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

/// What a user should know of tensors that cannot have the wanted type.
pub(super) fn fallbacks<'a>(choices: impl Iterator<Item = (&'a str, &'a Choice)>) -> Option<String> {
    let fallbacks: Vec<_> = choices.filter(|(_, c)| c.instead_of.is_some()).collect();
    let (name, Choice { dtype, instead_of: Some(wanted) }) = fallbacks.first()? else { return None };
    Some(format!(
        "{} tensors have rows that are not whole blocks of the wanted type: {name} is {dtype} instead of {wanted}",
        fallbacks.len(),
    ))
}

/// The `wanted` weights of a tensor that gets this type, if there are some; else what is wrong with them and
/// what to do.
pub(super) fn weights<'a>(
    imatrix: Option<&'a Imatrix>,
    name: &str,
    wanted: usize,
    dtype: DType,
    file_type: FileType,
) -> std::result::Result<Option<&'a [f32]>, (String, &'static str)> {
    let mut weights = imatrix.and_then(|imatrix| imatrix.weights(name));
    if let Some(found) = weights.filter(|w| w.len() != wanted) {
        // Calibration does not count how often each token is looked up.
        if name != "token_embd.weight" {
            let problem =
                format!("the importance matrix has {} weights for it, and it needs {wanted}", found.len());
            return Err((problem, "use the importance matrix of this model"));
        }
        weights = None;
    }
    let edge = matches!(name, "token_embd.weight" | "output.weight");
    if file_type == FileType::Q2_K_S && dtype == DType::Q2_K && weights.is_none() && !edge {
        let problem = "Q2_K_S is useless without an importance matrix for it".to_string();
        return Err((problem, "give one, or use q2_k"));
    }
    Ok(weights)
}

/// A tensor and its new type.
#[derive(Clone, Debug)]
pub(crate) struct Retyped<'a> {
    /// The file that holds it.
    pub(crate) file: &'a Gguf,
    /// As it is stored.
    pub(crate) tensor: &'a GgufTensor,
    /// Its new type.
    pub(crate) choice: Choice,
    /// How much each column counts, for each expert.
    pub(crate) importance: Option<&'a [f32]>,
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
        let mut tensor = Retyped { file, tensor: stored, choice, importance: None };
        if !tensor.changes() {
            return Ok(tensor);
        }
        if !stored.dtype.can_decode() {
            let problem = format!("stored as {}, which curmerge does not read", stored.dtype);
            return Err(error(problem, "convert a file in F32, F16 or BF16"));
        }
        let wanted = tensor.columns() * stored.dims.get(2).map_or(1, |&experts| experts as usize);
        tensor.importance = weights(imatrix, &stored.name, wanted, tensor.choice.dtype, file_type)
            .map_err(|(problem, help)| error(problem, help).avoidable(CallerOption::ImportanceMatrix))?;
        Ok(tensor)
    }

    /// Whether its bytes change.
    pub(crate) fn changes(&self) -> bool {
        self.choice.dtype != self.tensor.dtype
    }

    /// Values of a row.
    fn columns(&self) -> usize {
        self.tensor.dims.first().map_or(1, |&columns| columns as usize)
    }

    /// Length in the output, in bytes.
    fn bytes(&self) -> u64 {
        // The choice of the type made rows whole blocks.
        self.choice.dtype.bytes_for(self.tensor.dims.iter().product()).unwrap_or(0)
    }

    /// These rows in the new type.
    fn rows(&self, rows: Range<usize>) -> Result<Vec<u8>> {
        let (start, count) = (rows.start, rows.len());
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
        let Some(importance) = self.importance else {
            quant::encode(dtype, &values, &mut bytes).map_err(error)?;
            return Ok(bytes);
        };
        let rows_per_expert = self.tensor.dims.get(1).map_or(1, |&rows| rows as usize);
        for (i, (values, bytes)) in values.chunks(columns).zip(bytes.chunks_mut(to)).enumerate() {
            let expert = (start + i) / rows_per_expert;
            let importance = &importance[expert * columns..][..columns];
            quant::encode_weighted(dtype, values, importance, bytes).map_err(error)?;
        }
        Ok(bytes)
    }
}

impl ComputedTensor for Retyped<'_> {
    type Outcome = ();

    fn dtype(&self) -> DType {
        self.choice.dtype
    }

    fn compute(&self, put: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>) -> Result<()> {
        let rows = self.tensor.dims[1..].iter().product::<u64>() as usize;
        in_blocks([rows, self.columns()], |rows| self.rows(rows), |bytes| put(0, bytes))
    }
}
