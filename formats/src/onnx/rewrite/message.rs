//! The model's protobuf message with other contents of some `TensorProto`s.

use std::collections::BTreeMap;

use super::super::element::{ElementType, TypedField};
use super::super::tensor::read_entry;
use super::super::wire::{Message, Value, put_bytes, put_head, put_int, put_varint};
use super::super::{Onnx, OnnxTensor};
use super::external_file::Relocated;
use super::replacement::Replacement;
use crate::error::Result;
use crate::mmap::MappedFile;
use crate::output::{Piece, Pieces};

/// New contents of tensors' messages, by where the old contents begin.
pub(super) type Edits<'a> = BTreeMap<usize, Pieces<'a>>;

/// Where the values of a tensor go.
pub(super) enum Values<'a, 'l> {
    /// They stay where they are in the external file.
    Stay,
    /// Into the model file.
    Inline(Piece<'a>),
    /// Into an external file.
    External { location: &'l str, relocated: Relocated },
}

/// The `TensorProto` with its values at another place, and with the type and shape of `replacement`. Every
/// other field keeps its bytes and its place in the message.
pub(super) fn content<'a>(
    model: &'a Onnx,
    tensor: &OnnxTensor,
    replacement: Option<&Replacement<'_>>,
    values: Values<'a, '_>,
) -> Result<Pieces<'a>> {
    let message = message_of(model, tensor);
    let mut dims = replacement.filter(|new| new.dims != tensor.dims).map(|new| {
        let mut fields = Vec::new();
        new.dims.iter().for_each(|&dim| put_int(&mut fields, 1, dim as i64));
        fields
    });
    let reshaped = dims.is_some();
    let element = replacement.map(|new| new.element).filter(|&element| element != tensor.element);
    let mut out = Pieces::default();
    if tensor.dims.is_empty() {
        out.extend(dims.take().map(Piece::Bytes));
    }
    let (mut inline, mut entries) = match values {
        Values::Stay => (None, None),
        Values::Inline(piece) => (Some(piece), None),
        Values::External { location, relocated } => (None, Some(entries(&message, location, &relocated)?)),
    };
    let (moved_in, moved_out) = (inline.is_some(), entries.is_some());
    let mut located = false;
    for field in message.fields() {
        let field = field?;
        let (from, len) = (field.range.start as u64, field.range.len() as u64);
        let copied = Piece::Copy { source: model.file(), offset: from, len };
        match field.number {
            1 if reshaped => out.extend(dims.take().map(Piece::Bytes)),
            2 if element.is_some() => {
                let mut bytes = Vec::new();
                put_int(&mut bytes, 2, element.map_or(0, ElementType::id));
                out.push(Piece::Bytes(bytes));
            }
            9 if moved_in => {
                if let (Some(values), Value::Bytes(range)) = (inline.take(), &field.value) {
                    // A value of the old length keeps key and length.
                    let head = Piece::Copy {
                        source: model.file(),
                        offset: from,
                        len: (range.start - field.range.start) as u64,
                    };
                    out.extend(if values.bytes() == range.len() as u64 {
                        [head, values]
                    } else {
                        raw(values)
                    });
                }
            }
            number if number == 9 || TypedField::of(number).is_some() => {
                if moved_in {
                    out.extend(inline.take().into_iter().flat_map(raw));
                } else if !moved_out {
                    out.push(copied);
                }
            }
            13 if moved_out => out.extend(entries.take().map(Piece::Bytes)),
            14 if moved_out => {
                located = true;
                out.push(Piece::Bytes(external_mark()));
            }
            _ => out.push(copied),
        }
    }
    out.extend(inline.take().into_iter().flat_map(raw));
    out.extend(entries.take().map(Piece::Bytes));
    if moved_out && !located {
        out.push(Piece::Bytes(external_mark()));
    }
    Ok(out)
}

fn message_of<'a>(model: &'a Onnx, tensor: &OnnxTensor) -> Message<'a> {
    Message { range: tensor.message.clone(), kind: "TensorProto", ..model.message() }
}

/// Whether the tensor carries a digest of its external file.
pub(super) fn has_checksum(model: &Onnx, tensor: &OnnxTensor) -> Result<bool> {
    let message = message_of(model, tensor);
    for field in message.fields() {
        let field = field?;
        if field.number == 13 && read_entry(&message.message(&field, "external_data")?)?.0 == "checksum" {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The field `raw_data`.
fn raw(values: Piece<'_>) -> [Piece<'_>; 2] {
    let mut head = Vec::new();
    put_head(&mut head, 9, values.bytes());
    [Piece::Bytes(head), values]
}

/// The field `data_location` with the value EXTERNAL.
fn external_mark() -> Vec<u8> {
    let mut bytes = Vec::new();
    put_int(&mut bytes, 14, 1);
    bytes
}

/// The fields `external_data`. The tensor's other entries are kept, except the digest of the old file.
fn entries(message: &Message, location: &str, to: &Relocated) -> Result<Vec<u8>> {
    let mut all = vec![
        ("location".to_owned(), location.to_owned()),
        ("offset".to_owned(), to.offset.to_string()),
        ("length".to_owned(), to.bytes.to_string()),
    ];
    for field in message.fields() {
        let field = field?;
        if field.number == 13 {
            let entry = read_entry(&message.message(&field, "external_data")?)?;
            if !["location", "offset", "length", "checksum"].contains(&entry.0.as_str()) {
                all.push(entry);
            }
        }
    }
    let mut bytes = Vec::new();
    for (key, value) in all {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, key.as_bytes());
        put_bytes(&mut entry, 2, value.as_bytes());
        put_bytes(&mut bytes, 13, &entry);
    }
    Ok(bytes)
}

/// A message with the contents of some messages within it replaced. The lengths of the messages around those
/// are updated.
pub(super) fn assemble<'a>(
    message: &Message,
    source: &'a MappedFile,
    edits: &Edits<'a>,
) -> Result<Pieces<'a>> {
    let (mut pieces, mut copied) = (Pieces::default(), message.range.start);
    let copy = |from: usize, to: usize| Piece::Copy { source, offset: from as u64, len: (to - from) as u64 };
    for field in message.fields() {
        let field = field?;
        let Value::Bytes(payload) = &field.value else { continue };
        let Some((&first, edit)) = edits.range(payload.start..payload.end).next() else { continue };
        // A key comes before the content of every message, so no two contents begin at one byte.
        let inner = if first == payload.start {
            edit.clone()
        } else {
            let message = message.message(&field, "message")?;
            assemble(&message, source, edits)?
        };
        if inner.bytes() == payload.len() as u64 {
            pieces.push(copy(copied, payload.start));
        } else {
            let mut head = Vec::new();
            put_varint(&mut head, u64::from(field.number) << 3 | 2);
            put_varint(&mut head, inner.bytes());
            pieces.extend([copy(copied, field.range.start), Piece::Bytes(head)]);
        }
        pieces.extend(inner);
        copied = payload.end;
    }
    pieces.push(copy(copied, message.range.end));
    Ok(pieces)
}
