//! Merging into a Hugging Face folder.

use std::collections::BTreeMap;

use curmerge_formats::safetensors::SafeTensors;

use super::adapted::Adapted;
use super::report::MergeReport;
use super::{Merge, deltas, storage};
use crate::base::{Base, BaseTensor};
use crate::rewrite::{self, ComputedTensors, Hooks};
use crate::{Error, Result};

/// Refuses a change of one of several experts that the folder has in one tensor.
pub(super) fn refuse_joined(merge: &Merge<'_>, tensor: &BaseTensor) -> Result<()> {
    // Other joined tensors name the rows of each of their matrices.
    if tensor.slice.is_none() || tensor.orders[0].is_spaced() {
        return Ok(());
    }
    let place = format!("tensor '{}'", tensor.stored_name.escape_debug());
    let problem = "the folder has the matrices of all experts in it, and one of them is changed";
    Err(Error::input(merge.base.path(), place, problem, "give the output a name that ends in .gguf"))
}

/// Makes a change of one of the matrices that a tensor joins one of the whole tensor.
pub(super) fn adapt_joined<'a>(adapted: &mut Adapted<'a>, base: &'a Base) -> Result<()> {
    adapted.weight = base.stored_weight(adapted.name)?;
    // It is called after the block that its matrices are in.
    adapted.name = adapted.name.rsplit_once('.').map_or(adapted.name, |(block, _)| block);
    Ok(())
}

/// Writes the merged folder.
pub(super) fn write(
    merge: &Merge<'_>,
    files: &[SafeTensors],
    confirm: Option<&dyn Fn() -> Result<()>>,
    progress: impl Fn(u64, u64),
) -> Result<MergeReport> {
    let stored = deltas::by_stored_tensor(merge.base, &merge.deltas);
    // A canonical name of each.
    let names = merge.deltas.keys().map(|name| (&*merge.base.tensors()[*name].stored_name, *name));
    let names: BTreeMap<&str, &str> = names.collect();
    let mut new = ComputedTensors::default();
    for (stored_name, deltas) in &stored {
        let name = names[stored_name];
        let tensor = &merge.base.tensors()[name];
        let mut adapted = merge.adapted(name, deltas)?;
        if tensor.slice.is_some() {
            refuse_joined(merge, tensor)?;
            adapt_joined(&mut adapted, merge.base)?;
        }
        adapted.dtype = storage::choose(merge.options.storage, merge.base, tensor, &adapted)?;
        new.replace([*stored_name], adapted);
    }
    let (mut tensors, count) = (Vec::new(), new.len() as u64);
    let hooks = Hooks {
        confirm,
        done: &mut |_, tensor| {
            tensors.push(tensor);
            progress(tensors.len() as u64, count);
        },
    };
    let destination = merge.folder()?;
    let companions = rewrite::safetensors::write(merge.base.path(), files, &new, &destination, hooks)?;
    Ok(MergeReport { model: merge.out.into(), tensors, companions, ..Default::default() })
}
