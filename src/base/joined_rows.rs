//! Matrices whose rows a folder has in one tensor, group by group.

use std::path::Path;

use super::config::Config;
use super::row_order::RowOrder;
use super::tensor::{BaseTensor, Slice};
use super::tensors::layer_part;
use crate::arch::{Architecture, JoinedRows};
use crate::{Error, Result};

impl Config {
    /// The heads of this matrix whose rotary halves ONNX models store apart: those of which folders do, also in a tensor
    /// that joins it with others.
    pub fn onnx_rotary_heads(&self, architecture: &'static Architecture, canonical: &str) -> Option<usize> {
        let line = architecture.line(canonical)?;
        let (layer, part) = layer_part(canonical)?;
        let joined = architecture.tensors.joined_rows.iter().any(|joined| {
            let place = joined.parts.iter().position(|(name, _)| *name == part);
            place.is_some_and(|place| place < joined.rotary)
        });
        let heads = self.size(*line.shape.first()?, Some(layer)) / self.sizes_of(layer).head_dim.max(1);
        line.rotary_halves.map(|kind| self.head_count(kind)).or(joined.then_some(heads))
    }

    /// The order of the rows of such a tensor, whose canonical rows are those of its parts one after another; and the rows
    /// of each part. `None` if they do not divide into groups.
    pub fn joined_rows(&self, joined: &JoinedRows, layer: usize) -> Option<(RowOrder, Vec<usize>)> {
        let size = |&size| self.size(size, Some(layer));
        let segments: Vec<usize> = joined.groups.segments.iter().map(size).collect();
        let all = segments.iter().sum::<usize>() as u64;
        let mut order = RowOrder::segments(all, size(&joined.groups.groups), &segments)?;
        if joined.rotary > 0 {
            order = order.with_rotary_halves(joined.rotary, self.sizes_of(layer).head_dim)?;
        }
        let mut rest = &segments[..];
        let parts = joined.parts.iter().map(|(_, count)| {
            let (own, after) = rest.split_at((*count).min(rest.len()));
            rest = after;
            own.iter().sum()
        });
        Some((order, parts.collect()))
    }

    /// The order of one part's rows within the whole tensor, and the rows of that.
    pub fn joined_part(&self, joined: &JoinedRows, layer: usize, part: usize) -> Option<(RowOrder, usize)> {
        let (order, rows) = self.joined_rows(joined, layer)?;
        let first: usize = rows[..part].iter().sum();
        Some((order.part(first..first + rows[part])?, rows.iter().sum()))
    }
}

/// Splits a tensor into its matrices: their canonical names, and how they are stored. `stem` is Hugging Face's name without
/// an ending. `None` if it is no such tensor.
///
/// # Errors
/// Another shape than the configuration says.
pub(super) fn split(
    path: &Path,
    (architecture, config): (&'static Architecture, &Config),
    stem: &str,
    tensor: &BaseTensor,
) -> Result<Option<Vec<(String, BaseTensor)>>> {
    let Some((joined, layer)) = architecture.joined_rows(stem) else { return Ok(None) };
    let refuse = || {
        let place = format!("tensor '{}'", tensor.stored_name.escape_debug());
        let problem = format!("shape {:?} is not that of the configuration's heads", tensor.shape);
        let help = "the file is damaged or of another architecture; download it again";
        Error::input(path, place, problem, help)
    };
    let (_, rows) = config.joined_rows(joined, layer).ok_or_else(refuse)?;
    let all: usize = rows.iter().sum();
    let &[stored, columns] = &tensor.shape[..] else { return Err(refuse()) };
    if stored != all as u64 {
        return Err(refuse());
    }
    let part = |(number, ((name, _), own)): (usize, (&(&str, usize), usize))| {
        let (order, _) = config.joined_part(joined, layer, number).ok_or_else(refuse)?;
        let tensor = BaseTensor {
            shape: vec![own as u64, columns],
            orders: [order, RowOrder::CANONICAL],
            slice: Some(Slice { start: 0, of: stored, step: 1 }),
            ..tensor.clone()
        };
        Ok((format!("blk.{layer}.{name}"), tensor))
    };
    joined.parts.iter().zip(rows).enumerate().map(part).collect::<Result<_>>().map(Some)
}
