//! Access to the tensors of a base by canonical name, and to the parts of fused ones.

use std::ops::Range;

use super::model::Base;
use super::nbits::NBits;
use super::quantized::{Quantized, QuantizedTensors};
use super::row_order::RowOrder;
use super::tensor::{BaseTensor, StoredTensor};
use super::weight::Weight;
use crate::arch::{Size, TensorNames};
use crate::{Error, Result};

/// A tensor, or some of its rows, that holds a matrix or vector.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The tensor's canonical name.
    pub name: &'a str,
    /// The tensor.
    pub tensor: &'a BaseTensor,
    /// The rows in the canonical layout, or `None` for all. A tensor of experts counts the rows of all of
    /// them.
    pub rows: Option<Range<u64>>,
}

impl Base {
    /// The place of the matrix or vector with this canonical name: the tensor of that name, or for
    /// `NAME[PART]` the rows of that part.
    pub fn place(&self, name: &str) -> Option<Place<'_>> {
        if let Some((name, tensor)) = self.tensors.get_key_value(name) {
            return Some(Place { name, tensor, rows: None });
        }
        let (whole, part) = name.strip_suffix(']')?.rsplit_once('[')?;
        if whole.ends_with(']') {
            // A part of an expert's matrix, which has no further parts.
            let (own, place) = (self.fused_rows(whole, part)?, self.place(whole)?);
            let first = place.rows.as_ref().map_or(0, |rows| rows.start);
            return Some(Place { rows: Some(first + own.start..first + own.end), ..place });
        }
        let (name, tensor) = self.tensors.get_key_value(whole)?;
        let rows = match tensor.shape[..] {
            [experts, rows, _] => {
                let expert: u64 = part.parse().ok().filter(|&e| e < experts)?;
                let start = expert.checked_mul(rows)?;
                // One spelling of a number, so that two names never mean one matrix.
                (expert.to_string() == part).then_some(start..start.checked_add(rows)?)?
            }
            // Some programs leave a dimension of 1 out: the only expert.
            [rows, _] if part == "0" && self.config.experts.is_some_and(|experts| experts.count == 1) => {
                0..rows
            }
            _ => self.fused_rows(whole, part)?,
        };
        Some(Place { name, tensor, rows: Some(rows) })
    }

    /// Hugging Face's name (without `.weight`) for a canonical one, and the table's entry.
    pub fn to_hugging_face(&self, canonical: &str) -> Option<(String, &'static TensorNames)> {
        let layer = layer_part(canonical).map_or(0, |(layer, _)| layer);
        self.architecture.to_hugging_face(canonical, self.config.block_kind(layer))
    }

    /// [`Self::place`] of a tensor that must exist.
    ///
    /// # Errors
    /// The model has no such tensor.
    pub fn find(&self, name: &str) -> Result<Place<'_>> {
        self.place(name).ok_or_else(|| {
            self.error(name, "the model has no such tensor", "inspect the model for the names of its tensors")
        })
    }

    /// The parts of a fused matrix: their canonical names, `NAME[PART]`, and rows. Empty for any other.
    pub fn parts(&self, name: &str) -> Vec<(String, Range<u64>)> {
        let part = |(part, _): &(&str, Size)| Some((format!("{name}[{part}]"), self.fused_rows(name, part)?));
        self.fused(name).iter().filter_map(part).collect()
    }

    /// The matrix that a tensor of this canonical name, or its bias, is a part of, if the architecture joins it with
    /// others.
    pub fn whole_of<'n>(&self, canonical: &'n str) -> Option<&'n str> {
        let matrix = canonical.strip_suffix(".bias").unwrap_or(canonical);
        let (whole, _) = matrix.strip_suffix(']')?.split_once('[')?;
        (!self.parts(whole).is_empty()).then_some(whole)
    }

    /// The biases of the parts of a matrix, if they are stored apart.
    fn biases_of_parts(&self, matrix: &str) -> Option<Vec<String>> {
        let biases: Vec<_> = self.parts(matrix).into_iter().map(|(part, _)| part + ".bias").collect();
        let all = biases.iter().all(|bias| self.tensors.contains_key(bias));
        (all && !biases.is_empty()).then_some(biases)
    }

    pub(super) fn fused(&self, name: &str) -> &'static [(&'static str, Size)] {
        let layer_part = layer_part(name).map_or("", |(_, part)| part);
        self.architecture.parts(layer_part)
    }

    fn fused_rows(&self, name: &str, part: &str) -> Option<Range<u64>> {
        let mut start = 0;
        let layer = layer_part(name).map(|(layer, _)| layer);
        for (name, size) in self.fused(name) {
            let end = start + self.config.size(*size, layer) as u64;
            if *name == part {
                return Some(start..end);
            }
            start = end;
        }
        None
    }

    /// The matrix or vector with this canonical name, `[out, in]` or `[n]`.
    ///
    /// # Errors
    /// It is missing, of a type that cannot be decoded, scaled by another tensor, or neither a matrix nor a
    /// vector.
    pub fn weight(&self, name: &str) -> Result<Weight<'_>> {
        let place = self.find(name)?;
        let tensor = place.tensor;
        if tensor.is_plain() && !tensor.dtype.can_decode() {
            return Err(self.error(
                name,
                &format!("stored as {}, which curmerge cannot decode", tensor.dtype.name()),
                "use the model as F32, F16 or BF16 or in any quantized type that llama.cpp runs",
            ));
        }
        // llama.cpp multiplies the product by it; files with NVFP4 have such tensors.
        let scale = format!("{}.scale", place.name);
        if self.tensors.contains_key(&scale) && self.architecture.line(&scale).is_none() {
            let problem = "it has a scale in a separate tensor, which curmerge does not read";
            return Err(self.error(name, problem, "use the model in another type, for example Q8_0 or F16"));
        }
        self.must_be_unchanged(tensor.file)?;
        for part in tensor.quantized.iter().flat_map(QuantizedTensors::parts) {
            self.must_be_unchanged(part.file)?;
        }
        self.open_weight(tensor, place.rows.clone()).ok_or_else(|| {
            self.error(name, "neither a matrix nor a vector", "curmerge does not know this form of model")
        })
    }

    fn open_weight(&self, tensor: &BaseTensor, rows: Option<Range<u64>>) -> Option<Weight<'_>> {
        let nbits = tensor.nbits.as_ref().map(|nbits| {
            let cols = tensor.shape.last().copied().unwrap_or(0);
            NBits::new(nbits, cols, |part| self.stored_bytes(part.file, part.offset, part.bytes))
        });
        let quantized = match (&tensor.quantized, &tensor.shape[..]) {
            (Some(quantized), &[rows, cols]) => {
                let rows = tensor.slice.as_ref().map_or(rows, |slice| slice.of);
                let codes = (tensor.dtype, self.bytes(tensor));
                let bytes = |part: &StoredTensor| self.stored_bytes(part.file, part.offset, part.bytes);
                Some(Quantized::new(quantized, [rows, cols], codes, bytes))
            }
            _ => None,
        };
        Weight::new(tensor, rows, self.bytes(tensor), (nbits, quantized))
    }

    /// The whole stored tensor that [`Self::weight`] reads from, rows in the container's order.
    ///
    /// # Errors
    /// Those of [`Self::weight`].
    pub fn stored_weight(&self, name: &str) -> Result<Weight<'_>> {
        self.weight(name)?;
        let mut whole = self.find(name)?.tensor.clone();
        whole.rotary_halves = None;
        whole.orders = [RowOrder::CANONICAL; 2];
        if let Some(slice) = whole.slice.take() {
            whole.shape[usize::from(whole.transposed)] = slice.of;
        }
        self.open_weight(&whole, None).ok_or_else(|| {
            self.error(name, "neither a matrix nor a vector", "curmerge does not know this form of model")
        })
    }

    /// The numbers of a vector `[n]` in the canonical layout: the weight of a norm, or a bias (`NAME.bias`,
    /// where NAME may be a part).
    ///
    /// # Errors
    /// Those of [`Self::weight`]; a bias whose length is not a whole number of heads.
    pub fn vector(&self, name: &str) -> Result<Vec<f32>> {
        if let Some(biases) = name.strip_suffix(".bias").and_then(|matrix| self.biases_of_parts(matrix)) {
            let parts = biases.iter().map(|bias| self.vector(bias)).collect::<Result<Vec<_>>>()?;
            return Ok(parts.concat());
        }
        // A bias without a matrix is a vector of its own.
        let matrix = name.strip_suffix(".bias").filter(|matrix| self.place(matrix).is_some());
        let Some(matrix) = matrix else {
            let mut values = self.weight(name)?.vector();
            let tensor = self.tensors.get(name);
            let order = tensor.map_or(RowOrder::CANONICAL, |tensor| tensor.orders[0]);
            if tensor.is_some_and(|tensor| tensor.shape.len() == 1) && order != RowOrder::CANONICAL {
                values = (0..values.len()).map(|entry| values[order.stored_row(entry)]).collect();
            }
            if tensor.is_some_and(|tensor| tensor.unit_offset) {
                values.iter_mut().for_each(|value| *value += 1.0);
            }
            if tensor.is_some_and(|tensor| tensor.log_of_negative) {
                values.iter_mut().for_each(|value| *value = negative_of_log(*value) as f32);
            }
            return Ok(values);
        };
        let place =
            self.place(matrix).ok_or_else(|| self.error(matrix, "missing", "download the file again"))?;
        let bias = self.bias_name(matrix);
        let bias = bias.ok_or_else(|| self.error(name, "missing", "download the file again"))?;
        let tensor = &self.tensors[&bias];
        if let ([_, rows], Some(part)) = (&tensor.shape[..], &place.rows) {
            // One row for each expert.
            let stored = self.weight(&bias)?;
            let mut values = vec![0.0; stored.cols()];
            stored.decode_row((part.start / rows.max(&1)) as usize, &mut values);
            return Ok(values);
        }
        let stored = self.weight(&bias)?.vector();
        let order = match tensor.rotary_halves {
            Some(heads) => RowOrder::rotary_halves(stored.len() as u64, heads),
            None => Some(tensor.orders[0]),
        };
        let order = order.ok_or_else(|| {
            self.error(&bias, "its length is not a whole number of heads", "download the file again")
        })?;
        let part = place.rows.filter(|_| bias != name);
        let rows = part.map_or(0..stored.len(), |rows| rows.start as usize..rows.end as usize);
        if rows.end > stored.len() {
            return Err(self.error(&bias, "shorter than its matrix has rows", "download the file again"));
        }
        Ok(rows.map(|row| stored[order.stored_row(row)]).collect())
    }

    /// [`Self::vector`], of which those that a container stores as logarithms are not rounded to f32.
    ///
    /// # Errors
    /// Those of [`Self::vector`].
    pub fn exact_vector(&self, name: &str) -> Result<Vec<f64>> {
        let values = self.vector(name)?;
        let Some(tensor) = self.tensors.get(name).filter(|tensor| tensor.log_of_negative) else {
            return Ok(values.into_iter().map(f64::from).collect());
        };
        let stored = self.weight(name)?.vector();
        Ok((0..stored.len())
            .map(|entry| negative_of_log(stored[tensor.orders[0].stored_row(entry)]))
            .collect())
    }

    /// Whether this matrix has a bias.
    pub fn has_bias(&self, name: &str) -> bool {
        self.bias_name(name).is_some() || self.biases_of_parts(name).is_some()
    }

    /// The canonical name of the tensor that holds the bias of this matrix: its own, or that of the matrix that it is
    /// a part of.
    pub(super) fn bias_name(&self, name: &str) -> Option<String> {
        let whole = name.split_once('[').map_or(name, |(whole, _)| whole);
        [name, whole]
            .map(|name| format!("{name}.bias"))
            .into_iter()
            .find(|bias| self.tensors.contains_key(bias))
    }

    /// The matrix that turns hidden states into logits, `[vocab, d_model]`: `output`, or `token_embd` if they
    /// are tied.
    ///
    /// # Errors
    /// Those of [`Self::weight`].
    pub fn output_head(&self) -> Result<Weight<'_>> {
        self.weight(if self.tensors.contains_key("output") { "output" } else { "token_embd" })
    }

    pub(super) fn error(&self, name: &str, problem: &str, help: &str) -> Error {
        Error::input(&self.path, format!("tensor '{name}'"), problem, help)
    }
}

/// The number whose negative has this logarithm.
fn negative_of_log(stored: f32) -> f64 {
    -f64::from(stored).exp()
}

/// The block number of a canonical name, and the name within the block.
pub fn layer_part(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}
