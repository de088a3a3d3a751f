//! A model file as pieces: what is copied byte for byte, and what the adapter changes.
//!
//! Where no size changes the output is the base file with some ranges replaced: header, order, gaps and padding stay as
//! they are, whoever wrote them. Where a type changes, the header is laid out anew and the pieces move.

use std::collections::BTreeMap;
use std::path::Path;

use curmerge_formats::gguf::{Gguf, GgufLayout, GgufModel, GgufTensor, NewTensor, Value};
use curmerge_formats::mmap::MappedFile;
use curmerge_formats::output::OutputFile;
use curmerge_formats::safetensors::{NewSafeTensor, SafeTensor, SafeTensors, SafeTensorsLayout};

use super::report::TensorReport;
use super::tensor::Adapted;
use crate::Result;

/// The matrices to change, by the name that the container gives them.
pub(super) type Changes<'a> = BTreeMap<&'a str, Adapted<'a>>;

/// A stretch of the output file.
pub(super) enum Piece<'a> {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Bytes of a file of the base.
    Copy { source: &'a MappedFile, offset: u64, len: u64 },
    /// A merged matrix.
    Merge(Adapted<'a>),
}

/// Where a tensor lies in a file of the base and in the output.
struct Move<'a> {
    source: &'a MappedFile,
    from: u64,
    len: u64,
    to: u64,
    change: Option<Adapted<'a>>,
}

impl Piece<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Copy { len, .. } => *len,
            Piece::Merge(adapted) => adapted.output_bytes(),
        }
    }
}

/// Write the pieces one behind the other: one thread copies while the others merge. `base` is the model that errors name.
pub(super) fn write(
    pieces: &[Piece<'_>],
    base: &Path,
    out: &OutputFile,
    mut done: impl FnMut(TensorReport),
) -> Result<()> {
    let mut end = 0;
    let placed: Vec<(u64, &Piece<'_>)> = pieces
        .iter()
        .map(|piece| {
            let start = end;
            end += piece.bytes();
            (start, piece)
        })
        .collect();
    let copy = || -> Result<()> {
        for (place, piece) in &placed {
            match piece {
                Piece::Bytes(bytes) => out.write_all_at(*place, bytes)?,
                Piece::Copy { source, offset, len } => out.copy_from_at(*place, source, *offset, *len)?,
                Piece::Merge(_) => {}
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let copied = scope.spawn(copy);
        for (place, piece) in &placed {
            if let Piece::Merge(adapted) = piece {
                done(adapted.write_at(*place, out, base)?);
            }
        }
        copied.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The pieces of a whole GGUF file: metadata and order of tensors as they are, but for keys that tell of splits.
pub(super) fn of_gguf<'a>(model: &'a GgufModel, changes: &Changes<'a>) -> Result<Vec<Piece<'a>>> {
    let first = model.first();
    if let [gguf] = model.files() {
        if !any_type_changes(changes.values()) {
            let places = gguf.tensors().iter().map(|t| (t.offset, t.bytes, changes.get(t.name.as_str())));
            return Ok(in_place(gguf.file(), places));
        }
        return of_gguf_tensors(first, first.metadata(), &tensors_of_gguf(model), changes);
    }
    of_gguf_tensors(first, &model.whole_metadata(), &tensors_of_gguf(model), changes)
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
        dtype: changes.get(tensor.name.as_str()).map_or(tensor.dtype, |c| c.dtype),
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
        change: changes.get(old.name.as_str()).copied(),
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
        dtype: changes.get(tensor.name.as_str()).map_or(tensor.dtype, |c| c.dtype),
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
        change: changes.get(old.name.as_str()).copied(),
    });
    Ok(moved(layout.header(), moves, layout.file_bytes()))
}

fn any_type_changes<'a, 'b: 'a>(mut changes: impl Iterator<Item = &'a Adapted<'b>>) -> bool {
    changes.any(|c| c.dtype != c.weight.dtype())
}

/// The base's file with the changed tensors replaced where they stand.
fn in_place<'a, 'c>(
    source: &'a MappedFile,
    places: impl Iterator<Item = (u64, u64, Option<&'c Adapted<'a>>)>,
) -> Vec<Piece<'a>>
where
    'a: 'c,
{
    let mut changed: Vec<_> =
        places.filter_map(|(offset, len, change)| Some((offset, len, *change?))).collect();
    changed.sort_by_key(|(offset, _, _)| *offset);
    let (mut pieces, mut at) = (Vec::new(), 0);
    for (offset, len, change) in changed {
        pieces.push(Piece::Copy { source, offset: at, len: offset - at });
        pieces.push(Piece::Merge(change));
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
        at = to + change.map_or(len, |c| c.output_bytes());
        pieces.push(match change {
            Some(change) => Piece::Merge(change),
            None => Piece::Copy { source, offset: from, len },
        });
    }
    pieces.push(Piece::Bytes(vec![0; (file_bytes - at) as usize]));
    pieces
}
