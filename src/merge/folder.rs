//! Merging into a Hugging Face folder.

use curmerge_formats::safetensors::SafeTensors;

use super::report::MergeReport;
use super::{Merge, storage};
use crate::base::BaseTensor;
use crate::rewrite::{self, ComputedTensors, Hooks};
use crate::{Error, Result};

/// Refuses a change of one of several matrices that the folder has in one tensor.
pub(super) fn refuse_joined(merge: &Merge<'_>, tensor: &BaseTensor) -> Result<()> {
    if tensor.slice.is_none() {
        return Ok(());
    }
    let place = format!("tensor '{}'", tensor.stored_name.escape_debug());
    let problem = "the folder has the matrices of all experts in it, and one of them is changed";
    Err(Error::input(merge.base.path(), place, problem, "give the output a name that ends in .gguf"))
}

/// Writes the merged folder.
pub(super) fn write(
    merge: &Merge<'_>,
    files: &[SafeTensors],
    confirm: Option<&dyn Fn() -> Result<()>>,
    progress: impl Fn(u64, u64),
) -> Result<MergeReport> {
    let mut new = ComputedTensors::default();
    for (name, deltas) in &merge.deltas {
        let mut adapted = merge.adapted(name, deltas)?;
        let tensor = &merge.base.tensors()[*name];
        refuse_joined(merge, tensor)?;
        adapted.dtype = storage::choose(merge.options.storage, merge.base, tensor, &adapted)?;
        new.replace([tensor.stored_name.as_str()], adapted);
    }
    let (mut tensors, count) = (Vec::new(), new.len() as u64);
    let hooks = Hooks {
        confirm,
        done: &mut |_, tensor| {
            tensors.push(tensor);
            progress(tensors.len() as u64, count);
        },
    };
    let destination = merge.destination();
    let companions = rewrite::safetensors::write(merge.base.path(), files, &new, &destination, hooks)?;
    Ok(MergeReport { model: merge.out.into(), tensors, companions, ..Default::default() })
}
