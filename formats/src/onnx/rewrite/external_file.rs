//! An external file with new values for some of its tensors: its pieces, and where each tensor lies in it.

use super::super::Onnx;
use super::replacement::Tensors;
use crate::mmap::MappedFile;
use crate::output::{Piece, Pieces};

/// Moved tensors keep the alignment of their offset, up to this: a page.
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
    /// The index of their new values; `None` for a copy.
    new: Option<usize>,
    /// The tensors that lie in them: message, distance from `from`, length.
    tensors: Vec<(usize, u64, u64)>,
}

/// The pieces of the external file number `file`, and where each of its tensors then lies. The layout stays
/// if no size changes. Otherwise tensors move, each to an offset with the alignment of its old one.
pub(super) fn external_file<'a>(
    model: &'a Onnx,
    file: usize,
    tensors: &Tensors<'_, '_>,
) -> (Pieces<'a>, Vec<Relocated>) {
    let source = &model.external_files()[file].file;
    let placed = tensors.of_file(file);
    if new_values_fit(&placed, tensors) {
        return in_place(source, &placed, tensors);
    }
    let mut blocks: Vec<Block> = Vec::new();
    for &(from, len, message) in placed.iter().filter(|(.., message)| !tensors.new.contains_key(message)) {
        match blocks.last_mut().filter(|block| from < block.from + block.len) {
            // Tensors that share bytes still do.
            Some(block) => {
                block.len = block.len.max(from + len - block.from);
                block.tensors.push((message, from - block.from, len));
            }
            None => blocks.push(Block { from, len, new: None, tensors: vec![(message, 0, len)] }),
        }
    }
    blocks.extend(placed.iter().filter_map(|&(from, _, message)| {
        let new = tensors.new.get(&message)?;
        Some(Block { from, len: new.bytes, new: Some(new.index), tensors: vec![(message, 0, new.bytes)] })
    }));
    blocks.sort_by_key(|block| block.from);
    moved(source, &blocks)
}

/// Whether all new values have the old length and share no byte with another tensor. `placed` is sorted by
/// offset.
fn new_values_fit(placed: &[(u64, u64, usize)], tensors: &Tensors<'_, '_>) -> bool {
    let same_size = |&(_, bytes, message): &(u64, u64, usize)| {
        tensors.new.get(&message).is_none_or(|new| new.bytes == bytes)
    };
    let (mut end, mut end_is_new) = (0, false);
    placed.iter().filter(|(_, bytes, _)| *bytes > 0).all(|&(offset, bytes, message)| {
        let is_new = tensors.new.contains_key(&message);
        let apart = offset >= end || !(is_new || end_is_new);
        end_is_new = if offset >= end { is_new } else { end_is_new || is_new };
        end = end.max(offset + bytes);
        apart
    }) && placed.iter().all(same_size)
}

fn in_place<'a>(
    source: &'a MappedFile,
    placed: &[(u64, u64, usize)],
    tensors: &Tensors<'_, '_>,
) -> (Pieces<'a>, Vec<Relocated>) {
    let replaced = placed
        .iter()
        .filter(|(_, bytes, _)| *bytes > 0)
        .filter_map(|&(offset, bytes, message)| Some((offset, bytes, tensors.new.get(&message)?.index)));
    let stay = placed.iter().map(|&(offset, bytes, message)| Relocated { message, offset, bytes });
    (Pieces::in_place(source, replaced), stay.collect())
}

fn moved<'a>(source: &'a MappedFile, blocks: &[Block]) -> (Pieces<'a>, Vec<Relocated>) {
    let (mut pieces, mut relocated) = (Pieces::default(), Vec::new());
    for block in blocks {
        let alignment = 1u64 << block.from.trailing_zeros().min(MAX_ALIGNMENT.trailing_zeros());
        let to = pieces.bytes().next_multiple_of(alignment);
        pieces.pad_to(to);
        pieces.push(match block.new {
            Some(index) => Piece::Computed { index, len: block.len },
            None => Piece::Copy { source, offset: block.from, len: block.len },
        });
        relocated.extend(block.tensors.iter().map(|&(message, distance, bytes)| Relocated {
            message,
            offset: to + distance,
            bytes,
        }));
    }
    (pieces, relocated)
}
