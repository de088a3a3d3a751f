//! The tensors of the file: which there are, in which order and type, and their bytes.

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{GgufTensor, NewTensor, Value};
use curmerge_formats::imatrix::Imatrix;
use curmerge_formats::output::{Queue, Stretch};
use curmerge_formats::quant;
use curmerge_formats::safetensors::SafeTensors;

use crate::base::{Base, BaseTensor, Files, Weight};
use crate::convert::{Choice, FileType, file_type, retype};
use crate::{Error, Result};

/// Tensors that old folders have and nobody needs.
const LEFT_OUT: [&str; 3] = [".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq"];

/// Where a tensor's values come from.
enum Values<'a> {
    /// Computed: one row.
    Made(Vec<f32>),
    /// Stored in this file of the folder.
    Stored { file: &'a SafeTensors, tensor: &'a BaseTensor, weight: Weight<'a> },
}

/// A tensor to be written.
pub(super) struct Tensor<'a> {
    name: String,
    /// ggml's order: the row length first.
    dims: Vec<u64>,
    values: Values<'a>,
    dtype: DType,
    weights: Option<&'a [f32]>,
}

/// The tensors in the converter's order, all in F32: what it makes itself, then each file's by name.
pub(super) fn of<'a>(base: &'a Base, made: Vec<(&str, Vec<f32>)>) -> Result<Vec<Tensor<'a>>> {
    let mut tensors: Vec<Tensor<'a>> = made
        .into_iter()
        .map(|(name, values)| Tensor {
            name: name.to_owned(),
            dims: vec![values.len() as u64],
            values: Values::Made(values),
            dtype: DType::F32,
            weights: None,
        })
        .collect();
    let files: &[SafeTensors] = match base.files() {
        Files::HuggingFace(files) => files,
        Files::Gguf(_) => &[],
    };
    let mut stored: Vec<(&String, &BaseTensor)> = base.tensors().iter().collect();
    stored.retain(|(_, tensor)| !LEFT_OUT.iter().any(|ending| tensor.stored_name.ends_with(ending)));
    stored.sort_by_key(|(_, tensor)| (tensor.file, &tensor.stored_name));
    for (canonical, tensor) in stored {
        let stem = tensor.stored_name.strip_suffix(".weight");
        if stem.is_none_or(|stem| base.architecture().of_hugging_face(stem).is_none()) {
            let place = format!("tensor '{}'", tensor.stored_name.escape_debug());
            let problem = format!("no part of the {} architecture", base.architecture().gguf);
            let mend = "a quantized, adapted or changed model cannot be converted; use the original";
            return Err(Error::input(files[tensor.file].path(), place, problem, mend));
        }
        tensors.push(Tensor {
            name: format!("{canonical}.weight"),
            dims: tensor.shape.iter().rev().copied().collect(),
            values: Values::Stored { file: &files[tensor.file], tensor, weight: base.weight(canonical)? },
            dtype: DType::F32,
            weights: None,
        });
    }
    Ok(tensors)
}

