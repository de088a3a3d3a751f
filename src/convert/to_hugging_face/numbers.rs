//! Numbers of blocks that GGUF has as arrays in its metadata, and folders as tensors.

use super::weights::{Tensor, Values, place};
use crate::Result;
use crate::arch::TensorNames;
use crate::base::Base;

/// A tensor for each number.
pub(super) fn tensors(base: &Base) -> Result<Vec<Tensor<'_>>> {
    let lines = base.architecture().names().filter(|line| line.in_metadata);
    let all = lines.flat_map(|line| (0..base.config().layers).map(move |layer| (line, layer)));
    let tensor = |(line, layer): (&'static TensorNames, usize)| {
        let name = |pattern: &str| pattern.replacen("{}", &layer.to_string(), 1);
        let canonical = name(line.canonical);
        Ok(Tensor {
            place: place(base, &canonical, line),
            name: name(line.hugging_face) + line.endings.hugging_face,
            shape: line.shape.iter().map(|&size| base.config().size(size, Some(layer)) as u64).collect(),
            stored_bytes: 0,
            values: Values::Vector(vec![base.number(&canonical)?]),
            kept_in: None,
        })
    };
    all.map(tensor).collect()
}
