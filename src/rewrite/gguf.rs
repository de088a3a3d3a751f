//! A GGUF model with new tensors: one file, or splits of limited size.

use std::path::{Path, PathBuf};

use curmerge_formats::gguf::{
    Gguf, GgufLayout, GgufModel, GgufTensor, NewTensor, Value, split_metadata, split_name,
};
use curmerge_formats::output::{OutputFile, OutputFolder, Piece, Pieces};
use curmerge_formats::shards::groups;

use super::destination::Destination;
use super::tensors::{ComputedTensor, ComputedTensors};
use super::writer::{Hooks, Writer};
use crate::chat::templates;
use crate::{Error, Result};

/// Writes a model with new tensors and with this metadata, or its own if that is `None`: as one file, or as a
/// folder of splits if their size is limited. Returns the file to give to a loader: the first split. The
/// order of the tensors stays.
///
/// # Errors
/// A tensor that GGUF cannot hold; a folder without a name; those of `hooks` and the tensors; a full disk.
/// After an error the destination is unchanged.
pub fn write<T: ComputedTensor>(
    model: &GgufModel,
    metadata: Option<&[(String, Value)]>,
    new: &ComputedTensors<'_, T>,
    to: &Destination<'_>,
    hooks: Hooks<'_, T>,
) -> Result<PathBuf> {
    let with_template = to.chat_template.map(|source| {
        let mut metadata = metadata.map_or_else(|| model.whole_metadata(), <[_]>::to_vec);
        templates::set_in_metadata(&mut metadata, source);
        metadata
    });
    let metadata = with_template.as_deref().or(metadata);
    let mut writer = Writer::new(new, hooks);
    let Some(limit) = to.max_shard_bytes else {
        let pieces = whole(model, metadata, new)?;
        let file = OutputFile::create(to.path, &to.inputs)?;
        writer.write(&pieces, &file)?;
        file.commit()?;
        return Ok(to.path.into());
    };
    let splits = splits(model, metadata, new, limit, folder_name(to.path)?)?;
    let folder = OutputFolder::create(to.path, &to.inputs, to.force)?;
    folder.must_fit(splits.iter().map(|(_, pieces)| pieces.bytes()).sum())?;
    for (name, pieces) in &splits {
        let file = folder.file(name)?;
        writer.write(pieces, &file)?;
        file.commit()?;
    }
    folder.commit()?;
    Ok(to.path.join(&splits[0].0))
}

/// The stem of the splits' names.
fn folder_name(out: &Path) -> Result<&str> {
    out.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        Error::input(out, "output", "it has no name from which to name the splits", "name a new folder")
    })
}

/// A tensor of the model with its file.
type Source<'a> = (&'a Gguf, &'a GgufTensor);

fn sources(model: &GgufModel) -> Vec<Source<'_>> {
    model.tensors().map(|(file, tensor)| (&model.files()[file], tensor)).collect()
}

fn dtype_changes<T: ComputedTensor>(tensor: &GgufTensor, new: &ComputedTensors<'_, T>) -> bool {
    new.get(&tensor.name).is_some_and(|(new, _)| new.dtype() != tensor.dtype)
}

/// The pieces of the model as one file. Its own bytes stay where they are if only values change.
fn whole<'a, T: ComputedTensor>(
    model: &'a GgufModel,
    metadata: Option<&[(String, Value)]>,
    new: &ComputedTensors<'_, T>,
) -> Result<Pieces<'a>> {
    let first = model.first();
    match (model.files(), metadata) {
        ([gguf], None) if !gguf.tensors().iter().any(|tensor| dtype_changes(tensor, new)) => {
            let replaced = gguf.tensors().iter().filter_map(|tensor| {
                let (_, index) = new.get(&tensor.name)?;
                Some((tensor.offset, tensor.bytes, index))
            });
            Ok(Pieces::in_place(gguf.file(), replaced))
        }
        ([_], None) => laid_out(first, first.metadata(), &sources(model), new, false),
        (_, None) => laid_out(first, &model.whole_metadata(), &sources(model), new, false),
        (_, Some(metadata)) => laid_out(first, metadata, &sources(model), new, true),
    }
}

/// The dimensions without those of 1 at the end, which llama-quantize does not write.
pub(crate) fn trimmed(dims: &[u64]) -> &[u64] {
    let kept = dims.iter().rposition(|&dim| dim != 1).map_or(1, |last| last + 1);
    &dims[..kept.min(dims.len())]
}

/// The pieces of a file of these tensors, in the version and alignment of `like`. Dimensions are as llama-quantize writes
/// them if `trims`, else as they are.
fn laid_out<'a, T: ComputedTensor>(
    like: &Gguf,
    metadata: &[(String, Value)],
    tensors: &[Source<'a>],
    new: &ComputedTensors<'_, T>,
    trims: bool,
) -> Result<Pieces<'a>> {
    let headers = tensors.iter().map(|(_, tensor)| NewTensor {
        name: tensor.name.clone(),
        dtype: new.get(&tensor.name).map_or(tensor.dtype, |(new, _)| new.dtype()),
        dims: if trims { trimmed(&tensor.dims) } else { &tensor.dims }.to_vec(),
    });
    let layout = GgufLayout::new(like.version(), like.alignment(), metadata, headers.collect())?;
    let placed = tensors.iter().zip(layout.tensors()).map(|((file, old), place)| {
        let stored = Piece::Copy { source: file.file(), offset: old.offset, len: old.bytes };
        (place.offset, new.piece(&old.name, place.bytes, stored))
    });
    Ok(Pieces::laid_out(layout.header(), placed, layout.file_bytes()))
}

/// The splits of the model, called after `stem`: name and pieces of each. A model that fits one file is not
/// numbered.
fn splits<'a, T: ComputedTensor>(
    model: &'a GgufModel,
    metadata: Option<&[(String, Value)]>,
    new: &ComputedTensors<'_, T>,
    limit: u64,
    stem: &str,
) -> Result<Vec<(String, Pieces<'a>)>> {
    let (first, tensors) = (model.first(), sources(model));
    let trims = metadata.is_some();
    let metadata = metadata.map_or_else(|| model.whole_metadata(), <[_]>::to_vec);
    let sizes = tensors.iter().map(|(_, tensor)| {
        let bytes = match new.get(&tensor.name) {
            // A length that overflows is refused when the file is laid out.
            Some((new, _)) => new.dtype().bytes_for(tensor.dims.iter().product()).unwrap_or(0),
            None => tensor.bytes,
        };
        bytes.saturating_add(first.alignment() - 1) / first.alignment() * first.alignment()
    });
    let groups = groups(sizes, limit);
    let count = groups.len();
    if count == 1 {
        return Ok(vec![(format!("{stem}.gguf"), laid_out(first, &metadata, &tensors, new, trims)?)]);
    }
    let split = |(number, group): (usize, std::ops::Range<usize>)| {
        let metadata = split_metadata(&metadata, number, count, tensors.len())?;
        let pieces = laid_out(first, &metadata, &tensors[group], new, trims)?;
        Ok((split_name(stem, number as u64, count as u64), pieces))
    };
    groups.into_iter().enumerate().map(split).collect()
}
