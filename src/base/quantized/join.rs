//! Finds the tensors of each quantized matrix of a folder.

use std::collections::{BTreeMap, BTreeSet};

use curmerge_formats::dtype::DType;
use curmerge_formats::safetensors::{SafeTensor, SafeTensors};

use super::{Method, QuantizedTensors, Scheme, mxfp4, word};
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
    let tensors = Tensors::new(files)?;
    let error = |file: usize, name: &str, problem| {
        let place = format!("tensor '{}'", name.escape_debug());
        let help = "download the folder again, or use the model that it was made from, or a GGUF file of it";
        Error::input(files[file].path(), place, problem, help)
    };
    let quantizes_activations = matches!(method, Method::Scaled { .. } | Method::Packed { .. });
    let mut joined = Joined::default();
    for (name, (file, codes)) in &tensors.all {
        if quantizes_activations && OF_ACTIVATIONS.iter().any(|ending| name.ends_with(ending)) {
            joined.used.insert((*name).to_owned());
            continue;
        }
        let Some(stem) = tensors.stem(method, name, codes) else { continue };
        let (shape, beside) = tensors.matrix(method, stem, codes).ok_or_else(|| {
            error(*file, name, "the tensors beside it are missing, or of another type or shape than it needs")
        })?;
        let parts = beside.parts().map(|part| part.stored_name.clone());
        joined.used.extend(parts.chain([
            (*name).to_owned(),
            format!("{stem}.weight_shape"),
            format!("{stem}.weight_zero_point"),
            format!("{stem}.g_idx"),
        ]));
        joined
            .matrices
            .insert(format!("{stem}.weight"), Matrix { shape, codes: stored(*file, codes), beside });
    }
    // Without its scales such a tensor is no weight.
    let codes = |tensor: &SafeTensor| {
        use DType::*;
        matches!(tensor.dtype, F8_E4M3 | F8_E5M2 | F8_E4M3FNUZ | F8_E5M2FNUZ | F8_E8M0 | I8 | U8)
    };
    match tensors.all.iter().find(|(name, (_, tensor))| codes(tensor) && !joined.used.contains(**name)) {
        Some((name, (file, _))) => {
            Err(error(*file, name, "its scales are not found, or of a form that is not read"))
        }
        None => Ok(joined),
    }
}

/// All tensors of a folder, by name, with the index of their file.
struct Tensors<'f> {
    files: &'f [SafeTensors],
    all: BTreeMap<&'f str, (usize, &'f SafeTensor)>,
}

impl<'f> Tensors<'f> {
    fn new(files: &'f [SafeTensors]) -> Result<Self> {
        let of = |(file, shard): (usize, &'f SafeTensors)| {
            shard.tensors().iter().map(move |tensor| (tensor.name.as_str(), (file, tensor)))
        };
        let mut all = BTreeMap::new();
        for (name, (file, tensor)) in files.iter().enumerate().flat_map(of) {
            if all.insert(name, (file, tensor)).is_some() {
                let problem = "stored twice in this folder's files";
                let (place, help) =
                    (format!("tensor '{}'", name.escape_debug()), "download the folder again");
                return Err(Error::input(files[file].path(), place, problem, help));
            }
        }
        Ok(Self { files, all })
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
            Method::Gptq { .. } | Method::Awq { .. } => name.strip_suffix(".qweight"),
            Method::Packed { .. } => name.strip_suffix(".weight_packed"),
            Method::Mxfp4 => name.strip_suffix("_blocks"),
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
        if method == Method::Mxfp4 {
            let Found { shape, scheme, scales: (file, scales), .. } = self.mxfp4(stem, codes)?;
            let (codes_name, scales) = (codes.name.clone(), stored(file, scales));
            let (zeros, groups) = (None, None);
            return Some((
                shape,
                QuantizedTensors { scheme, method: method.name(), codes_name, scales, zeros, groups },
            ));
        }
        let &[lines, columns] = &codes.shape[..] else { return None };
        let in_words = codes.dtype == DType::I32;
        let Found { shape, scheme, scales: (file, scales), zeros, groups } = match method {
            Method::Gptq { bits, less_one, group } if in_words => {
                self.gptq(stem, [lines, columns], (bits, less_one), group)?
            }
            Method::Awq { group } if in_words => self.awq(stem, [lines, columns], group)?,
            Method::Packed { bits, group } if in_words => self.packed(stem, [lines, columns], bits, group)?,
            Method::Scaled { block, .. } => self.scaled(stem, [lines, columns], block)?,
            _ => return None,
        };
        matches!(scales.dtype, DType::F16 | DType::BF16 | DType::F32).then_some(())?;
        let (codes_name, scales) = (codes.name.clone(), stored(file, scales));
        Some((shape, QuantizedTensors { scheme, method: method.name(), codes_name, scales, zeros, groups }))
    }

