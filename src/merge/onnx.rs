//! Merging into an ONNX model. The graph fixes the types of its tensors, so a merge changes values only.

use std::collections::{BTreeMap, BTreeSet};

use super::Merge;
use super::adapted::Adapted;
use super::deltas::{self, Delta};
use super::report::MergeReport;
use super::storage::Storage;
use crate::base::{Base, BaseTensor, OnnxModel};
use crate::convert::onnx_companions;
use crate::error::CallerOption;
use crate::rewrite::{self, ComputedTensors, Hooks};
use crate::{Error, Result};

/// Writes the merged model and the files beside it.
pub(super) fn write(
    merge: &Merge<'_>,
    model: &OnnxModel,
    confirm: Option<&dyn Fn() -> Result<()>>,
    progress: impl Fn(u64, u64),
) -> Result<MergeReport> {
    let base = merge.base;
    let deltas = deltas::by_stored_tensor(base, &merge.deltas);
    let mut users = BTreeMap::<&str, Vec<(&str, &BaseTensor)>>::new();
    for (canonical, tensor) in base.tensors() {
        users.entry(&tensor.stored_name).or_default().push((canonical, tensor));
    }
    let mut new = ComputedTensors::default();
    for (name, deltas) in &deltas {
        let (canonical, tensor) = sole_user(base, name, users.get(name).map_or(&[], Vec::as_slice))?;
        check_storage(base, canonical, tensor, merge.options.storage)?;
        refuse_in_turn(base, tensor)?;
        // A tensor that holds several matrices is called after the block that they are in.
        let block = canonical.rsplit_once('.').map_or(canonical, |(block, _)| block);
        let label = if tensor.slice.is_some() { block } else { canonical };
        let adapted = adapted(base, label, deltas, canonical, tensor)?;
        let beside = tensor.nbits.iter().flat_map(|nbits| [Some(&nbits.scales), nbits.zero_points.as_ref()]);
        new.replace(
            std::iter::once(*name).chain(beside.flatten().map(|part| part.stored_name.as_str())),
            adapted,
        );
    }
    let (mut tensors, count) = (Vec::new(), new.len() as u64);
    let hooks = Hooks {
        confirm,
        done: &mut |_, tensor| {
            tensors.push(tensor);
            progress(tensors.len() as u64, count);
        },
    };
    let companions = onnx_companions::of_folder(model.folder())?;
    let written = rewrite::onnx::write(model, &new, &companions, &merge.destination(), hooks)?;
    Ok(MergeReport { model: written, tensors, types_are_fixed: true, ..Default::default() })
}

/// The stored tensor of `canonical`, all that it holds, with these deltas.
fn adapted<'a>(
    base: &'a Base,
    label: &'a str,
    deltas: &'a [Delta<'a>],
    canonical: &str,
    tensor: &BaseTensor,
) -> Result<Adapted<'a>> {
    let weight = base.stored_weight(canonical)?;
    Ok(Adapted { name: label, deltas, weight, importance: None, dtype: tensor.dtype, path: base.path() })
}

/// The matrix that is stored under this name, or one of several. Fails if a merge would change another matrix
/// too.
fn sole_user<'b>(
    base: &Base,
    name: &str,
    users: &[(&'b str, &'b BaseTensor)],
) -> Result<(&'b str, &'b BaseTensor)> {
    match *users {
        [] => {
            let place = format!("tensor '{name}'");
            Err(Error::input(base.path(), place, "missing", "download the model again"))
        }
        [(canonical, tensor), (other, _), ..] if tensor.slice.is_none() || overlap(users) => {
            let problem = format!("it is also {other}, which a merge would change too");
            let help = "export the model again without sharing weights";
            Err(Error::input(base.path(), format!("tensor '{canonical}'"), problem, help))
        }
        [user, ..] => Ok(user),
    }
}

/// Whether two of these slices of one tensor begin alike: nodes share it, and a change of one is one of the other.
fn overlap(users: &[(&str, &BaseTensor)]) -> bool {
    let starts = users.iter().map(|(_, tensor)| tensor.slice.as_ref().map(|slice| slice.start));
    let mut seen = BTreeSet::new();
    starts.into_iter().any(|start| !seen.insert(start))
}

/// Refuses a change of matrices whose rows take turns with those of others: gate and up of experts.
fn refuse_in_turn(base: &Base, tensor: &BaseTensor) -> Result<()> {
    if tensor.slice.as_ref().is_none_or(|slice| slice.step == 1) {
        return Ok(());
    }
    let place = format!("tensor '{}'", tensor.stored_name.escape_debug());
    let problem = "rows of gate and up of all experts take turns in it, and one of them is changed";
    let help = "merge into the GGUF file or folder that the model was made from, and convert that";
    Err(Error::input(base.path(), place, problem, help))
}

/// Refuses a type other than that of the graph.
fn check_storage(base: &Base, name: &str, tensor: &BaseTensor, storage: Storage) -> Result<()> {
    let same = match storage {
        Storage::AsStored => true,
        Storage::Only(dtype) => tensor.nbits.is_none() && tensor.dtype == dtype,
        Storage::Narrowest { .. } => false,
    };
    if same {
        return Ok(());
    }
    let problem =
        format!("the graph takes it as {}, and a merge leaves the graph as it is", tensor.type_name());
    let help = "store the changed tensors as the base does";
    let error = Error::input(base.path(), format!("tensor '{name}'"), problem, help);
    Err(error.avoidable(CallerOption::Storage))
}
