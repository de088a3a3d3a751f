//! An external file with some of its tensors changed: where each lies then.

use std::collections::BTreeMap;

use super::rewrite::{New, Piece};
use super::{Onnx, OnnxTensor, Storage};
use crate::mmap::MappedFile;

/// Offsets are kept as aligned as they were, up to this, which is a page.
const MAX_ALIGNMENT: u64 = 4096;

/// Where a tensor lies in the new file.
pub(super) struct Relocated {
    /// Where its message begins.
    pub(super) message: usize,
    /// First byte in the external file.
    pub(super) offset: u64,
    /// Length in bytes.
    pub(super) bytes: u64,
}

/// Bytes that stay together.
struct Block {
    /// Where they lie in the old file.
    from: u64,
    len: u64,
    /// The change that makes them; they are copied if there is none.
    change: Option<usize>,
    /// The tensors that lie in them: message, distance from `from`, length.
    tensors: Vec<(usize, u64, u64)>,
}

/// The pieces of an external file, and where each tensor lies in it then.
pub(super) fn external_file<'a>(
    model: &'a Onnx,
    file: usize,
    all: &BTreeMap<usize, &OnnxTensor>,
    changed: &BTreeMap<usize, New<'_>>,
) -> (Vec<Piece<'a>>, Vec<Relocated>) {
    let source = &model.external_files()[file].file;
    let mut tensors: Vec<(u64, u64, usize)> = all
        .iter()
        .filter_map(|(&message, tensor)| match tensor.storage {
            Storage::External { file: own, offset } if own == file => Some((offset, tensor.bytes, message)),
            _ => None,
        })
        .collect();
    tensors.sort_unstable();
    if changes_fit(&tensors, changed) {
        return in_place(source, &tensors, changed);
    }
    let mut blocks: Vec<Block> = Vec::new();
    for &(from, len, message) in tensors.iter().filter(|(.., message)| !changed.contains_key(message)) {
        match blocks.last_mut().filter(|block| from < block.from + block.len) {
            // Tensors that share bytes go on sharing them.
            Some(block) => {
                block.len = block.len.max(from + len - block.from);
                block.tensors.push((message, from - block.from, len));
            }
            None => blocks.push(Block { from, len, change: None, tensors: vec![(message, 0, len)] }),
        }
    }
    blocks.extend(tensors.iter().filter_map(|&(from, _, message)| {
        let new = changed.get(&message)?;
        Some(Block { from, len: new.bytes, change: Some(new.index), tensors: vec![(message, 0, new.bytes)] })
    }));
    blocks.sort_by_key(|block| block.from);
    moved(source, &blocks)
}

/// Whether every changed tensor keeps its size and shares no byte with another. `tensors` is sorted by offset.
fn changes_fit(tensors: &[(u64, u64, usize)], changed: &BTreeMap<usize, New<'_>>) -> bool {
    let same_size =
        |&(_, bytes, message): &(u64, u64, usize)| changed.get(&message).is_none_or(|new| new.bytes == bytes);
    let (mut end, mut end_is_changed) = (0, false);
    tensors.iter().filter(|(_, bytes, _)| *bytes > 0).all(|&(offset, bytes, message)| {
        let is_changed = changed.contains_key(&message);
        let apart = offset >= end || !(is_changed || end_is_changed);
        end_is_changed = if offset >= end { is_changed } else { end_is_changed || is_changed };
        end = end.max(offset + bytes);
        apart
    }) && tensors.iter().all(same_size)
}

fn in_place<'a>(
    source: &'a MappedFile,
    tensors: &[(u64, u64, usize)],
    changed: &BTreeMap<usize, New<'_>>,
) -> (Vec<Piece<'a>>, Vec<Relocated>) {
    let (mut pieces, mut at) = (Vec::new(), 0);
    for &(offset, bytes, message) in tensors {
        if let Some(new) = changed.get(&message).filter(|_| bytes > 0) {
            pieces.push(Piece::Copy { source, offset: at, len: offset - at });
            pieces.push(Piece::Change { index: new.index, len: bytes });
            at = offset + bytes;
        }
    }
    pieces.push(Piece::Copy { source, offset: at, len: source.bytes().len() as u64 - at });
    let stay = tensors.iter().map(|&(offset, bytes, message)| Relocated { message, offset, bytes });
    (pieces, stay.collect())
}

fn moved<'a>(source: &'a MappedFile, blocks: &[Block]) -> (Vec<Piece<'a>>, Vec<Relocated>) {
    let (mut pieces, mut relocated, mut end) = (Vec::new(), Vec::new(), 0u64);
    for block in blocks {
        let alignment = 1u64 << block.from.trailing_zeros().min(MAX_ALIGNMENT.trailing_zeros());
        let to = end.next_multiple_of(alignment);
        pieces.push(Piece::Bytes(vec![0; (to - end) as usize]));
        pieces.push(match block.change {
            Some(index) => Piece::Change { index, len: block.len },
            None => Piece::Copy { source, offset: block.from, len: block.len },
        });
        relocated.extend(block.tensors.iter().map(|&(message, distance, bytes)| Relocated {
            message,
            offset: to + distance,
            bytes,
        }));
        end = to + block.len;
    }
    (pieces, relocated)
}