    fn gptq(
        &self,
        stem: &str,
        [words, m]: [u64; 2],
        (bits, less_one): (usize, bool),
        group: Option<u64>,
    ) -> Option<Found<'f>> {
        let (code_bits, zero_bits) = (words.checked_mul(32)?, m.checked_mul(bits as u64)?);
        let n = code_bits / bits as u64;
        let scales = self.get(stem, "scales")?;
        let count = *scales.1.shape.first()?;
        let fits = code_bits % bits as u64 == 0 && zero_bits % 32 == 0 && scales.1.shape == [count, m];
        let zeros = Some(self.optional(stem, "qzeros", [count, zero_bits / 32])??);
        let (groups, run) = match self.get(stem, "g_idx") {
            None => (None, run(group, n, count)?),
            Some(found @ (file, tensor)) => {
                let bytes = self.bytes(found);
                let within = |i| u64::from(word(bytes, i)) < count;
                let fits = tensor.shape == [n] && tensor.dtype == DType::I32 && (0..n as usize).all(within);
                (Some(fits.then(|| stored(file, tensor))?), n)
            }
        };
        let scheme = Scheme::Gptq { bits, less_one, run: run as usize };
        (fits && n > 0).then_some(Found { shape: [m, n], scheme, scales, zeros, groups })
    }

    fn awq(&self, stem: &str, [n, words]: [u64; 2], group: Option<u64>) -> Option<Found<'f>> {
        let m = words.checked_mul(8)?;
        let scales = self.get(stem, "scales")?;
        let count = *scales.1.shape.first()?;
        let scheme = Scheme::Awq { run: run(group, n, count)? as usize };
        let zeros = self.optional(stem, "qzeros", [count, words])?;
        (scales.1.shape == [count, m]).then_some(Found { shape: [m, n], scheme, scales, zeros, groups: None })
    }

    fn packed(&self, stem: &str, shape: [u64; 2], bits: usize, group: Option<u64>) -> Option<Found<'f>> {
        let bytes = self.bytes(self.get(stem, "weight_shape")?);
        // Two numbers of 32 or of 64 bits.
        let [m, n] = match bytes.len() {
            8 => [0, 1],
            16 => [0, 2],
            _ => return None,
        }
        .map(|at| u64::from(word(bytes, at)));
        let scales = self.get(stem, "weight_scale")?;
        let count = scales.1.shape.get(1).copied().unwrap_or(1);
        let words = |count: u64| (count * bits as u64).div_ceil(32);
        let scheme = Scheme::Packed { bits, run: run(group, n, count)? as usize };
        let zeros = self.optional(stem, "weight_zero_point", [words(m), count])?;
        let one_each = scales.1.shape == [m, count] || scales.1.shape == [m];
        let fits = one_each && shape == [m, words(n)] && m > 0 && self.get(stem, "weight_g_idx").is_none();
        fits.then_some(Found { shape: [m, n], scheme, scales, zeros, groups: None })
    }

    /// Any dimensions before the last two are outputs.
    fn mxfp4(&self, stem: &str, codes: &SafeTensor) -> Option<Found<'f>> {
        let scales = self.all.get(format!("{stem}_scales").as_str()).copied()?;
        let (&bytes, blocks) = codes.shape.split_last()?;
        let (&per_row, rows) = blocks.split_last()?;
        let m = rows.iter().try_fold(1u64, |all, &rows| all.checked_mul(rows))?;
        let n = per_row.checked_mul(mxfp4::BLOCK as u64)?;
        let typed = codes.dtype == DType::U8 && matches!(scales.1.dtype, DType::U8 | DType::F8_E8M0);
        let fits = typed && bytes == mxfp4::BLOCK as u64 / 2 && scales.1.shape == blocks && m > 0 && n > 0;
        fits.then_some(Found { shape: [m, n], scheme: Scheme::Mxfp4, scales, zeros: None, groups: None })
    }

    fn scaled(&self, stem: &str, [m, n]: [u64; 2], block: Option<[usize; 2]>) -> Option<Found<'f>> {
        let scales = self.scales(stem)?;
        let in_blocks = |[height, width]: &[usize; 2]| {
            scales.1.shape == [m.div_ceil(*height as u64), n.div_ceil(*width as u64)]
        };
        let whole = [m as usize, n as usize];
        let block = match &scales.1.shape[..] {
            [] | [1] | [1, 1] => whole,
            _ if block.as_ref().is_some_and(in_blocks) => block?,
            [rows] | [rows, 1] if *rows == m => [1, whole[1]],
            _ => return None,
        };
        // Some programs write zeros that are none.
        let zeros = self.get(stem, "weight_zero_point").map_or(&[][..], |zeros| self.bytes(zeros));
        let fits = m > 0 && n > 0 && zeros.iter().all(|&byte| byte == 0);
        let scheme = Scheme::Scaled { block };
        fits.then_some(Found { shape: [m, n], scheme, scales, zeros: None, groups: None })
    }
}

/// What is found of a matrix: its shape `[out, in]`, and the tensors beside its codes.
struct Found<'f> {
    shape: [u64; 2],
    scheme: Scheme,
    scales: (usize, &'f SafeTensor),
    zeros: Option<StoredTensor>,
    groups: Option<StoredTensor>,
}

/// Inputs of a group, for `n` inputs with this many scales; `None` if the settings ask for another number.
fn run(group: Option<u64>, n: u64, count: u64) -> Option<u64> {
    let run = group.filter(|&group| group > 0).unwrap_or(n);
    (n > 0 && count == n.div_ceil(run)).then_some(run)
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
