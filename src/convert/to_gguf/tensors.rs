//! The tensors of the file: their order, their types and their bytes.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{GgufTensor, NewTensor, Value};
use curmerge_formats::imatrix::Imatrix;
use curmerge_formats::mmap::MappedFile;
use curmerge_formats::output::Piece;
use curmerge_formats::quant;
use half::f16;

use super::model_name::Size;
use crate::arch::{Endings, JoinedExperts, JoinedKind, TensorNames};
use crate::base::{Base, BaseTensor, Files, RowOrder, Weight, layer_part};
use crate::convert::file_type::{self, Choice, FileType};
use crate::convert::retype;
use crate::error::CallerOption;
use crate::rewrite::{self, ComputedTensor, in_blocks};
use crate::{Error, Result};

/// Endings of buffers in old folders that no program reads.
const LEFT_OUT: [&str; 5] =
    [".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq", ".attn.masked_bias", ".attn.bias"];

/// Where a tensor's values come from.
#[expect(clippy::large_enum_variant, reason = "a model has few of them")]
enum Values<'a> {
    /// Computed: one row.
    Made(Vec<f32>),
    /// Stored in the base.
    Stored(Stored<'a>),
    /// The same matrix of every expert.
    Experts(Vec<Stored<'a>>),
    /// Matrices that are stored separately, to be written one after the other.
    Parts(Vec<Stored<'a>>),
}

/// A tensor of the base.
pub(super) struct Stored<'a> {
    path: &'a Path,
    /// The file to copy it from, if that holds the bytes that the converter would write.
    file: Option<&'a MappedFile>,
    tensor: &'a BaseTensor,
    weight: Weight<'a>,
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

impl<'a> Tensor<'a> {
    fn new(name: String, dims: Vec<u64>, values: Values<'a>) -> Self {
        Tensor { name, dims, values, dtype: DType::F32, weights: None }
    }
}

/// A tensor of the base under the name that a Hugging Face folder has for it.
struct Named<'a> {
    name: String,
    /// Its number among those whose rows the folder has in one tensor.
    part: usize,
    canonical: &'a str,
    tensor: &'a BaseTensor,
}

/// A tensor under its name in a folder. An ONNX model's tensors get transformers' names; the parts of a
/// matrix all get the name of the whole.
fn named<'a>(base: &'a Base, canonical: &'a str, tensor: &'a BaseTensor) -> Named<'a> {
    let (mut name, mut number) = (tensor.stored_name.clone(), 0);
    if let Files::Onnx(_) = base.files() {
        let (stem, endings) = base.architecture().stem_and_endings(canonical);
        let whole = base.whole_of(stem).unwrap_or(stem);
        if let Some((joined, layer, part)) = base.architecture().joined_rows_with(stem) {
            (name, number) = (joined.name(layer) + endings.hugging_face, part);
        } else if let Some((joined, layer)) = in_one_tensor(base, stem, tensor) {
            let biases = endings.gguf == ".bias";
            name = joined.name(layer, if biases { JoinedKind::Biases } else { JoinedKind::Weights });
        } else if let Some((theirs, _)) = base.to_hugging_face(whole) {
            name = theirs + endings.hugging_face;
        }
    }
    Named { name, part: number, canonical, tensor }
}

/// The tensor in which the folder has the matrices of all experts, this one among them, and its layer. An ONNX model's
/// folder is the one that it could become: with each matrix alone, if that has a name.
fn in_one_tensor<'a>(base: &'a Base, stem: &str, tensor: &BaseTensor) -> Option<(&'a JoinedExperts, usize)> {
    let has_no_name = |line: &TensorNames| line.hugging_face.is_empty();
    let joined = match base.files() {
        Files::Onnx(_) => base.architecture().line(stem).is_some_and(has_no_name),
        _ => tensor.slice.is_some(),
    };
    if joined { base.architecture().joined_with(stem) } else { None }
}

