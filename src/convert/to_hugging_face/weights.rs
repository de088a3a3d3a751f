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

use crate::arch::TensorNames;
use crate::base::folder::SAFETENSORS_INDEX;
use crate::base::{Base, RowOrder, Weight, layer_part};
use crate::convert::config_json::pretty;
use crate::convert::file_type::stays_f32;
use crate::convert::retype::ConvertReport;
use crate::{Error, Result};

/// Values that one thread converts at a time; at least a row.
const BLOCK_VALUES: usize = 1 << 16;
/// Blocks in memory at a time, for each thread.
const BLOCKS_A_THREAD: usize = 4;
/// The type that loses least of what the model's matrices hold, in no more bytes than that takes: their own where all have
/// the same of F32, F16 and BF16, F32 where these are mixed. Decoded blocks fit neither half type exactly, and F16 has
/// three bits more.
pub fn natural_type(base: &Base) -> DType {
    let matrices = || {
        let all = base.tensors().iter().filter(|(name, tensor)| tensor.shape.len() > 1 && !stays_f32(name));
        all.map(|(_, tensor)| tensor.dtype)
    };
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
    /// Where transformers has it.
    place: Place,
    name: String,
    shape: Vec<u64>,
    stored_bytes: u64,
    values: Values<'a>,
}

/// Where transformers has a tensor: the embedding, the layers, the norm, the head; the layer; the line of the table.
type Place = (usize, usize, usize);

