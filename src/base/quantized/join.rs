//! Finds the tensors of each quantized matrix of a folder.

use std::collections::{BTreeMap, BTreeSet};

use curmerge_formats::dtype::DType;
use curmerge_formats::safetensors::{SafeTensor, SafeTensors};

use super::{Method, QuantizedTensors, Scheme, word};
use crate::base::tensor::StoredTensor;
use crate::{Error, Result};

/// Endings of tensors that only programs read that quantize activations or the cache of keys and values.
const OF_ACTIVATIONS: [&str; 7] = [
    ".input_scale",
    ".input_zero_point",
    ".output_scale",
    ".activation_scale",
    "_activation_scale",
    ".k_scale",
    ".v_scale",
];

/// A quantized matrix.
#[derive(Debug)]
pub(in crate::base) struct Matrix {
    /// `[out, in]`.
    pub shape: [u64; 2],
    /// The codes.
    pub codes: StoredTensor,
    /// The tensors beside them.
    pub beside: QuantizedTensors,
}

/// The quantized matrices of a folder.
#[derive(Debug, Default)]
pub(in crate::base) struct Joined {
    /// By their name in a folder that is not quantized, such as `model.layers.0.self_attn.q_proj.weight`.
    pub matrices: BTreeMap<String, Matrix>,
    /// The names of their tensors, and of those that are not read.
    pub used: BTreeSet<String>,
}

/// The matrices of these files.
///
/// # Errors
/// A tensor of a matrix that is missing, or of another type or shape than the others ask for.
pub(in crate::base) fn join(files: &[SafeTensors], method: Method) -> Result<Joined> {
    let tensors = Tensors::new(files);
    let mut joined = Joined::default();
    for (name, (file, codes)) in &tensors.all {
        if OF_ACTIVATIONS.iter().any(|ending| name.ends_with(ending)) {
            joined.used.insert((*name).to_owned());
            continue;
        }
        let Some(stem) = tensors.stem(method, name, codes) else { continue };
        let (shape, beside) = tensors.matrix(method, stem, codes).ok_or_else(|| {
            let problem = "the tensors beside it are missing, or of another type or shape than it needs";
            let place = format!("tensor '{}'", name.escape_debug());
            Error::input(files[*file].path(), place, problem, "download the folder again")
        })?;
        let parts = beside.parts().map(|part| part.stored_name.clone());
        joined.used.extend(parts.chain([
            (*name).to_owned(),
            format!("{stem}.weight_shape"),
            format!("{stem}.g_idx"),
        ]));
        joined
            .matrices
            .insert(format!("{stem}.weight"), Matrix { shape, codes: stored(*file, codes), beside });
    }
    Ok(joined)
}

/// All tensors of a folder, by name, with the index of their file.
struct Tensors<'f> {
    files: &'f [SafeTensors],
    all: BTreeMap<&'f str, (usize, &'f SafeTensor)>,
}

impl<'f> Tensors<'f> {
    fn new(files: &'f [SafeTensors]) -> Self {
        let of = |(file, shard): (usize, &'f SafeTensors)| {
            shard.tensors().iter().map(move |tensor| (tensor.name.as_str(), (file, tensor)))
        };
        Self { files, all: files.iter().enumerate().flat_map(of).collect() }
    }

    fn get(&self, stem: &str, ending: &str) -> Option<(usize, &'f SafeTensor)> {
        self.all.get(format!("{stem}.{ending}").as_str()).copied()
    }

    /// The tensor of this name, if there is one; else nothing. `None` if it has another shape or type.
    fn optional(&self, stem: &str, ending: &str, shape: [u64; 2]) -> Option<Option<StoredTensor>> {
        let Some((file, tensor)) = self.get(stem, ending) else { return Some(None) };
        (tensor.shape == shape && tensor.dtype == DType::I32).then(|| Some(stored(file, tensor)))
    }