/// The tensors in the converter's order, all in F32: first `made`, those that it computes, then each file's
/// by name. `own_head` says whether the model has an output head of its own.
pub(super) fn of<'a>(base: &'a Base, made: Vec<(&str, Vec<f32>)>, own_head: bool) -> Result<Vec<Tensor<'a>>> {
    let converter = &base.architecture().converter;
    let vector = |name: &str, values: Vec<f32>| {
        Tensor::new(name.to_owned(), vec![values.len() as u64], Values::Made(values))
    };
    let mut tensors: Vec<Tensor<'a>> = made.into_iter().map(|(name, values)| vector(name, values)).collect();
    let mut all: Vec<Named<'a>> =
        base.tensors().iter().map(|(canonical, tensor)| named(base, canonical, tensor)).collect();
    all.retain(|Named { name, canonical, .. }| {
        let masks = LEFT_OUT.iter().any(|ending| name.ends_with(ending));
        let seeing = converter.dropped_prefixes.iter().any(|start| name.starts_with(start));
        !(masks || seeing || !own_head && *canonical == "output")
    });
    let by_file = matches!(base.files(), Files::HuggingFace(_));
    all.sort_by(|a, b| {
        // The converter repacks MXFP4 before all else.
        let later = |named: &Named<'_>| !named.tensor.is_mxfp4();
        let first = later(a).cmp(&later(b));
        let files = if by_file { a.tensor.file.cmp(&b.tensor.file) } else { Ordering::Equal };
        first.then(files).then_with(|| (&a.name, a.part).cmp(&(&b.name, b.part)))
    });
    let stored = |name: &str| -> Result<Stored<'a>> {
        let missing = || {
            let help = "the model is incomplete; download or export it again";
            Error::input(base.path(), format!("tensor '{name}'"), "missing", help)
        };
        Ok(Stored::new(base, base.tensors().get(name).ok_or_else(missing)?, base.weight(name)?))
    };
    // How many expert matrices of each block have been seen.
    let mut parts: BTreeMap<usize, usize> = BTreeMap::new();
    let experts = base.config().experts.map_or(0, |experts| experts.count);
    let mut joined_before = "";
    for Named { name, canonical, tensor, .. } in &all {
        let (stem, Endings { gguf: ending, hugging_face }) = base.architecture().stem_and_endings(canonical);
        if let Some((joined, layer)) = in_one_tensor(base, stem, tensor) {
            if joined_before == name {
                continue;
            }
            joined_before = name;
            for part in joined.parts {
                let own = |expert| JoinedExperts::part(part, layer, expert);
                let bias = if ending == ".bias" { ending } else { "" };
                let all = (0..experts).map(|expert| stored(&format!("{}{bias}", own(expert))));
                let all = all.collect::<Result<Vec<_>>>()?;
                let matrices = own(0);
                let name = matrices.split_once('[').map_or(&*matrices, |(name, _)| name);
                let mut dims = tensor_dims(&all[0]);
                dims.push(experts as u64);
                tensors.push(Tensor::new(format!("{name}{ending}"), dims, Values::Experts(all)));
            }
            continue;
        }
        if let Some((joined, layer, _)) =
            base.architecture().joined_rows_with(stem).filter(|_| tensor.slice.is_some())
        {
            if joined_before == name {
                continue;
            }
            joined_before = name;
            for (part, _) in joined.parts {
                let part = format!("blk.{layer}.{part}");
                let stored = stored(&part)?;
                tensors.push(Tensor::new(part + ".weight", tensor_dims(&stored), Values::Stored(stored)));
            }
            continue;
        }
        if let Some(whole) = base.whole_of(stem) {
            let name = format!("{whole}{ending}");
            let made = tensors.iter().any(|tensor| tensor.name == name);
            if !made && ending == ".bias" {
                let values = base.vector(&name)?;
                tensors.push(vector(&name, values));
            } else if !made {
                let parts = base.parts(whole);
                let parts = parts.iter().map(|(part, _)| stored(part)).collect::<Result<Vec<_>>>()?;
                let rows = parts.iter().map(|part| part.weight.rows() as u64).sum();
                let dims = vec![parts[0].weight.cols() as u64, rows];
                tensors.push(Tensor::new(name, dims, Values::Parts(parts)));
            }
            continue;
        }
        let line = base.architecture().line(stem).filter(|_| name.ends_with(hugging_face));
        if line.is_none_or(|line| ending == ".bias" && line.bias.is_none()) {
            let place = format!("tensor '{}'", tensor.stored_name.escape_debug());
            let problem = format!("no part of the {} architecture", base.architecture().name);
            let help = "a quantized, adapted or changed model cannot be converted; use the original";
            return Err(Error::input(file_path(base, tensor), place, problem, help));
        }
        if line.is_some_and(|line| line.in_metadata) {
            continue;
        }
        if let (true, Some((layer, _))) = (canonical.ends_with(']'), layer_part(canonical)) {
            // The converter writes a block's experts when it has seen the last of them.
            let come = parts.entry(layer).or_default();
            *come += 1;
            if *come == converter.experts.len() * experts {
                for part in converter.experts {
                    let name = format!("blk.{layer}.{part}");
                    let all = (0..experts).map(|expert| stored(&format!("{name}[{expert}]")));
                    let all = all.collect::<Result<Vec<_>>>()?;
                    let mut dims: Vec<u64> = tensor_dims(&all[0]);
                    dims.push(experts as u64);
                    tensors.push(Tensor::new(format!("{name}.weight"), dims, Values::Experts(all)));
                }
            }
            continue;
        }
        let name = format!("{stem}{ending}");
        // A vector whose values or their order differ from what is stored.
        let permuted = tensor.rotary_halves.is_some() || tensor.orders[0] != RowOrder::CANONICAL;
        let differs = tensor.unit_offset || tensor.log_of_negative || permuted;
        // A vector that GGUF has as a matrix.
        let as_matrix = |length: u64| {
            let rows = match line? {
                line if line.one_row => 1,
                line => base.config().size(line.rows_in_gguf?, None).max(1) as u64,
            };
            Some(if line?.one_row { vec![length, 1] } else { vec![length / rows, rows] })
        };
        if tensor.shape.len() == 1 && differs {
            let mut values = base.vector(canonical)?;
            if tensor.dtype == DType::F16 {
                // The converter computes in half precision.
                values.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32());
            }
            let mut made = vector(&name, values);
            made.dims = as_matrix(made.dims[0]).unwrap_or(made.dims);
            tensors.push(made);
            continue;
        }
        let stored = stored(canonical)?;
        let dims = tensor_dims(&stored);
        let dims = as_matrix(dims[0]).filter(|_| dims.len() == 1).unwrap_or(dims);
        tensors.push(Tensor::new(name, dims, Values::Stored(stored)));
    }
    if let Some((layer, _)) = parts.iter().find(|(_, come)| **come != converter.experts.len() * experts) {
        let place = format!("block {layer}");
        let problem = "some matrices of its experts are tensors of their own, and others are in one tensor";
        return Err(Error::input(base.path(), place, problem, "download the folder again"));
    }
    Ok(tensors)
}

