//! The tensors as safetensors: transformers' names, its order of rows, one element type.
//!
//! Rows that are stored in the wanted type already are copied bit for bit; the others are decoded and
//! rounded.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use curmerge_formats::dtype::DType;
use curmerge_formats::output::{OutputFolder, Piece, Pieces};
use curmerge_formats::quant;
use curmerge_formats::safetensors::{NewSafeTensor, SafeTensorsLayout, shard_name};
use curmerge_formats::shards::groups;
use serde_json::json;

use super::{experts, numbers};
use crate::arch::{Endings, JoinedExperts, JoinedRows, TensorNames};
use crate::base::folder::SAFETENSORS_INDEX;
use crate::base::{Base, RowOrder, Weight, layer_part};
use crate::convert::config_json::pretty;
use crate::convert::file_type::stays_f32;
use crate::convert::retype::ConvertReport;
use crate::error::CallerOption;
use crate::rewrite::{ComputedTensor, ComputedTensors, Hooks, Writer, in_blocks};
use crate::{Error, Result};

/// The narrowest type that loses least of the model's matrices: their own if all are in F32, F16 or BF16, and
/// F32 if these are mixed. For quantized matrices it is F16: neither half type holds decoded blocks exactly,
/// and F16 has three bits more.
pub fn natural_type(base: &Base) -> DType {
    let matrices = || {
        let all = base.tensors().iter().filter(|(name, tensor)| tensor.shape.len() > 1 && !stays_f32(name));
        // BF16 holds MXFP4's numbers exactly.
        let exactly = |dtype| if dtype == DType::MXFP4 { DType::BF16 } else { dtype };
        all.map(move |(_, tensor)| if tensor.is_mxfp4() { DType::BF16 } else { exactly(tensor.dtype) })
    };
    let first = matrices().next().unwrap_or(DType::F32);
    if !matrices().all(|dtype| matches!(dtype, DType::F32 | DType::F16 | DType::BF16)) {
        return DType::F16;
    }
    if matrices().all(|dtype| dtype == first) { first } else { DType::F32 }
}

/// The tensors to be written, checked.
pub(super) struct Plan<'a> {
    base: &'a Base,
    dtype: DType,
    /// The tensors of each file.
    shards: Vec<Vec<Tensor<'a>>>,
}

pub(super) struct Tensor<'a> {
    /// Its place in transformers' order.
    pub(super) place: Place,
    pub(super) name: String,
    pub(super) shape: Vec<u64>,
    pub(super) stored_bytes: u64,
    pub(super) values: Values<'a>,
    /// The type in which transformers keeps it, whatever that of the model.
    pub(super) kept_in: Option<DType>,
}

/// The place of a tensor in transformers' order: embedding, layers, norm or head; the layer; the line of the
/// table.
pub(super) type Place = (usize, usize, usize);