/// How a tensor's values come of those in the base.
enum Values<'a> {
    /// Its rows, in another order.
    Rows(Weight<'a>, RowOrder),
    /// Those of matrices that are stored apart, one behind the other.
    Parts(Vec<Weight<'a>>),
    /// Its columns.
    Transposed(Weight<'a>),
    /// Computed: a vector.
    Vector(Vec<f32>),
}

/// How far rounding moved values.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::convert) struct Rounding {
    values: u64,
    changed: u64,
    /// Sums of squares of the changes and of the values.
    change: f64,
    size: f64,
}

impl<'a> Plan<'a> {
    /// `own_head` says whether an output head is one of the tensors.
    pub(super) fn new(base: &'a Base, dtype: DType, limit: u64, own_head: bool) -> Result<Self> {
        let mut tensors = Vec::new();
        for (canonical, stored) in base.tensors() {
            // What config.json says of these, and nothing reads of the last.
            let said = ["rope_freqs", "rope_factors_long", "rope_factors_short"];
            let head = canonical == "output" && !own_head;
            if said.contains(&&canonical[..]) || canonical.ends_with("rot_embd") || head {
                continue;
            }
            // Here a matrix of several is one, which stands for all of them.
            if let Some(whole) = base.whole_of(canonical) {
                if base.parts(whole).first().is_some_and(|(first, _)| first == canonical) {
                    tensors.push(Tensor::of_parts(base, whole)?);
                }
                continue;
            }
            // One of experts is many there.
            match stored.shape[..] {
                [experts, _, _] => {
                    for expert in 0..experts {
                        tensors.push(Tensor::new(base, &format!("{canonical}[{expert}]"))?);
                    }
                }
                _ => tensors.push(Tensor::new(base, canonical)?),
            }
        }
        tensors.sort_by_key(|tensor| tensor.place);
        let plan = Plan { base, dtype, shards: Vec::new() };
        let groups = groups(tensors.iter().map(|t| plan.bytes(t)), limit);
        let mut rest = tensors.into_iter();
        let shards = groups.into_iter().map(|group| rest.by_ref().take(group.len()).collect()).collect();
        Ok(Plan { shards, ..plan })
    }

    /// Bytes of a tensor as written.
    fn bytes(&self, tensor: &Tensor<'_>) -> u64 {
        tensor.shape.iter().product::<u64>() * self.dtype.block_bytes() as u64
    }

    pub(super) fn write(
        &self,
        folder: &OutputFolder,
        report: &mut ConvertReport,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<()> {
        let tensors = || self.shards.iter().flatten();
        report.bytes_before = tensors().map(|t| t.stored_bytes).sum();
        let mut map = BTreeMap::new();
        let (mut read, mut rounding) = (0, Rounding::default());
        for (number, shard) in self.shards.iter().enumerate() {
            let name = shard_name(number, self.shards.len());
            let new = shard.iter().map(|tensor| NewSafeTensor {
                name: tensor.name.clone(),
                dtype: self.dtype,
                shape: tensor.shape.clone(),
            });
            // transformers before 5 refuses a file that does not say so.
            let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
            let layout = SafeTensorsLayout::new(&metadata, new.collect())?;
            let mut file = folder.file(&name)?;
            file.append(layout.header())?;
            for tensor in shard {
                rounding = rounding.and(self.append(tensor, &mut file)?);
                read += tensor.stored_bytes;
                progress(read, report.bytes_before);
                report.bytes_after += self.bytes(tensor);
                *report.types.entry(self.dtype.to_string()).or_default() += 1;
                map.insert(tensor.name.as_str(), name.clone());
            }
            file.commit()?;
        }
        if self.shards.len() > 1 {
            let index = json!({ "metadata": { "total_size": report.bytes_after }, "weight_map": map });
            let mut file = folder.file(SAFETENSORS_INDEX)?;
            file.append(pretty(&index).as_bytes())?;
            file.commit()?;
        }
        report.notes.extend(rounding.note(self.dtype));
        Ok(())
    }

    fn append(&self, tensor: &Tensor<'_>, file: &mut OutputFile) -> Result<Rounding> {
        let transposed;
        let (rows, cols) = match &tensor.values {
            Values::Rows(weight, _) => (weight.rows(), weight.cols()),
            Values::Parts(parts) => (parts.iter().map(Weight::rows).sum(), parts[0].cols()),
            Values::Transposed(weight) => {
                transposed = transpose(weight);
                return self.append_values(tensor, &transposed, weight.rows(), file);
            }
            Values::Vector(values) => return self.append_values(tensor, values, values.len(), file),
        };
        let block = (BLOCK_VALUES / cols.max(1)).max(1);
        let starts: Vec<usize> = (0..rows).step_by(block).collect();
        self.append_blocks(&starts, |start| self.rows(tensor, start, block.min(rows - start)), file)
    }

    /// These values, rows of so many.
    fn append_values(
        &self,
        tensor: &Tensor<'_>,
        values: &[f32],
        cols: usize,
        file: &mut OutputFile,
    ) -> Result<Rounding> {
        let block = (BLOCK_VALUES / cols.max(1)).max(1) * cols;
        let starts: Vec<usize> = (0..values.len()).step_by(block.max(1)).collect();
        let part = |start: usize| &values[start..(start + block).min(values.len())];
        self.append_blocks(&starts, |start| self.encode(tensor, start / cols, part(start)), file)
    }

    fn append_blocks(
        &self,
        starts: &[usize],
        make: impl Fn(usize) -> Result<(Vec<u8>, Rounding)> + Sync,
        file: &mut OutputFile,
    ) -> Result<Rounding> {
        let mut rounding = Rounding::default();
        for batch in starts.chunks(BLOCKS_A_THREAD * rayon::current_num_threads()) {
            let done: Vec<Result<(Vec<u8>, Rounding)>> = batch.par_iter().map(|&start| make(start)).collect();
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
        if let Values::Parts(parts) = &tensor.values {
            let mut values = vec![0.0; count * parts[0].cols()];
            let mut first = 0;
            for part in parts {
                let rows = start.max(first)..(start + count).min(first + part.rows());
                if !rows.is_empty() {
                    let out =
                        &mut values[(rows.start - start) * part.cols()..(rows.end - start) * part.cols()];
                    part.decode_rows(rows.start - first..rows.end - first, out);
                }
                first += part.rows();
            }
            return self.encode(tensor, start, &values);
        }
        let Values::Rows(weight, order) = &tensor.values else { return Ok(Default::default()) };
        let canonical = (start..start + count).map(|row| order.canonical_row(row));
        if weight.dtype() == self.dtype && !weight.is_transposed() && weight.nbits().is_none() {
            let bytes = weight.row_bytes();
            let row = |row: usize| &weight.stored_bytes()[weight.stored_row(row) * bytes..][..bytes];
            return Ok((canonical.flat_map(row).copied().collect(), Rounding::of(count * weight.cols())));
        }
        let mut values = vec![0.0; count * weight.cols()];
        if *order == RowOrder::CANONICAL {
            weight.decode_rows(start..start + count, &mut values);
            return self.encode(tensor, start, &values);
        }
        for (row, out) in canonical.zip(values.chunks_exact_mut(weight.cols())) {
            weight.decode_row(row, out);
        }
        self.encode(tensor, start, &values)
    }

    /// Values from a row on, in the type that is wanted.
    fn encode(&self, tensor: &Tensor<'_>, row: usize, values: &[f32]) -> Result<(Vec<u8>, Rounding)> {
        let mut rounding = Rounding::of(values.len());
        let mut bytes = vec![0; values.len() * self.dtype.block_bytes()];
        let error = |e: quant::QuantError| {
            let place = format!("tensor '{}', rows from {row}", tensor.name);
            let help = match e {
                quant::QuantError::OutOfRange { value, .. } if value.is_finite() => "use --type bf16 or f32",
                _ => "download the model again",
            };
            Error::input(self.base.path(), place, e.to_string(), help)
        };
        quant::encode(self.dtype, values, &mut bytes).map_err(error)?;
        if self.dtype != DType::F32 {
            let mut back = vec![0.0; values.len()];
            quant::decode(self.dtype, &bytes, &mut back).map_err(error)?;
            rounding.compare(values, &back);
        }
        Ok((bytes, rounding))
    }
}

/// All values of a matrix, column by column.
fn transpose(weight: &Weight<'_>) -> Vec<f32> {
    let (rows, cols) = (weight.rows(), weight.cols());
    let mut values = vec![0.0; rows * cols];
    let mut row = vec![0.0; cols];
    for r in 0..rows {
        weight.decode_row(r, &mut row);
        for (c, value) in row.iter().enumerate() {
            values[c * rows + r] = *value;
        }
    }
    values
}

impl<'a> Tensor<'a> {
    /// The tensor of this canonical name, of an expert that of the one expert.
    fn new(base: &'a Base, canonical: &str) -> Result<Self> {
        let error = |problem: &str| {
            let help = "transformers' model has no place for it: use the model as it is";
            let place = format!("tensor '{}'", canonical.escape_debug());
            Error::input(base.path(), place, problem, help)
        };
        let (stem, ending) = match canonical.strip_suffix(".bias") {
            Some(stem) => (stem, "bias"),
            None => (canonical, "weight"),
        };
        let known = base.architecture().to_hugging_face(stem);
        let known = known.filter(|(_, line)| ending == "weight" || line.bias.is_some());
        let Some((name, line)) = known else {
            let problem = format!("no tensor of a {} model in transformers", base.architecture().name);
            return Err(error(&problem));
        };
        let heads = || error("its rows are no whole number of heads");
        let weight = base.weight(canonical)?;
        let vector = weight.rows() == 1 && line.shape.len() == 1 || ending == "bias";
        let values = if vector && (line.unit_offset && ending == "weight" || line.rotary_halves.is_some()) {
            let mut values = base.vector(canonical)?;
            if line.unit_offset {
                values.iter_mut().for_each(|value| *value -= 1.0);
            }
            let order = base.config().hugging_face_order(line, values.len() as u64).ok_or_else(heads)?;
            Values::Vector((0..values.len()).map(|entry| values[order.canonical_row(entry)]).collect())
        } else if line.transposed && !vector {
            Values::Transposed(weight)
        } else {
            let order = match vector {
                true => RowOrder::CANONICAL,
                false => base.config().hugging_face_order(line, weight.rows() as u64).ok_or_else(heads)?,
            };
            Values::Rows(weight, order)
        };
        let (rows, cols) = (weight.rows() as u64, weight.cols() as u64);
        let shape = match (vector, line.transposed) {
            (true, _) => vec![cols],
            (false, true) => vec![cols, rows],
            (false, false) => vec![rows, cols],
        };
        let whole = base.tensors().get(canonical).map(|tensor| tensor.own_bytes());
        let stored_bytes = whole.unwrap_or(weight.stored_bytes().len() as u64);
        let place = place(base, canonical, line);
        Ok(Tensor { place, name: format!("{name}.{ending}"), shape, stored_bytes, values })
    }

    /// The matrix of this canonical name, whose parts are stored apart.
    fn of_parts(base: &'a Base, whole: &str) -> Result<Self> {
        let parts = base.parts(whole).into_iter().map(|(part, _)| base.weight(&part));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let known = base.architecture().to_hugging_face(whole);
        let (name, line) = known.expect("the architecture has a line for a matrix that it has in one");
        let rows = parts.iter().map(|part| part.rows() as u64).sum();
        let stored_bytes = parts.iter().map(|part| part.stored_bytes().len() as u64).sum();
        Ok(Tensor {
            place: place(base, whole, line),
            name: format!("{name}.weight"),
            shape: vec![rows, parts[0].cols() as u64],
            stored_bytes,
            values: Values::Parts(parts),
        })
    }
}

impl Rounding {
    /// Of so many values that stay as they are.
    pub(in crate::convert) fn of(values: usize) -> Self {
        Rounding { values: values as u64, ..Default::default() }
    }

    /// Counts what became of values.
    pub(in crate::convert) fn compare(&mut self, before: &[f32], after: &[f32]) {
        for (&before, &after) in before.iter().zip(after) {
            let change = f64::from(after) - f64::from(before);
            self.changed += u64::from(change != 0.0);
            self.change += change * change;
            self.size += f64::from(before) * f64::from(before);
        }
    }

    /// Of these and others.
    pub(in crate::convert) fn and(self, other: Self) -> Self {
        Rounding {
            values: self.values + other.values,
            changed: self.changed + other.changed,
            change: self.change + other.change,
            size: self.size + other.size,
        }
    }

    /// What the user should know of it.
    pub(in crate::convert) fn note(&self, dtype: impl std::fmt::Display) -> Option<String> {
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

fn place(base: &Base, canonical: &str, line: &'static TensorNames) -> Place {
    let layer = layer_part(canonical).map(|(layer, _)| layer);
    let number = base.architecture().names().position(|other| other.canonical == line.canonical);
    let part = match line.canonical {
        "token_embd" | "position_embd" => 0,
        _ if layer.is_some() => 1,
        "output" => 3,
        _ => 2,
    };
    (part, layer.unwrap_or(0), number.unwrap_or(0))
}
