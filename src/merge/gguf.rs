//! Merging into a GGUF model: adapted tensors, and with a mixture of types the tensors that it stores in
//! another type.

use std::collections::BTreeMap;

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::GgufModel;

use super::adapted::Adapted;
use super::report::{MergeReport, TensorReport};
use super::{Merge, storage};
use crate::Result;
use crate::convert::retype::{self, Retyped};
use crate::rewrite::{self, ComputedTensor, ComputedTensors, Hooks};

/// A tensor that is not copied.
#[expect(clippy::large_enum_variant, reason = "a model has few of them")]
enum Changed<'a> {
    /// Adapters change its values.
    Adapted(Adapted<'a>),
    /// It keeps its values in another type.
    Retyped(Retyped<'a>),
}

impl ComputedTensor for Changed<'_> {
    /// The report on an adapted tensor.
    type Outcome = Option<TensorReport>;

    fn dtype(&self) -> DType {
        match self {
            Changed::Adapted(adapted) => adapted.dtype(),
            Changed::Retyped(retyped) => retyped.dtype(),
        }
    }

    fn compute(&self, put: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>) -> Result<Self::Outcome> {
        match self {
            Changed::Adapted(adapted) => adapted.compute(put).map(Some),
            Changed::Retyped(retyped) => retyped.compute(put).map(|()| None),
        }
    }
}

/// Writes the merged model.
pub(super) fn write(
    merge: &Merge<'_>,
    model: &GgufModel,
    confirm: Option<&dyn Fn() -> Result<()>>,
    progress: impl Fn(u64, u64),
) -> Result<MergeReport> {
    let (base, options) = (merge.base, merge.options);
    let mut report = MergeReport::default();
    let (mut changed, mut metadata) = (BTreeMap::new(), None);
    if let Some(file_type) = options.file_type {
        let tensors = retype::retyped(model, file_type, options.imatrix)?;
        report.notes = retype::notes(&tensors);
        metadata = Some(retype::metadata(model.whole_metadata(), file_type));
        let retyped = tensors.into_iter().filter(Retyped::changes);
        changed.extend(retyped.map(|t| (t.tensor.name.as_str(), Changed::Retyped(t))));
    }
    for (name, deltas) in &merge.deltas {
        let mut adapted = merge.adapted(name, deltas)?;
        let tensor = &base.tensors()[*name];
        if let Some(Changed::Retyped(retyped)) = changed.get(tensor.stored_name.as_str()) {
            adapted.dtype = retyped.choice.dtype;
            adapted.importance = retyped.importance;
        }
        adapted.dtype = storage::choose(options.storage, base, tensor, &adapted)?;
        changed.insert(&tensor.stored_name, Changed::Adapted(adapted));
    }
    let mut new = ComputedTensors::default();
    changed.into_iter().for_each(|(name, tensor)| new.replace([name], tensor));

    let (mut done, count) = (0, new.len() as u64);
    let mut tensors = Vec::new();
    let hooks = Hooks {
        confirm,
        done: &mut |_, tensor| {
            tensors.extend(tensor);
            done += 1;
            progress(done, count);
        },
    };
    report.model = rewrite::gguf::write(model, metadata.as_deref(), &new, &merge.destination(), hooks)?;
    report.tensors = tensors;
    Ok(report)
}