/// The converter's `auto`: half precision of the kind that the first matrix in either has.
pub(super) fn guess(tensors: &[Tensor<'_>]) -> FileType {
    let mut stored = tensors.iter().filter(|tensor| tensor.dims.len() >= 2).filter_map(Tensor::stored_type);
    match stored.find(|dtype| matches!(dtype, DType::BF16 | DType::F16)) {
        Some(DType::BF16) => FileType::BF16,
        _ => FileType::F16,
    }
}

/// Gives every tensor its type: for the types that the converter writes by its rules, for the others by
/// llama-quantize's from the converter's F32 file, of which `planned` and `get` tell. Returns a note if there is one.
pub(super) fn set_types<'a, 'v>(
    tensors: &mut [Tensor<'a>],
    planned: &[GgufTensor],
    get: &dyn Fn(&str) -> Option<&'v Value>,
    file_type: FileType,
    imatrix: Option<&'a Imatrix>,
) -> Result<Option<String>> {
    let choices: Vec<Choice> = if converter_writes(file_type) {
        planned.iter().map(|tensor| converted(tensor, file_type)).collect()
    } else {
        let planned: Vec<&GgufTensor> = planned.iter().collect();
        file_type::choose_among(get, &planned, file_type, imatrix.is_some())
    };
    for (tensor, choice) in tensors.iter_mut().zip(&choices) {
        tensor.dtype = choice.dtype;
        if choice.dtype != DType::F32 {
            let weights = retype::weights(imatrix, &tensor.name, tensor.columns(), choice.dtype, file_type);
            tensor.weights = weights.map_err(|(problem, mend)| tensor.error(problem, mend))?;
        }
    }
    Ok(retype::fallbacks(planned.iter().map(|tensor| tensor.name.as_str()).zip(&choices)))
}

/// Puts the tensors in the order in which llama-quantize writes them: by layer, then by name.
pub(super) fn sort(tensors: &mut [Tensor<'_>]) {
    tensors.sort_by(|a, b| {
        let layers = file_type::layer(&a.name).cmp(&file_type::layer(&b.name));
        layers.then_with(|| a.name.cmp(&b.name))
    });
}

/// Whether llama.cpp's converter itself has this `--outtype`.
pub(super) fn converter_writes(file_type: FileType) -> bool {
    matches!(file_type, FileType::F32 | FileType::F16 | FileType::BF16 | FileType::Q8_0)
}

fn converted(tensor: &GgufTensor, file_type: FileType) -> Choice {
    if tensor.dims.len() <= 1 || tensor.name.ends_with("_norm.weight") {
        return Choice { dtype: DType::F32, instead_of: None };
    }
    let wanted = file_type.main_type();
    let whole = tensor.dims[0].is_multiple_of(wanted.block_elements() as u64);
    let dtype = if whole { wanted } else { DType::F16 };
    Choice { dtype, instead_of: (!whole).then_some(wanted) }
}

impl Tensor<'_> {
    /// Name, type and dimensions for the header.
    pub(super) fn header(&self) -> NewTensor {
        NewTensor { name: self.name.clone(), dtype: self.dtype, dims: self.dims.clone() }
    }

    /// How many numbers it has.
    pub(super) fn elements(&self) -> u64 {
        // The folder's reader has checked that they are no more than the bytes of a file.
        self.dims.iter().product()
    }

    /// Bytes in the folder.
    pub(super) fn stored_bytes(&self) -> u64 {
        match &self.values {
            Values::Made(_) => 0,
            Values::Stored { tensor, .. } => tensor.bytes,
        }
    }

    fn stored_type(&self) -> Option<DType> {
        match &self.values {
            Values::Made(_) => None,
            Values::Stored { tensor, .. } => Some(tensor.dtype),
        }
    }

    fn columns(&self) -> usize {
        self.dims.first().map_or(1, |&columns| columns as usize)
    }

    fn error(&self, problem: String, mend: &str) -> Error {
        let place = format!("tensor '{}'", self.name);
        match &self.values {
            Values::Made(_) => Error::request(format!("{place}: {problem}"), mend),
            Values::Stored { file, .. } => Error::input(file.path(), place, problem, mend),
        }
    }

    /// Its bytes, where they are those of the folder.
    pub(super) fn copied(&self) -> Option<Stretch<'_>> {
        match &self.values {
            Values::Stored { file, tensor, .. }
                if tensor.dtype == self.dtype && tensor.rotary_halves.is_none() =>
            {
                Some(Stretch::Copy { source: file.file(), offset: tensor.offset, len: tensor.bytes })
            }
            _ => None,
        }
    }

    /// Computes its bytes, to stand at `offset`, unless they are [copied](Self::copied).
    pub(super) fn write_at(&self, offset: u64, out: &Queue<'_>) -> Result<()> {
        match &self.values {
            Values::Made(values) => {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Ok(out.write_at(offset, bytes)?)
            }
            Values::Stored { .. } if self.copied().is_some() => Ok(()),
            Values::Stored { weight, .. } => {
                let rows = |start, count| self.rows(weight, start, count);
                retype::write_rows(out, offset, weight.rows(), self.columns(), rows)
            }
        }
    }

    /// `count` canonical rows from `start` on, in the new type.
    fn rows(&self, weight: &Weight<'_>, start: usize, count: usize) -> Result<Vec<u8>> {
        let columns = self.columns();
        if weight.dtype() == self.dtype {
            let row = |row| {
                &weight.stored_bytes()[weight.stored_row(row) * weight.row_bytes()..][..weight.row_bytes()]
            };
            return Ok((start..start + count).flat_map(row).copied().collect());
        }
        let mut values = vec![0.0; count * columns];
        weight.decode_rows(start..start + count, &mut values);
        let mut bytes = vec![0; self.dtype.bytes_for(columns as u64).unwrap_or(0) as usize * count];
        let encoded = match self.weights {
            Some(weights) => quant::encode_weighted(self.dtype, &values, weights, &mut bytes),
            None => quant::encode(self.dtype, &values, &mut bytes),
        };
        encoded.map_err(|error| {
            self.error(format!("rows from {start}: {error}"), "or use another --type, such as bf16 or f32")
        })?;
        Ok(bytes)
    }
}
