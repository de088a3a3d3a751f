//! The tensors of a base by canonical name, and the parts of those that hold several.

use std::ops::Range;

use super::model::Base;
use super::nbits::NBits;
use super::row_order::RowOrder;
use super::tensor::BaseTensor;
use super::weight::Weight;
use crate::arch::Size;
use crate::{Error, Result};

/// Where a matrix lies: a tensor, or some of its rows.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The tensor's canonical name.
    pub name: &'a str,
    /// The tensor.
    pub tensor: &'a BaseTensor,
    /// The rows in the canonical layout, where not all; one of experts counts the rows of all of them.
    pub rows: Option<Range<u64>>,
}

impl Base {
    /// Where the matrix or vector of this canonical name lies: the tensor of that name, or of `NAME[PART]` the rows of
    /// the part.
    pub fn place(&self, name: &str) -> Option<Place<'_>> {
        if let Some((name, tensor)) = self.tensors.get_key_value(name) {
            return Some(Place { name, tensor, rows: None });
        }
        let (whole, part) = name.strip_suffix(']')?.split_once('[')?;
        let (name, tensor) = self.tensors.get_key_value(whole)?;
        let rows = match tensor.shape[..] {
            [experts, rows, _] => {
                let expert: u64 = part.parse().ok().filter(|&e| e < experts)?;
                let start = expert.checked_mul(rows)?;
                // One spelling of a number, so that two names never mean one matrix.
                (expert.to_string() == part).then_some(start..start.checked_add(rows)?)?
            }
            _ => self.fused_rows(whole, part)?,
        };
        Some(Place { name, tensor, rows: Some(rows) })
    }

    /// [`Self::place`] of what must be there.
    pub fn find(&self, name: &str) -> Result<Place<'_>> {
        self.place(name)
            .ok_or_else(|| self.error(name, "the model has no such tensor", "see `curmerge inspect`"))
    }

    /// The parts of a matrix that holds several: their names, canonical and in brackets, and rows.
    pub fn parts(&self, name: &str) -> Vec<(String, Range<u64>)> {
        let part = |(part, _): &(&str, Size)| Some((format!("{name}[{part}]"), self.fused_rows(name, part)?));
        self.fused(name).iter().filter_map(part).collect()
    }

    pub(super) fn fused(&self, name: &str) -> &'static [(&'static str, Size)] {
        let layer_part = layer_part(name).map_or("", |(_, part)| part);
        self.architecture.parts(layer_part)
    }

    fn fused_rows(&self, name: &str, part: &str) -> Option<Range<u64>> {
        let mut start = 0;
        for (name, size) in self.fused(name) {
            let end = start + self.config.size(*size) as u64;
            if *name == part {
                return Some(start..end);
            }
            start = end;
        }
        None
    }

    /// The matrix or vector of this canonical name. Fails when it is missing, of a type that cannot be decoded, or
    /// scaled by another tensor.
    pub fn weight(&self, name: &str) -> Result<Weight<'_>> {
        let place = self.find(name)?;
        let tensor = place.tensor;
        if tensor.nbits.is_none() && !tensor.dtype.can_decode() {
            return Err(self.error(
                name,
                &format!("stored as {}, which curmerge cannot decode", tensor.dtype.name()),
                "use the model as F32, F16 or BF16 or in any quantized type that llama.cpp runs",
            ));
        }
        // llama.cpp multiplies by it what the matrix gives; files with NVFP4 have such tensors.
        if self.tensors.contains_key(&format!("{}.scale", place.name)) {
            let problem = "its scale is a tensor of its own, which curmerge does not read";
            return Err(self.error(name, problem, "use the model in another type, for example Q8_0 or F16"));
        }
        self.open_weight(tensor, place.rows.clone()).ok_or_else(|| {
            self.error(name, "neither a matrix nor a vector", "this model's form is not known")
        })
    }

    fn open_weight(&self, tensor: &BaseTensor, rows: Option<Range<u64>>) -> Option<Weight<'_>> {
        let nbits = tensor.nbits.as_ref().map(|nbits| {
            let cols = tensor.shape.last().copied().unwrap_or(0);
            NBits::new(nbits, cols, |part| self.stored_bytes(part.file, part.offset, part.bytes))
        });
        Weight::new(tensor, rows, self.bytes(tensor), nbits)
    }

    /// All that is stored in a tensor that [`Self::weight`] can read, rows in the container's order.
    pub fn stored_weight(&self, name: &str) -> Result<Weight<'_>> {
        self.weight(name)?;
        let mut whole = self.find(name)?.tensor.clone();
        whole.rotary_halves = None;
        if let Some(slice) = whole.slice.take() {
            whole.shape[usize::from(whole.transposed)] = slice.of;
        }
        self.open_weight(&whole, None).ok_or_else(|| {
            self.error(name, "neither a matrix nor a vector", "this model's form is not known")
        })
    }

    /// The numbers of a vector in the canonical layout: a norm's factors, or a bias (`NAME.bias`, where the name may be
    /// that of a part).
    pub fn vector(&self, name: &str) -> Result<Vec<f32>> {
        let Some(matrix) = name.strip_suffix(".bias") else {
            let mut values = self.weight(name)?.vector();
            if self.tensors.get(name).is_some_and(|tensor| tensor.unit_offset) {
                values.iter_mut().for_each(|value| *value += 1.0);
            }
            return Ok(values);
        };
        let place =
            self.place(matrix).ok_or_else(|| self.error(matrix, "missing", "download the file again"))?;
        let bias = format!("{}.bias", place.name);
        let stored = self.weight(&bias)?.vector();
        let order = match self.tensors[&bias].rotary_halves {
            Some(heads) => RowOrder::rotary_halves(stored.len() as u64, heads),
            None => Some(RowOrder::CANONICAL),
        };
        let order =
            order.ok_or_else(|| self.error(&bias, "no whole number of heads", "download the file again"))?;
        let rows = place.rows.map_or(0..stored.len(), |rows| rows.start as usize..rows.end as usize);
        Ok(rows.map(|row| stored[order.stored_row(row)]).collect())
    }

    /// Whether the model has a bias beside this matrix.
    pub fn has_bias(&self, name: &str) -> bool {
        let whole = name.split_once('[').map_or(name, |(whole, _)| whole);
        self.tensors.contains_key(&format!("{whole}.bias"))
    }

    /// The matrix that turns hidden states into logits, `[vocab, d_model]`: `output`, or the tied `token_embd`.
    pub fn output_head(&self) -> Result<Weight<'_>> {
        self.weight(if self.tensors.contains_key("output") { "output" } else { "token_embd" })
    }

    pub(super) fn error(&self, name: &str, problem: &str, help: &str) -> Error {
        Error::input(&self.path, format!("tensor '{name}'"), problem, help)
    }
}

/// The number of the block that a canonical name belongs to, and the name within it.
pub fn layer_part(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}
