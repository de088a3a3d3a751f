//! A Hugging Face folder with new tensors: in its own files, or in shards of limited size.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::output::{OutputFolder, Piece, Pieces};
use curmerge_formats::safetensors::{NewSafeTensor, SafeTensor, SafeTensors, SafeTensorsLayout, shard_name};
use curmerge_formats::shards::groups;

use super::companions::{self, Companion};
use super::destination::Destination;
use super::shard_index;
use super::tensors::{ComputedTensor, ComputedTensors};
use super::writer::{Hooks, Writer};
use crate::Result;
use crate::base::folder::SAFETENSORS_INDEX;
use crate::chat::templates;

/// Writes the folder `base`, whose tensors are in `files`, with new tensors and everything else that it
/// holds. Returns the companions that a user should know of.
///
/// # Errors
/// A tensor that safetensors cannot hold; an index that is not JSON; those of `hooks` and the tensors; a full
/// disk. After an error the destination is unchanged.
pub fn write<T: ComputedTensor>(
    base: &Path,
    files: &[SafeTensors],
    new: &ComputedTensors<'_, T>,
    to: &Destination<'_>,
    hooks: Hooks<'_, T>,
) -> Result<Vec<Companion>> {
    let (shards, index) = match to.max_shard_bytes {
        None => (own_files(files, new)?, None),
        Some(limit) => regrouped(base, files, new, limit)?,
    };
    let mut writer = Writer::new(new, hooks);
    let folder = OutputFolder::create(to.path, &to.inputs, to.force)?;
    folder.must_fit(shards.iter().map(|(_, pieces)| pieces.bytes()).sum())?;
    for (name, pieces) in &shards {
        let file = folder.file(name)?;
        writer.write(pieces, &file)?;
        file.commit()?;
    }
    if let Some(index) = index {
        folder.write(SAFETENSORS_INDEX, index.as_bytes())?;
    }
    let own_index = base.join(SAFETENSORS_INDEX);
    let (growth, card) = (growth(files, new), to.card.as_deref());
    let companions = companions::copy_folder(base, &folder, growth, card, |path| {
        files.iter().any(|file| file.path() == path) || to.max_shard_bytes.is_some() && path == own_index
    })?;
    to.chat_template.map_or(Ok(()), |source| templates::set_in_folder(&folder, source))?;
    folder.commit()?;
    Ok(companions)
}

/// A file of the output folder: its name and its content.
type NamedPieces<'a> = (String, Pieces<'a>);

/// A tensor of the folder with its file.
type Source<'a> = (&'a SafeTensors, &'a SafeTensor);

fn new_dtype<T: ComputedTensor>(tensor: &SafeTensor, new: &ComputedTensors<'_, T>) -> DType {
    new.get(&tensor.name).map_or(tensor.dtype, |(new, _)| new.dtype())
}

/// Length of a tensor in the output, in bytes. One that overflows is refused when the file is laid out.
fn new_bytes<T: ComputedTensor>(tensor: &SafeTensor, new: &ComputedTensors<'_, T>) -> u64 {
    match new.get(&tensor.name) {
        Some((new, _)) => new.dtype().bytes_for(tensor.shape.iter().product()).unwrap_or(0),
        None => tensor.bytes,
    }
}

/// Bytes that the tensors gain.
fn growth<T: ComputedTensor>(files: &[SafeTensors], new: &ComputedTensors<'_, T>) -> i128 {
    let tensors = files.iter().flat_map(|file| file.tensors());
    tensors.map(|tensor| i128::from(new_bytes(tensor, new)) - i128::from(tensor.bytes)).sum()
}

/// The files under their own names.
fn own_files<'a, T: ComputedTensor>(
    files: &'a [SafeTensors],
    new: &ComputedTensors<'_, T>,
) -> Result<Vec<NamedPieces<'a>>> {
    let own = |file: &'a SafeTensors| {
        // It was opened by a name that is UTF-8.
        let name = file.path().file_name().and_then(|n| n.to_str()).unwrap_or_default();
        Ok((name.to_string(), own_file(file, new)?))
    };
    files.iter().map(own).collect()
}

/// The pieces of one file. Its own bytes stay where they are if only values change; `__metadata__` and the
/// order of the data stay in any case.
fn own_file<'a, T: ComputedTensor>(
    file: &'a SafeTensors,
    new: &ComputedTensors<'_, T>,
) -> Result<Pieces<'a>> {
    if file.tensors().iter().any(|tensor| new_dtype(tensor, new) != tensor.dtype) {
        let tensors: Vec<_> = file.tensors().iter().map(|tensor| (file, tensor)).collect();
        return laid_out(file.metadata(), &tensors, new);
    }
    let replaced = file.tensors().iter().filter_map(|tensor| {
        let (_, index) = new.get(&tensor.name)?;
        Some((tensor.offset, tensor.bytes, index))
    });
    Ok(Pieces::in_place(file.file(), replaced))
}

/// The pieces of a file of these tensors, in this order.
fn laid_out<'a, T: ComputedTensor>(
    metadata: &BTreeMap<String, String>,
    tensors: &[Source<'a>],
    new: &ComputedTensors<'_, T>,
) -> Result<Pieces<'a>> {
    let headers = tensors.iter().map(|(_, tensor)| NewSafeTensor {
        name: tensor.name.clone(),
        dtype: new_dtype(tensor, new),
        shape: tensor.shape.clone(),
    });
    let layout = SafeTensorsLayout::new(metadata, headers.collect())?;
    let placed = tensors.iter().zip(layout.tensors()).map(|((file, old), place)| {
        let stored = Piece::Copy { source: file.file(), offset: old.offset, len: old.bytes };
        (place.offset, new.piece(&old.name, place.bytes, stored))
    });
    Ok(Pieces::laid_out(layout.header(), placed, layout.file_bytes()))
}

/// Shards of limited size, and the text of their index if there are several. Tensors keep the folder's order.
fn regrouped<'a, T: ComputedTensor>(
    base: &Path,
    files: &'a [SafeTensors],
    new: &ComputedTensors<'_, T>,
    limit: u64,
) -> Result<(Vec<NamedPieces<'a>>, Option<String>)> {
    let mut metadata = BTreeMap::new();
    let mut tensors = Vec::new();
    for file in files {
        for (key, text) in file.metadata() {
            metadata.entry(key.clone()).or_insert_with(|| text.clone());
        }
        tensors.extend(file.tensors().iter().map(|tensor| (file, tensor)));
    }
    let sizes = tensors.iter().map(|(_, tensor)| new_bytes(tensor, new));
    let total = sizes.clone().fold(0u64, u64::saturating_add);
    let groups = groups(sizes, limit);
    let count = groups.len();
    let (mut shards, mut map) = (Vec::with_capacity(count), BTreeMap::new());
    for (number, group) in groups.into_iter().enumerate() {
        let name = shard_name(number, count);
        let mut own = tensors[group].to_vec();
        // Widest elements first, so that every tensor is aligned to its own, as readers that map the file
        // need it.
        own.sort_by_key(|(_, tensor)| Reverse(new_dtype(tensor, new).block_bytes()));
        map.extend(own.iter().map(|(_, tensor)| (tensor.name.as_str(), name.clone())));
        shards.push((name, laid_out(&metadata, &own, new)?));
    }
    let index = (count > 1).then(|| shard_index::text(base, &map, total)).transpose()?;
    Ok((shards, index))
}
