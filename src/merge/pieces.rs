//! A model file as pieces: what is copied byte for byte, and what the adapter changes.
//!
//! Where no size changes the output is the base file with some ranges replaced: header, order, gaps and padding stay as
//! they are, whoever wrote them. Where a type changes, the header is laid out anew and the pieces move.

use std::collections::BTreeMap;
use std::path::Path;

use curmerge_formats::gguf::{Gguf, GgufLayout, NewTensor};
use curmerge_formats::mmap::MappedFile;
use curmerge_formats::output::OutputFile;
use curmerge_formats::safetensors::{NewSafeTensor, SafeTensors, SafeTensorsLayout};

use super::report::TensorReport;
use super::tensor::Adapted;
use crate::Result;

/// The matrices to change, by the name that the container gives them.
pub(super) type Changes<'a> = BTreeMap<&'a str, Adapted<'a>>;

/// A stretch of the output file.
pub(super) enum Piece<'a> {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Bytes of the base's file.
    Copy { offset: u64, len: u64 },
    /// A merged matrix.
    Merge(Adapted<'a>),
}

/// Where a tensor lies in the base's file and in the output.
struct Move<'a> {
    from: u64,
    len: u64,
    to: u64,
    change: Option<Adapted<'a>>,
}

/// Append the pieces in order. `base` is the model that errors name.
pub(super) fn write(
    pieces: &[Piece<'_>],
    source: &MappedFile,
    base: &Path,
    out: &mut OutputFile,
    mut done: impl FnMut(TensorReport),
) -> Result<()> {
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => out.append(bytes)?,
            Piece::Copy { offset, len } => out.copy_from(source, *offset, *len)?,
            Piece::Merge(adapted) => done(adapted.append_to(out, base)?),
        }
    }
    Ok(())
}

/// The pieces of a GGUF file: metadata and order of tensors as they are.
pub(super) fn of_gguf<'a>(gguf: &Gguf, changes: &Changes<'a>) -> Result<Vec<Piece<'a>>> {
    if !any_type_changes(changes.values()) {
        let places = gguf.tensors().iter().map(|t| (t.offset, t.bytes, changes.get(t.name.as_str())));
        return Ok(in_place(places, gguf.bytes().len() as u64));
    }
    let tensors = gguf.tensors().iter().map(|t| NewTensor {
        name: t.name.clone(),
        dtype: changes.get(t.name.as_str()).map_or(t.dtype, |c| c.dtype),
        dims: t.dims.clone(),
    });
    let layout = GgufLayout::new(gguf.version(), gguf.alignment(), gguf.metadata(), tensors.collect())?;
    let moves = gguf.tensors().iter().zip(layout.tensors()).map(|(old, new)| Move {
        from: old.offset,
        len: old.bytes,
        to: new.offset,
        change: changes.get(old.name.as_str()).copied(),
    });
    Ok(moved(layout.header(), moves, layout.file_bytes()))
}

/// The pieces of a safetensors file: `__metadata__` and the order of the data as they are.
pub(super) fn of_safetensors<'a>(file: &SafeTensors, changes: &Changes<'a>) -> Result<Vec<Piece<'a>>> {
    let here = |name: &str| changes.get(name).filter(|_| file.tensor(name).is_some());
    if !any_type_changes(file.tensors().iter().filter_map(|t| here(&t.name))) {
        let places = file.tensors().iter().map(|t| (t.offset, t.bytes, here(&t.name)));
        return Ok(in_place(places, file.bytes().len() as u64));
    }
    let tensors = file.tensors().iter().map(|t| NewSafeTensor {
        name: t.name.clone(),
        dtype: here(&t.name).map_or(t.dtype, |c| c.dtype),
        shape: t.shape.clone(),
    });
    let layout = SafeTensorsLayout::new(file.metadata(), tensors.collect())?;
    let moves = file.tensors().iter().zip(layout.tensors()).map(|(old, new)| Move {
        from: old.offset,
        len: old.bytes,
        to: new.offset,
        change: here(&old.name).copied(),
    });
    Ok(moved(layout.header(), moves, layout.file_bytes()))
}

fn any_type_changes<'a, 'b: 'a>(mut changes: impl Iterator<Item = &'a Adapted<'b>>) -> bool {
    changes.any(|c| c.dtype != c.weight.dtype())
}

/// The base's file of `file_bytes` with the changed tensors replaced where they stand.
fn in_place<'a, 'c>(
    places: impl Iterator<Item = (u64, u64, Option<&'c Adapted<'a>>)>,
    file_bytes: u64,
) -> Vec<Piece<'a>>
where
    'a: 'c,
{
    let mut changed: Vec<_> =
        places.filter_map(|(offset, len, change)| Some((offset, len, *change?))).collect();
    changed.sort_by_key(|(offset, _, _)| *offset);
    let (mut pieces, mut at) = (Vec::new(), 0);
    for (offset, len, change) in changed {
        pieces.push(Piece::Copy { offset: at, len: offset - at });
        pieces.push(Piece::Merge(change));
        at = offset + len;
    }
    pieces.push(Piece::Copy { offset: at, len: file_bytes - at });
    pieces
}

/// A new header, then every tensor at its new place with zeros between.
fn moved<'a>(header: &[u8], moves: impl Iterator<Item = Move<'a>>, file_bytes: u64) -> Vec<Piece<'a>> {
    let mut pieces = vec![Piece::Bytes(header.to_vec())];
    let mut at = header.len() as u64;
    for Move { from, len, to, change } in moves {
        pieces.push(Piece::Bytes(vec![0; (to - at) as usize]));
        at = to + change.map_or(len, |c| c.output_bytes());
        pieces.push(match change {
            Some(change) => Piece::Merge(change),
            None => Piece::Copy { offset: from, len },
        });
    }
    pieces.push(Piece::Bytes(vec![0; (file_bytes - at) as usize]));
    pieces
}
