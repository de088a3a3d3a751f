//! A model file as pieces: what is copied byte for byte, and what the adapter changes.
//!
//! Where no size changes the output is the base file with some ranges replaced: header, order, gaps and padding stay as
//! they are, whoever wrote them. Where a type changes, the header is laid out anew and the pieces move.

use std::collections::BTreeMap;
use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{Gguf, GgufLayout, GgufModel, GgufTensor, NewTensor, Value};
use curmerge_formats::mmap::MappedFile;
use curmerge_formats::output::{OutputFile, Stretch, write_behind};
use curmerge_formats::safetensors::{NewSafeTensor, SafeTensor, SafeTensors, SafeTensorsLayout};

use super::report::TensorReport;
use super::tensor::Adapted;
use crate::Result;
use crate::convert::retype::Retyped;

/// The tensors to change, by the name that the container gives them.
pub(super) type Changes<'a> = BTreeMap<&'a str, Change<'a>>;

/// What becomes of a tensor that is not copied as it is.
#[derive(Clone, Debug)]
pub(super) enum Change<'a> {
    /// Adapters change its values.
    Adapted(Adapted<'a>),
    /// It has the same values in another type.
    Retyped(Retyped<'a>),
}

impl Change<'_> {
    /// The type in the output.
    fn dtype(&self) -> DType {
        match self {
            Change::Adapted(adapted) => adapted.dtype,
            Change::Retyped(retyped) => retyped.choice.dtype,
        }
    }

    fn changes_type(&self) -> bool {
        match self {
            Change::Adapted(adapted) => adapted.dtype != adapted.weight.dtype(),
            Change::Retyped(retyped) => retyped.changes(),
        }
    }

    /// Length of the tensor in the base.
    pub(super) fn stored_bytes(&self) -> u64 {
        match self {
            Change::Adapted(adapted) => adapted.weight.stored_bytes().len() as u64,
            Change::Retyped(retyped) => retyped.tensor.bytes,
        }
    }

    /// Length of the tensor in the output.
    pub(super) fn output_bytes(&self) -> u64 {
        match self {
            Change::Adapted(adapted) => adapted.output_bytes(),
            // The choice of the type saw to whole blocks.
            Change::Retyped(Retyped { tensor, choice, .. }) => {
                choice.dtype.bytes_for(tensor.dims.iter().product()).unwrap_or(0)
            }
        }
    }
}

/// A stretch of the output file.
pub(super) enum Piece<'a> {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Bytes of a file of the base.
    Copy { source: &'a MappedFile, offset: u64, len: u64 },
    /// A changed tensor.
    Change(Change<'a>),
}

/// Where a tensor lies in a file of the base and in the output.
struct Move<'a> {
    source: &'a MappedFile,
    from: u64,
    len: u64,
    to: u64,
    change: Option<Change<'a>>,
}

impl Piece<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Copy { len, .. } => *len,
            Piece::Change(change) => change.output_bytes(),
        }
    }
}

/// Write the pieces one behind the other: one thread copies and writes, while this one calls `confirm` and then, with the
/// others of the pool, computes. `base` is the model that errors name; `done` hears of every changed tensor, with a report
/// if adapters changed it.
pub(super) fn write(
    pieces: &[Piece<'_>],
    base: &Path,
    out: &OutputFile,
    confirm: &mut dyn FnMut() -> Result<()>,
    mut done: impl FnMut(Option<TensorReport>),
) -> Result<()> {
    let (mut stretches, mut changes, mut place) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => stretches.push((place, Stretch::Bytes(bytes))),
            &Piece::Copy { source, offset, len } => {
                stretches.push((place, Stretch::Copy { source, offset, len }));
            }
            Piece::Change(change) => changes.push((place, change)),
        }
        place += piece.bytes();
    }
    write_behind(out, &stretches, |queue| {
        confirm()?;
        for (place, change) in changes {
            match change {
                Change::Adapted(adapted) => done(Some(adapted.write_at(place, queue, base)?)),
                Change::Retyped(retyped) => {
                    retyped.write_at(place, queue)?;
                    done(None);
                }
            }
        }
        Ok(())
    })
}

/// The pieces of a whole GGUF file with this metadata: the base's, so that they may be copied, if that is `None`. The
/// order of tensors stays.
pub(super) fn of_gguf<'a>(
    model: &'a GgufModel,
    metadata: Option<&[(String, Value)]>,
    changes: &Changes<'a>,
) -> Result<Vec<Piece<'a>>> {
    let first = model.first();
    match (model.files(), metadata) {
        ([gguf], None) if !any_type_changes(changes.values()) => {
            let places = gguf.tensors().iter().map(|t| (t.offset, t.bytes, changes.get(t.name.as_str())));
            Ok(in_place(gguf.file(), places))
        }
        ([_], None) => of_gguf_tensors(first, first.metadata(), &tensors_of_gguf(model), changes),
        (_, None) => of_gguf_tensors(first, &model.whole_metadata(), &tensors_of_gguf(model), changes),
        (_, Some(metadata)) => of_gguf_tensors(first, metadata, &tensors_of_gguf(model), changes),
    }
}

/// A tensor of the base with its file.
pub(super) type GgufSource<'a> = (&'a Gguf, &'a GgufTensor);