/// The file that a tensor is stored in; for an ONNX model, the model file.
fn file_path<'a>(base: &'a Base, tensor: &BaseTensor) -> &'a Path {
    match base.files() {
        Files::HuggingFace(files) => files[tensor.file].path(),
        Files::Gguf(_) | Files::Onnx(_) => base.path(),
    }
}

fn tensor_dims(stored: &Stored<'_>) -> Vec<u64> {
    let mut dims = stored.tensor.shape.clone();
    if !stored.tensor.transposed {
        dims.reverse();
    }
    dims
}

/// The size of the model with these tensors.
pub(super) fn size(tensors: &[Tensor<'_>]) -> Size {
    let mut size = Size::default();
    for tensor in tensors {
        let elements: u64 = tensor.dims.iter().product();
        size.parameters += elements;
        size.with_one_expert += match &tensor.values {
            Values::Experts(all) => {
                size.experts = all.len() as u64;
                elements / size.experts.max(1)
            }
            _ => elements,
        };
    }
    size
}

/// The converter's `auto`: the half-precision type of the first matrix that has one.
pub(super) fn guess(tensors: &[Tensor<'_>]) -> FileType {
    let mut stored = tensors.iter().filter(|tensor| tensor.dims.len() >= 2).filter_map(Tensor::stored_type);
    match stored.find(|dtype| matches!(dtype, DType::BF16 | DType::F16)) {
        Some(DType::BF16) => FileType::BF16,
        _ => FileType::F16,
    }
}

/// Gives every tensor its type: by the converter's rules if it can write the file type, or else by those of
/// llama-quantize for the converter's F32 file, whose tensors are `planned` and whose metadata `get` looks
/// up. Returns a note on tensors that get another type than wanted.
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
        if converter_writes(file_type) && tensor.is_mxfp4() {
            tensor.dtype = DType::MXFP4;
            continue;
        }
        if choice.dtype != DType::F32 {
            let weights = retype::weights(imatrix, &tensor.name, tensor.columns(), choice.dtype, file_type);
            tensor.weights = weights.map_err(|(problem, help)| {
                tensor.error(problem, help).avoidable(CallerOption::ImportanceMatrix)
            })?;
        }
    }
    Ok(retype::fallbacks(planned.iter().map(|tensor| tensor.name.as_str()).zip(&choices)))
}

