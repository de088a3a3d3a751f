//! Numbers of blocks that folders have as tensors, and GGUF as arrays in its metadata.

use curmerge_formats::gguf::{Array, Value};

use super::keys::Keys;
use crate::Result;
use crate::arch::TensorNames;
use crate::base::Base;

/// Sets the arrays in the converter's order: each when its last tensor comes. Tensors come file by file, those of a file by
/// name.
pub(super) fn set(keys: &mut Keys, base: &Base) -> Result<()> {
    let name = |line: &TensorNames, layer: usize| line.canonical.replacen("{}", &layer.to_string(), 1);
    let blocks = 0..base.config().layers;
    let last = |line: &TensorNames| {
        let tensors = blocks.clone().filter_map(|layer| base.tensors().get(&name(line, layer)));
        tensors.map(|tensor| (tensor.file, &tensor.stored_name)).max()
    };
    let mut arrays: Vec<_> =
        base.architecture().names().filter_map(|line| Some((line.metadata_key()?, line))).collect();
    arrays.sort_by_key(|(_, line)| last(line));
    for (key, line) in arrays {
        let numbers = blocks.clone().map(|layer| base.number(&name(line, layer))).collect::<Result<_>>()?;
        keys.set(key, Value::Array(Array::F32(numbers)));
    }
    Ok(())
}