    /// The bytes of a tensor.
    fn bytes(&self, (file, tensor): (usize, &SafeTensor)) -> &'f [u8] {
        &self.files[file].bytes()[tensor.offset as usize..][..tensor.bytes as usize]
    }

    /// The name of the matrix without an ending, if the tensor of this name holds the codes of one.
    fn stem<'n>(&self, method: Method, name: &'n str, codes: &SafeTensor) -> Option<&'n str> {
        match method {
            Method::Gptq { .. } | Method::Awq => name.strip_suffix(".qweight"),
            Method::Packed { .. } => name.strip_suffix(".weight_packed"),
            Method::Scaled { .. } => name
                .strip_suffix(".weight")
                .filter(|_| matches!(codes.dtype, DType::F8_E4M3 | DType::I8))
                .filter(|stem| self.scales(stem).is_some()),
        }
    }

    /// The scales of a matrix with one byte a number.
    fn scales(&self, stem: &str) -> Option<(usize, &'f SafeTensor)> {
        self.get(stem, "weight_scale_inv").or_else(|| self.get(stem, "weight_scale"))
    }

    /// The shape of a matrix, and what is beside its codes. `None` if a tensor is missing or does not fit.
    fn matrix(&self, method: Method, stem: &str, codes: &SafeTensor) -> Option<([u64; 2], QuantizedTensors)> {
        let &[lines, columns] = &codes.shape[..] else { return None };
        let (shape, scheme, scales, zeros, groups) = match method {
            Method::Gptq { bits, less_one } => {
                let (m, bits_each) = (columns, bits as u64);
                let n = lines.checked_mul(32)? / bits_each;
                let (file, scales) = self.get(stem, "scales")?;
                let &[count, _] = &scales.shape[..] else { return None };
                let whole = lines * 32 % bits_each == 0 && m * bits_each % 32 == 0 && count > 0 && count <= n;
                let fits = whole && scales.shape == [count, m] && codes.dtype == DType::I32;
                let zeros = self.optional(stem, "qzeros", [count, m * bits_each / 32])?;
                let groups = match self.get(stem, "g_idx") {
                    None => None,
                    Some(found @ (file, tensor)) => {
                        let bytes = self.bytes(found);
                        let fits = tensor.shape == [n] && tensor.dtype == DType::I32;
                        let within = |i| u64::from(word(bytes, i)) < count;
                        (fits && (0..n as usize).all(within)).then(|| Some(stored(file, tensor)))?
                    }
                };
                (fits && zeros.is_some()).then_some(())?;
                ([m, n], Scheme::Gptq { bits, less_one }, (file, scales), zeros, groups)
            }
            Method::Awq => {
                let (m, n) = (columns.checked_mul(8)?, lines);
                let (file, scales) = self.get(stem, "scales")?;
                let &[count, _] = &scales.shape[..] else { return None };
                let fits =
                    scales.shape == [count, m] && codes.dtype == DType::I32 && count > 0 && n % count == 0;
                let zeros = self.optional(stem, "qzeros", [count, columns])?;
                fits.then_some(())?;
                ([m, n], Scheme::Awq, (file, scales), zeros, None)
            }
            Method::Packed { bits } => {
                let bytes = self.bytes(self.get(stem, "weight_shape")?);
                let (m, n) = match bytes.len() {
                    8 => (u64::from(word(bytes, 0)), u64::from(word(bytes, 1))),
                    16 => (u64::from(word(bytes, 0)), u64::from(word(bytes, 2))),
                    _ => return None,
                };
                let (file, scales) = self.get(stem, "weight_scale")?;
                let count = scales.shape.get(1).copied().unwrap_or(1);
                let words = |count: u64| (count * bits as u64).div_ceil(32);
                let fits =
                    codes.shape == [m, words(n)] && codes.dtype == DType::I32 && count > 0 && count <= n;
                let zeros = self.optional(stem, "weight_zero_point", [words(m), count])?;
                let one_each = scales.shape == [m, count] || scales.shape == [m];
                (fits && one_each && m > 0 && self.get(stem, "weight_g_idx").is_none()).then_some(())?;
                ([m, n], Scheme::Packed { bits }, (file, scales), zeros, None)
            }
            Method::Scaled { block, .. } => {
                let (m, n) = (lines, columns);
                let (file, scales) = self.scales(stem)?;
                let in_blocks = |[height, width]: &[usize; 2]| {
                    scales.shape == [m.div_ceil(*height as u64), n.div_ceil(*width as u64)]
                };
                let whole = [m as usize, n as usize];
                let block = match &scales.shape[..] {
                    [] | [1] | [1, 1] => whole,
                    _ if block.as_ref().is_some_and(in_blocks) => block?,
                    [rows] | [rows, 1] if *rows == m => [1, whole[1]],
                    _ => return None,
                };
                // Zeros of other than 0 come with asymmetric settings alone.
                (m > 0 && n > 0).then_some(())?;
                (whole.map(|size| size as u64), Scheme::Scaled { block }, (file, scales), None, None)
            }
        };
        let (file, scales) = scales;
        matches!(scales.dtype, DType::F16 | DType::BF16 | DType::F32).then_some(())?;
        let scales = stored(file, scales);
        Some((shape, QuantizedTensors { scheme, method: method.name(), scales, zeros, groups }))
    }
}

fn stored(file: usize, tensor: &SafeTensor) -> StoredTensor {
    StoredTensor {
        stored_name: tensor.name.clone(),
        dtype: tensor.dtype,
        file,
        offset: tensor.offset,
        bytes: tensor.bytes,
    }
}