/// How the values of a tensor derive from the base's.
pub(super) enum Values<'a> {
    /// Its rows and columns, in other orders.
    Rows(Weight<'a>, [RowOrder; 2]),
    /// The rows of matrices that are stored apart, one after another, in this order.
    Parts(Vec<Weight<'a>>, RowOrder),
    /// Its columns.
    Transposed(Weight<'a>),
    /// The matrices of each expert.
    Experts(&'static JoinedExperts, Vec<Vec<Weight<'a>>>),
    /// Computed: a vector.
    Vector(Vec<f32>),
}

/// How far rounding moved the values.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::convert) struct Rounding {
    values: u64,
    changed: u64,
    /// Sums of squares of the changes and of the values.
    change: f64,
    size: f64,
}

impl<'a> Plan<'a> {
    /// Plans shards of at most `limit` bytes. `own_head` says whether an output head is one of the tensors.
    pub(super) fn new(base: &'a Base, dtype: DType, limit: u64, own_head: bool) -> Result<Self> {
        let mut tensors = Vec::new();
        for (canonical, stored) in base.tensors() {
            // config.json has the first three, and nothing reads the last.
            let said = ["rope_freqs", "rope_factors_long", "rope_factors_short"];
            let head = canonical == "output" && !own_head;
            // Those of `numbers` are added below.
            let number = base.architecture().line(canonical).is_some_and(|line| line.in_metadata);
            if said.contains(&&canonical[..]) || canonical.ends_with("rot_embd") || head || number {
                continue;
            }
            // Matrices that transformers has as one are written with the first of them.
            if let Some(whole) = base.whole_of(canonical) {
                let (first, bias) = match canonical.strip_suffix(".bias") {
                    Some(matrix) => (matrix, true),
                    None => (&**canonical, false),
                };
                if base.parts(whole).first().is_some_and(|(part, _)| part == first) {
                    tensors.push(Tensor::of_parts(base, whole, bias)?);
                }
                continue;
            }
            if let Some((joined, is_first)) = experts::find(base, canonical) {
                if is_first {
                    tensors.push(joined.tensor(base)?);
                }
                continue;
            }
            if let Some((joined, layer, part)) = base.architecture().joined_rows_with(canonical) {
                if part == 0 {
                    tensors.push(Tensor::of_joined_rows(base, joined, layer)?);
                }
                continue;
            }
            // transformers writes each expert as a tensor of its own, if it has a name for it.
            match stored.shape[..] {
                [experts, _, _] => {
                    for expert in 0..experts {
                        tensors.push(Tensor::new(base, &format!("{canonical}[{expert}]"))?);
                    }
                }
                _ => tensors.push(Tensor::new(base, canonical)?),
            }
        }
        tensors.extend(numbers::tensors(base)?);
        tensors.sort_by_key(|tensor| tensor.place);
        let plan = Plan { base, dtype, shards: Vec::new() };
        let groups = groups(tensors.iter().map(|t| plan.bytes(t)), limit);
        let mut rest = tensors.into_iter();
        let shards = groups.into_iter().map(|group| {
            let mut shard: Vec<Tensor<'_>> = rest.by_ref().take(group.len()).collect();
            // Widest elements first, so that every tensor is aligned to its own.
            shard.sort_by_key(|tensor| Reverse(plan.dtype(tensor).block_bytes()));
            shard
        });
        Ok(Plan { shards: shards.collect(), ..plan })
    }

    /// The type of a tensor as written.
    fn dtype(&self, tensor: &Tensor<'_>) -> DType {
        tensor.kept_in.unwrap_or(self.dtype)
    }

    /// Bytes of a tensor as written.
    fn bytes(&self, tensor: &Tensor<'_>) -> u64 {
        tensor.shape.iter().product::<u64>() * self.dtype(tensor).block_bytes() as u64
    }

    /// Writes the shards, and the index if there are several.
    pub(super) fn write(
        &self,
        folder: &OutputFolder,
        report: &mut ConvertReport,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<()> {
        let total = self.shards.iter().flatten().map(|t| t.stored_bytes).sum();
        report.bytes_before = total;
        let mut tensors = ComputedTensors::default();
        for tensor in self.shards.iter().flatten() {
            tensors.replace([tensor.name.as_str()], Rounded { plan: self, tensor });
            report.count(self.dtype(tensor), self.bytes(tensor));
        }
        let (mut read, mut rounding) = (0, Rounding::default());
        let hooks = Hooks {
            confirm: None,
            done: &mut |rounded: &Rounded<'_>, moved: Rounding| {
                rounding = rounding.and(moved);
                read += rounded.tensor.stored_bytes;
                progress(read, total);
            },
        };
        let mut writer = Writer::new(&tensors, hooks);
        let mut map = BTreeMap::new();
        for (number, shard) in self.shards.iter().enumerate() {
            let name = shard_name(number, self.shards.len());
            let new = shard.iter().map(|tensor| NewSafeTensor {
                name: tensor.name.clone(),
                dtype: self.dtype(tensor),
                shape: tensor.shape.clone(),
            });
            // transformers before 5 refuses a file without it.
            let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
            let layout = SafeTensorsLayout::new(&metadata, new.collect())?;
            let placed = layout.tensors().iter().filter_map(|place| {
                let (_, index) = tensors.get(&place.name)?;
                Some((place.offset, Piece::Computed { index, len: place.bytes }))
            });
            let pieces = Pieces::laid_out(layout.header(), placed, layout.file_bytes());
            let file = folder.file(&name)?;
            writer.write(&pieces, &file)?;
            file.commit()?;
            map.extend(shard.iter().map(|tensor| (tensor.name.as_str(), name.clone())));
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
}

/// A tensor as it is written: rounded to the wanted type.
struct Rounded<'p> {
    plan: &'p Plan<'p>,
    tensor: &'p Tensor<'p>,
}

impl ComputedTensor for Rounded<'_> {
    type Outcome = Rounding;

    fn dtype(&self) -> DType {
        self.plan.dtype(self.tensor)
    }

    fn compute(&self, put: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>) -> Result<Rounding> {
        let mut rounding = Rounding::default();
        let mut take = |(bytes, moved)| {
            rounding = rounding.and(moved);
            put(0, bytes)
        };
        let of_values =
            |values: &[f32], cols: usize, take: &mut dyn FnMut((Vec<u8>, Rounding)) -> Result<()>| {
                let part =
                    |rows: Range<usize>| self.encode(rows.start, &values[rows.start * cols..rows.end * cols]);
                in_blocks([values.len() / cols.max(1), cols], part, take)
            };
        match &self.tensor.values {
            Values::Rows(weight, orders) => {
                in_blocks([weight.rows(), weight.cols()], |rows| self.rows(weight, *orders, rows), take)
            }
            Values::Parts(parts, order) => {
                let shape = [parts.iter().map(Weight::rows).sum(), parts[0].cols()];
                in_blocks(shape, |rows| self.rows_of_parts(parts, *order, rows), take)
            }
            Values::Transposed(weight) => of_values(&transpose(weight), weight.rows(), &mut take),
            Values::Experts(joined, experts) => experts.iter().try_for_each(|parts| {
                let values = experts::matrices(joined, parts);
                of_values(&values, self.tensor.shape.last().map_or(1, |&cols| cols as usize), &mut take)
            }),
            Values::Vector(values) => of_values(values, values.len(), &mut take),
        }?;
        Ok(rounding)
    }
}

impl Rounded<'_> {
    /// Rows of matrices that are stored apart, as Hugging Face counts them.
    fn rows_of_parts(
        &self,
        parts: &[Weight<'_>],
        order: RowOrder,
        rows: Range<usize>,
    ) -> Result<(Vec<u8>, Rounding)> {
        let cols = parts[0].cols();
        let mut values = vec![0.0; rows.len() * cols];
        if order != RowOrder::CANONICAL {
            for (row, out) in rows.clone().zip(values.chunks_exact_mut(cols)) {
                let mut own = order.canonical_row(row);
                for part in parts {
                    if own < part.rows() {
                        part.decode_row(own, out);
                        break;
                    }
                    own -= part.rows();
                }
            }
            return self.encode(rows.start, &values);
        }
        let mut first = 0;
        for part in parts {
            let own = rows.start.max(first)..rows.end.min(first + part.rows());
            if !own.is_empty() {
                let out =
                    &mut values[(own.start - rows.start) * part.cols()..(own.end - rows.start) * part.cols()];
                part.decode_rows(own.start - first..own.end - first, out);
            }
            first += part.rows();
        }
        self.encode(rows.start, &values)
    }

    /// Rows of a matrix, as Hugging Face counts them.
    fn rows(
        &self,
        weight: &Weight<'_>,
        [order, columns]: [RowOrder; 2],
        rows: Range<usize>,
    ) -> Result<(Vec<u8>, Rounding)> {
        let canonical = rows.clone().map(|row| order.canonical_row(row));
        let as_they_are = weight.has_whole_rows() && columns == RowOrder::CANONICAL;
        if weight.dtype() == self.dtype() && as_they_are {
            let bytes = weight.row_bytes();
            let row = |row: usize| &weight.stored_bytes()[weight.stored_row(row) * bytes..][..bytes];
            let unchanged = Rounding::of(rows.len() * weight.cols());
            return Ok((canonical.flat_map(row).copied().collect(), unchanged));
        }
        let mut values = vec![0.0; rows.len() * weight.cols()];
        if [order, columns] == [RowOrder::CANONICAL; 2] {
            weight.decode_rows(rows.clone(), &mut values);
            return self.encode(rows.start, &values);
        }
        let mut own = vec![0.0; weight.cols()];
        for (row, out) in canonical.zip(values.chunks_exact_mut(weight.cols())) {
            weight.decode_row(row, &mut own);
            out.iter_mut().enumerate().for_each(|(stored, out)| *out = own[columns.canonical_row(stored)]);
        }
        self.encode(rows.start, &values)
    }

    /// Values from a row on, in the wanted type.
    fn encode(&self, row: usize, values: &[f32]) -> Result<(Vec<u8>, Rounding)> {
        let dtype = self.dtype();
        let mut rounding = Rounding::of(values.len());
        let mut bytes = vec![0; values.len() * dtype.block_bytes()];
        let error = |e: quant::QuantError| {
            let place = format!("tensor '{}', rows from {row}", self.tensor.name);
            let refuse = |help| Error::input(self.plan.base.path(), place, e.to_string(), help);
            match e {
                quant::QuantError::OutOfRange { value, .. } if value.is_finite() => {
                    refuse("use bf16 or f32").avoidable(CallerOption::FileType)
                }
                _ => refuse("download the model again"),
            }
        };
        quant::encode(dtype, values, &mut bytes).map_err(error)?;
        if dtype != DType::F32 {
            let mut back = vec![0.0; values.len()];
            quant::decode(dtype, &bytes, &mut back).map_err(error)?;
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
    /// The tensor of this canonical name, which may be that of one expert.
    fn new(base: &'a Base, canonical: &str) -> Result<Self> {
        let error = |problem: &str| {
            let help = "transformers' model has no place for it: use the model as it is";
            let place = format!("tensor '{}'", canonical.escape_debug());
            Error::input(base.path(), place, problem, help)
        };
        let (stem, Endings { hugging_face: ending, .. }) = base.architecture().stem_and_endings(canonical);
        let known = base.to_hugging_face(stem);
        let known = known.filter(|(_, line)| ending != ".bias" || line.bias.is_some());
        let Some((name, line)) = known else {
            let problem = format!("no tensor of {} in transformers", base.architecture().name);
            return Err(error(&problem));
        };
        let name = base.architecture().to_prediction(&name, base.config().layers).unwrap_or(name);
        let heads = || error("its rows are no whole number of heads");
        let weight = base.weight(canonical)?;
        let vector = weight.rows() == 1 && line.shape.len() == 1 || ending == ".bias";
        let computed = line.unit_offset && ending == ".weight" || line.log_of_negative;
        let length = if vector { weight.cols() } else { weight.rows() } as u64;
        let order = base.config().hugging_face_order(line, length).ok_or_else(heads)?;
        let values = if vector && (computed || order != RowOrder::CANONICAL) {
            let mut values = base.vector(canonical)?;
            if line.unit_offset {
                values.iter_mut().for_each(|value| *value -= 1.0);
            }
            if line.log_of_negative {
                values.iter_mut().for_each(|value| *value = f64::from(-*value).ln() as f32);
                if values.iter().any(|value| !value.is_finite()) {
                    return Err(error("it has a number that is not negative"));
                }
            }
            Values::Vector((0..values.len()).map(|entry| values[order.canonical_row(entry)]).collect())
        } else if line.transposed && !vector {
            Values::Transposed(weight)
        } else {
            let columns = match vector {
                true => RowOrder::CANONICAL,
                false => base.config().hugging_face_columns(line, weight.cols() as u64).ok_or_else(heads)?,
            };
            Values::Rows(weight, [order, columns])
        };
        let (rows, cols) = (weight.rows() as u64, weight.cols() as u64);
        let shape = match (vector, line.transposed) {
            (true, _) if line.one_row => vec![1, cols],
            (true, _) => vec![cols],
            (false, true) => vec![cols, rows],
            (false, false) if line.convolution => vec![rows, 1, cols],
            (false, false) => vec![rows, cols],
        };
        let whole = base.tensors().get(canonical).map(|tensor| tensor.own_bytes());
        let stored_bytes = whole.unwrap_or(weight.stored_bytes().len() as u64);
        let place = place(base, canonical, line);
        // Experts are chosen by small differences of it.
        let kept_in = canonical.ends_with("exp_probs_b.bias").then_some(DType::F32);
        Ok(Tensor { place, name: name + ending, shape, stored_bytes, values, kept_in })
    }

    /// The matrix of this canonical name, the parts of which are stored apart, or its bias.
    fn of_parts(base: &'a Base, whole: &str, bias: bool) -> Result<Self> {
        let parts = base.parts(whole).into_iter().map(|(part, _)| base.weight(&part));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let known = base.to_hugging_face(whole);
        let (name, line) = known.expect("the architecture has a line for a matrix that it has in one");
        let rows = parts.iter().map(|part| part.rows() as u64).sum();
        let order = base.config().hugging_face_order(line, rows).filter(|_| !line.transposed).ok_or_else(|| {
            let help = "transformers' model has no place for it: use the model as it is";
            let problem = "its parts are stored apart, and its rows are no whole heads or the folder's are its columns";
            Error::input(base.path(), whole, problem, help)
        })?;
        if bias {
            let values = base.vector(&format!("{whole}.bias"))?;
            let values = (0..values.len()).map(|entry| values[order.canonical_row(entry)]).collect();
            return Ok(Tensor {
                place: place(base, whole, line),
                name: format!("{name}.bias"),
                shape: vec![rows],
                stored_bytes: 4 * rows,
                values: Values::Vector(values),
                kept_in: None,
            });
        }
        let stored_bytes = parts.iter().map(|part| part.stored_bytes().len() as u64).sum();
        Ok(Tensor {
            place: place(base, whole, line),
            name: format!("{name}.weight"),
            shape: vec![rows, parts[0].cols() as u64],
            stored_bytes,
            values: Values::Parts(parts, order),
            kept_in: None,
        })
    }

    /// The tensor in which transformers has the rows of several matrices of a block.
    fn of_joined_rows(base: &'a Base, joined: &'static JoinedRows, layer: usize) -> Result<Self> {
        let weight = |(part, _): &(&str, usize)| base.weight(&format!("blk.{layer}.{part}"));
        let parts = joined.parts.iter().map(weight).collect::<Result<Vec<_>>>()?;
        let rows = parts.iter().map(|part| part.rows() as u64).sum();
        let order = base
            .config()
            .joined_rows(joined, layer)
            .filter(|(_, own)| own.iter().zip(&parts).all(|(&own, part)| own == part.rows()));
        let (order, _) = order.ok_or_else(|| {
            let problem = "its rows are no whole number of heads";
            let help = "transformers' model has no place for it: use the model as it is";
            Error::input(base.path(), joined.name(layer), problem, help)
        })?;
        let line = base.architecture().names().position(|line| {
            line.canonical.strip_prefix("blk.{}.") == joined.parts.first().map(|(part, _)| *part)
        });
        Ok(Tensor {
            place: (1, layer, line.unwrap_or(0)),
            name: joined.name(layer) + ".weight",
            shape: vec![rows, parts[0].cols() as u64],
            stored_bytes: parts.iter().map(|part| part.stored_bytes().len() as u64).sum(),
            values: Values::Parts(parts, order),
            kept_in: None,
        })
    }
}

impl Rounding {
    /// This many values that do not change.
    pub(in crate::convert) fn of(values: usize) -> Self {
        Rounding { values: values as u64, ..Default::default() }
    }

    /// Counts how values changed.
    pub(in crate::convert) fn compare(&mut self, before: &[f32], after: &[f32]) {
        for (&before, &after) in before.iter().zip(after) {
            let change = f64::from(after) - f64::from(before);
            self.changed += u64::from(change != 0.0);
            self.change += change * change;
            self.size += f64::from(before) * f64::from(before);
        }
    }

    /// The sum of both.
    pub(in crate::convert) fn and(self, other: Self) -> Self {
        Rounding {
            values: self.values + other.values,
            changed: self.changed + other.changed,
            change: self.change + other.change,
            size: self.size + other.size,
        }
    }

    /// What a user should know of it.
    pub(in crate::convert) fn note(&self, dtype: impl std::fmt::Display) -> Option<String> {
        (self.changed > 0).then(|| {
            format!(
                "{} of {} values were rounded to {dtype}, by {:.4} % of their size (root mean square); type f32 is exact",
                self.changed,
                self.values,
                100.0 * (self.change / self.size).sqrt()
            )
        })
    }
}

/// The place of the tensor of this canonical name, which has this line of the table.
pub(super) fn place(base: &Base, canonical: &str, line: &'static TensorNames) -> Place {
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