/// Puts the tensors in the order in which llama-quantize writes them: by layer, then by name; and their dimensions in
/// its form.
pub(super) fn sort(tensors: &mut [Tensor<'_>]) {
    tensors.iter_mut().for_each(|tensor| tensor.dims = rewrite::gguf::trimmed(&tensor.dims).to_vec());
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
    let name = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
    if tensor.dims.len() <= 1 || name.ends_with("_norm") || file_type::stays_f32(name) {
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

    /// The tensors of the base that it consists of.
    pub(super) fn parts(&self) -> &[Stored<'_>] {
        match &self.values {
            Values::Made(_) => &[],
            Values::Stored(stored) => std::slice::from_ref(stored),
            Values::Experts(all) | Values::Parts(all) => all,
        }
    }

    /// Bytes in the base.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.parts().iter().map(|part| part.tensor.own_bytes()).sum()
    }

    /// Whether its codes are MXFP4's, which GGUF files have, too.
    pub(super) fn is_mxfp4(&self) -> bool {
        self.parts().first().is_some_and(|part| part.tensor.is_mxfp4())
    }

    fn stored_type(&self) -> Option<DType> {
        Some(self.parts().first()?.tensor.dtype)
    }

    fn columns(&self) -> usize {
        self.dims.first().map_or(1, |&columns| columns as usize)
    }

    fn error(&self, problem: String, help: &str) -> Error {
        let place = format!("tensor '{}'", self.name);
        match self.parts().first() {
            None => Error::request(format!("{place}: {problem}"), help),
            Some(part) => Error::input(part.path, place, problem, help),
        }
    }

    /// Its pieces, the first at `offset`: copies of parts that the folder holds as they are written, and new
    /// values of the other parts, by these indices.
    pub(super) fn pieces(&self, offset: u64, indices: Range<usize>) -> Vec<(u64, Piece<'_>)> {
        if let Values::Made(values) = &self.values {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            return vec![(offset, Piece::Bytes(bytes))];
        }
        let mut next = offset;
        let placed = self.parts().iter().zip(indices).map(|(part, index)| {
            // A vector that is written as a matrix is one row here.
            let row = self.dtype.bytes_for(part.weight.cols() as u64).unwrap_or(0);
            let (here, len) = (next, row * part.weight.rows() as u64);
            next += len;
            let piece = match part.as_written(self.dtype) {
                Some(source) => Piece::Copy { source, offset: part.tensor.offset, len: part.tensor.bytes },
                None => Piece::Computed { index, len },
            };
            (here, piece)
        });
        placed.collect()
    }

    /// Canonical rows of a part, in the new type.
    fn rows(&self, part: usize, weight: &Weight<'_>, rows: Range<usize>) -> Result<Vec<u8>> {
        let (start, count) = (rows.start, rows.len());
        let columns = weight.cols();
        if weight.dtype() == self.dtype && weight.has_whole_rows() {
            let row = |row| {
                &weight.stored_bytes()[weight.stored_row(row) * weight.row_bytes()..][..weight.row_bytes()]
            };
            return Ok((start..start + count).flat_map(row).copied().collect());
        }
        if let Some(codes) = weight
            .quantized()
            .filter(|_| self.dtype == DType::MXFP4 && self.is_mxfp4() && !weight.has_permuted_columns())
        {
            let row = |row| codes.mxfp4_row(weight.stored_row(row));
            return Ok((start..start + count).filter_map(row).flatten().collect());
        }
        let mut values = vec![0.0; count * columns];
        weight.decode_rows(start..start + count, &mut values);
        let mut bytes = vec![0; self.dtype.bytes_for(columns as u64).unwrap_or(0) as usize * count];
        // One importance for each column, for each expert.
        let weights = self.weights.and_then(|weights| {
            let own = weights.get(part * columns..(part + 1) * columns);
            own.or(weights.get(..columns))
        });
        let encoded = match weights {
            Some(weights) => quant::encode_weighted(self.dtype, &values, weights, &mut bytes),
            None => quant::encode(self.dtype, &values, &mut bytes),
        };
        encoded.map_err(|error| {
            let help = "or use another type, such as bf16 or f32";
            self.error(format!("rows from {start}: {error}"), help).avoidable(CallerOption::FileType)
        })?;
        Ok(bytes)
    }
}

impl ComputedTensor for Tensor<'_> {
    type Outcome = ();

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn compute(&self, put: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>) -> Result<()> {
        for (number, part) in self.parts().iter().enumerate() {
            if part.as_written(self.dtype).is_none() {
                in_blocks(
                    [part.weight.rows(), part.weight.cols()],
                    |rows| self.rows(number, &part.weight, rows),
                    |bytes| put(number, bytes),
                )?;
            }
        }
        Ok(())
    }
}

impl<'a> Stored<'a> {
    fn new(base: &'a Base, tensor: &'a BaseTensor, weight: Weight<'a>) -> Self {
        let file = match base.files() {
            Files::HuggingFace(files) => Some(files[tensor.file].file()),
            Files::Gguf(_) | Files::Onnx(_) => None,
        };
        Stored { path: file_path(base, tensor), file, tensor, weight }
    }

    /// The file that holds the bytes to write in this type, if one does.
    fn as_written(&self, dtype: DType) -> Option<&'a MappedFile> {
        let same =
            self.tensor.dtype == dtype && self.tensor.is_plain() && self.tensor.rotary_halves.is_none();
        let same = same && self.tensor.orders == [RowOrder::CANONICAL; 2] && self.tensor.slice.is_none();
        self.file.filter(|_| same && !self.tensor.transposed)
    }
}