/// All tensors of the base.
pub(super) fn tensors_of_gguf(model: &GgufModel) -> Vec<GgufSource<'_>> {
    model.tensors().map(|(file, tensor)| (&model.files()[file], tensor)).collect()
}

/// What a tensor becomes in the output.
pub(super) fn new_gguf_tensor(tensor: &GgufTensor, changes: &Changes<'_>) -> NewTensor {
    NewTensor {
        name: tensor.name.clone(),
        dtype: changes.get(tensor.name.as_str()).map_or(tensor.dtype, Change::dtype),
        dims: tensor.dims.clone(),
    }
}

/// The pieces of a GGUF file of these tensors, in the version and alignment of `like`.
pub(super) fn of_gguf_tensors<'a>(
    like: &Gguf,
    metadata: &[(String, Value)],
    tensors: &[GgufSource<'a>],
    changes: &Changes<'a>,
) -> Result<Vec<Piece<'a>>> {
    let new = tensors.iter().map(|(_, tensor)| new_gguf_tensor(tensor, changes));
    let layout = GgufLayout::new(like.version(), like.alignment(), metadata, new.collect())?;
    let moves = tensors.iter().zip(layout.tensors()).map(|((file, old), new)| Move {
        source: file.file(),
        from: old.offset,
        len: old.bytes,
        to: new.offset,
        change: changes.get(old.name.as_str()).cloned(),
    });
    Ok(moved(layout.header(), moves, layout.file_bytes()))
}

/// The pieces of a safetensors file: `__metadata__` and the order of the data as they are.
pub(super) fn of_safetensors<'a>(file: &'a SafeTensors, changes: &Changes<'a>) -> Result<Vec<Piece<'a>>> {
    let here = |name: &str| changes.get(name).filter(|_| file.tensor(name).is_some());
    if !any_type_changes(file.tensors().iter().filter_map(|t| here(&t.name))) {
        let places = file.tensors().iter().map(|t| (t.offset, t.bytes, here(&t.name)));
        return Ok(in_place(file.file(), places));
    }
    let tensors: Vec<_> = file.tensors().iter().map(|tensor| (file, tensor)).collect();
    of_safetensors_tensors(file.metadata(), &tensors, changes)
}

/// A tensor of the base with its file.
pub(super) type SafeSource<'a> = (&'a SafeTensors, &'a SafeTensor);

/// What a tensor becomes in the output.
pub(super) fn new_safe_tensor(tensor: &SafeTensor, changes: &Changes<'_>) -> NewSafeTensor {
    NewSafeTensor {
        name: tensor.name.clone(),
        dtype: changes.get(tensor.name.as_str()).map_or(tensor.dtype, Change::dtype),
        shape: tensor.shape.clone(),
    }
}

/// The pieces of a safetensors file of these tensors, in this order.
pub(super) fn of_safetensors_tensors<'a>(
    metadata: &BTreeMap<String, String>,
    tensors: &[SafeSource<'a>],
    changes: &Changes<'a>,
) -> Result<Vec<Piece<'a>>> {
    let new = tensors.iter().map(|(_, tensor)| new_safe_tensor(tensor, changes));
    let layout = SafeTensorsLayout::new(metadata, new.collect())?;
    let moves = tensors.iter().zip(layout.tensors()).map(|((file, old), new)| Move {
        source: file.file(),
        from: old.offset,
        len: old.bytes,
        to: new.offset,
        change: changes.get(old.name.as_str()).cloned(),
    });
    Ok(moved(layout.header(), moves, layout.file_bytes()))
}

fn any_type_changes<'a, 'b: 'a>(mut changes: impl Iterator<Item = &'a Change<'b>>) -> bool {
    changes.any(Change::changes_type)
}

/// The base's file with the changed tensors replaced where they stand.
fn in_place<'a, 'c>(
    source: &'a MappedFile,
    places: impl Iterator<Item = (u64, u64, Option<&'c Change<'a>>)>,
) -> Vec<Piece<'a>>
where
    'a: 'c,
{
    let mut changed: Vec<_> =
        places.filter_map(|(offset, len, change)| Some((offset, len, change?.clone()))).collect();
    changed.sort_by_key(|(offset, _, _)| *offset);
    let (mut pieces, mut at) = (Vec::new(), 0);
    for (offset, len, change) in changed {
        pieces.push(Piece::Copy { source, offset: at, len: offset - at });
        pieces.push(Piece::Change(change));
        at = offset + len;
    }
    pieces.push(Piece::Copy { source, offset: at, len: source.bytes().len() as u64 - at });
    pieces
}

/// A new header, then every tensor at its new place with zeros between.
fn moved<'a>(header: &[u8], moves: impl Iterator<Item = Move<'a>>, file_bytes: u64) -> Vec<Piece<'a>> {
    let mut pieces = vec![Piece::Bytes(header.to_vec())];
    let mut at = header.len() as u64;
    for Move { source, from, len, to, change } in moves {
        pieces.push(Piece::Bytes(vec![0; (to - at) as usize]));
        at = to + change.as_ref().map_or(len, Change::output_bytes);
        pieces.push(match change {
            Some(change) => Piece::Change(change),
            None => Piece::Copy { source, offset: from, len },
        });
    }
    pieces.push(Piece::Bytes(vec![0; (file_bytes - at) as usize]));
    pieces
}
