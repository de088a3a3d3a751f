//! The same model with other values in some tensors, as pieces: what is copied byte for byte and what is new.
//!
//! Of the model file only the changed tensors' fields and the lengths of the messages around them are written anew; a
//! tensor whose type and size stay is replaced where it stands. An external file keeps its layout where sizes stay, and
//! else its tensors move, each to an offset as aligned as it had.

use std::collections::BTreeMap;

use super::element::{ElementType, TypedField};
use super::external::check_location;
use super::layout::{Relocated, external_file};
use super::tensor::{elements, read_entry};
use super::wire::{Message, Value, put_bytes, put_head, put_int, put_varint};
use super::{MAX_MODEL, Onnx, OnnxTensor, Storage};
use crate::error::{Error, Result, quoted};
use crate::mmap::MappedFile;
use crate::output::OutputFile;

/// Where smaller tensors stay unless said otherwise, as onnx's own writer has it.
pub(super) const MIN_EXTERNAL: u64 = 1024;

/// Offsets of tensors moved out of the model file, as onnx.proto advises for mapping.
const ALIGNMENT: u64 = 4096;

/// New values for a tensor.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// The tensor, one of the model's [`Onnx::tensors`].
    pub tensor: &'a OnnxTensor,
    /// The type that it will have.
    pub element: ElementType,
    /// The lengths that it will have, slowest first.
    pub dims: Vec<u64>,
}

impl Change<'_> {
    /// Length of the new values; `None` for texts and what is too large.
    fn bytes(&self) -> Option<u64> {
        self.element.bytes_for(elements(&self.dims)?)
    }
}

/// How to write a model.
#[derive(Clone, Debug)]
pub struct RewriteOptions {
    /// The location for an external file that is made because the model file would be too large.
    pub external: String,
    /// Bytes that the model file may have, [`MAX_MODEL`] unless given; 0 moves out what can be.
    pub max_model_bytes: u64,
    /// Tensors of fewer bytes, 1024 unless given, stay in the model file when its weights are moved out: shapes and axes,
    /// which readers want at hand.
    pub min_external: u64,
    /// New locations for external files by their [`super::ExternalFile::location`]; others keep theirs. A model written
    /// into the folder of its base needs them.
    pub locations: BTreeMap<String, String>,
}

impl RewriteOptions {
    /// The options of a model that keeps its external files' names, with a location for a new one.
    pub fn new(external: impl Into<String>) -> Self {
        RewriteOptions {
            external: external.into(),
            max_model_bytes: MAX_MODEL,
            min_external: MIN_EXTERNAL,
            locations: BTreeMap::new(),
        }
    }
}

/// A stretch of a file to be written.
#[derive(Clone, Debug)]
pub enum Piece<'a> {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Bytes of a file of the base.
    Copy {
        /// That file.
        source: &'a MappedFile,
        /// Where they begin there.
        offset: u64,
        /// How many they are.
        len: u64,
    },
    /// The new values of a changed tensor as raw data.
    Change {
        /// Its position among the changes.
        index: usize,
        /// Their length in bytes.
        len: u64,
    },
}

impl Piece<'_> {
    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Copy { len, .. } | Piece::Change { len, .. } => *len,
        }
    }
}

/// A file to be written.
#[derive(Clone, Debug)]
pub struct NewFile<'a> {
    /// Its path relative to the model's folder; `None` for the model file itself.
    pub location: Option<String>,
    /// What it is made of, one behind the other.
    pub pieces: Vec<Piece<'a>>,
}

impl NewFile<'_> {
    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(Piece::bytes).sum()
    }

    /// Appends it to a file piece by piece. `values` gives the new values of the change of that position.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Encode`] if `values` gives another length than was laid out; its own.
    pub fn write(
        &self,
        file: &mut OutputFile,
        mut values: impl FnMut(usize) -> Result<Vec<u8>>,
    ) -> Result<()> {
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => file.append(bytes)?,
                Piece::Copy { source, offset, len } => file.copy_from(source, *offset, *len)?,
                Piece::Change { index, len } => {
                    let bytes = values(*index)?;
                    if bytes.len() as u64 != *len {
                        let problem = format!("{} bytes, and {len} were laid out", bytes.len());
                        return Err(Error::encode(
                            format!("change {index}"),
                            problem,
                            "report this as a bug",
                        ));
                    }
                    file.append(&bytes)?;
                }
            }
        }
        Ok(())
    }
}

/// The files of a model with these tensors changed: external files first, in the order of [`Onnx::external_files`] and
/// then a new one if it is needed, and the model file last, so that it is never there before what it names. An external
/// file of which nothing changes is one piece.
///
/// # Errors
/// [`Error::Encode`] for a tensor that is not the model's or is changed twice, texts, dimensions that overflow, a
/// location that leads out of the folder or is taken, and a model that is too large even with its weights outside.
pub fn rewrite<'a>(
    model: &'a Onnx,
    changes: &[Change<'_>],
    options: &RewriteOptions,
) -> Result<Vec<NewFile<'a>>> {
    let all: BTreeMap<usize, &OnnxTensor> =
        model.tensors().into_iter().map(|tensor| (tensor.message.start, tensor)).collect();
    let changed = by_message(&all, changes)?;
    let locations = locations(model, options)?;

    let (mut files, mut edits) = (Vec::new(), Edits::new());
    for (file, location) in locations.iter().enumerate() {
        let (pieces, moved) = external_file(model, file, &all, &changed);
        let touched = pieces.iter().any(|piece| matches!(piece, Piece::Change { .. }));
        for relocated in moved {
            let tensor = all[&relocated.message];
            let change = changed.get(&relocated.message).map(|new| new.change);
            let stays = *location == model.external_files()[file].location
                && Storage::External { file, offset: relocated.offset } == tensor.storage
                && relocated.bytes == tensor.bytes
                && !(touched && has_checksum(model, tensor)?);
            let values = if stays { Values::Stay } else { Values::External { location, relocated } };
            if !stays || change.is_some() {
                let content = content(model, tensor, change, values)?;
                edits.insert(tensor.message.start, content);
            }
        }
        files.push(NewFile { location: Some(location.clone()), pieces });
    }
    for (&message, new) in changed.iter().filter(|(message, _)| !is_external(all[*message])) {
        let values = Values::Inline(Piece::Change { index: new.index, len: new.bytes });
        edits.insert(message, content(model, all[&message], Some(new.change), values)?);
    }

    let mut pieces = assemble(&model.message(), model.file(), &edits)?;
    if total(&pieces) > options.max_model_bytes {
        let out = move_out(model, &changed, &locations, options, &mut edits)?;
        if !out.pieces.is_empty() {
            files.push(out);
            pieces = assemble(&model.message(), model.file(), &edits)?;
        }
        let (size, limit) = (total(&pieces), options.max_model_bytes.max(MAX_MODEL));
        if size > limit {
            let problem = format!("it would have {size} bytes without its weights, of {limit}");
            return Err(Error::encode("model file", problem, "change fewer tensors, or to a narrower type"));
        }
    }
    files.push(NewFile { location: None, pieces });
    Ok(files)
}

/// A change with what is known of it.
pub(super) struct New<'c> {
    /// Position among the changes.
    pub(super) index: usize,
    /// Length of the new values.
    pub(super) bytes: u64,
    change: &'c Change<'c>,
}

/// New contents of tensors' messages, by where these begin.
type Edits<'a> = BTreeMap<usize, Vec<Piece<'a>>>;

fn by_message<'c>(
    all: &BTreeMap<usize, &OnnxTensor>,
    changes: &'c [Change<'c>],
) -> Result<BTreeMap<usize, New<'c>>> {
    let mut changed = BTreeMap::new();
    for (index, change) in changes.iter().enumerate() {
        let place = format!("tensor {}", quoted(&change.tensor.name));
        let message = change.tensor.message.start;
        if all.get(&message) != Some(&change.tensor) {
            return Err(Error::encode(place, "it is not of this model", "report this as a bug"));
        }
        let texts = change.tensor.element == ElementType::STRING;
        let Some(bytes) = change.bytes().filter(|_| !texts) else {
            let problem = "it holds texts, or would be too large";
            return Err(Error::encode(place, problem, "change another tensor"));
        };
        if changed.insert(message, New { index, bytes, change }).is_some() {
            return Err(Error::encode(place, "it is changed twice", "report this as a bug"));
        }
    }
    Ok(changed)
}

/// The locations of the external files in the output.
fn locations(model: &Onnx, options: &RewriteOptions) -> Result<Vec<String>> {
    let own = model.external_files().iter().map(|file| &file.location);
    let new: Vec<String> =
        own.map(|location| options.locations.get(location).unwrap_or(location).clone()).collect();
    for (position, location) in new.iter().enumerate() {
        check_new_location(location, &new[..position])?;
    }
    Ok(new)
}

fn check_new_location(location: &str, taken: &[String]) -> Result<()> {
    let place = format!("external file {}", quoted(location));
    check_location(location).map_err(|problem| {
        Error::encode(&place, problem, "name a file in the model's folder, without \"..\"")
    })?;
    if taken.iter().any(|other| other == location) {
        return Err(Error::encode(place, "the name is taken", "name another file"));
    }
    Ok(())
}

fn is_external(tensor: &OnnxTensor) -> bool {
    matches!(tensor.storage, Storage::External { .. })
}

fn message_of<'a>(model: &'a Onnx, tensor: &OnnxTensor) -> Message<'a> {
    Message { range: tensor.message.clone(), kind: "TensorProto", ..model.message() }
}

/// Whether the tensor carries a digest of its external file.
fn has_checksum(model: &Onnx, tensor: &OnnxTensor) -> Result<bool> {
    let message = message_of(model, tensor);
    for field in message.fields() {
        let field = field?;
        if field.number == 13 && read_entry(&message.message(&field, "external_data")?)?.0 == "checksum" {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Moves the weights of the model file to an external one.
fn move_out<'a>(
    model: &'a Onnx,
    changed: &BTreeMap<usize, New<'_>>,
    taken: &[String],
    options: &RewriteOptions,
    edits: &mut Edits<'a>,
) -> Result<NewFile<'a>> {
    let location = options.external.as_str();
    check_new_location(location, taken)?;
    let (mut pieces, mut end) = (Vec::new(), 0u64);
    for tensor in &model.graph().initializers {
        let new = changed.get(&tensor.message.start);
        let piece = match (new, &tensor.storage) {
            (_, Storage::External { .. }) => continue,
            (Some(new), _) => Piece::Change { index: new.index, len: new.bytes },
            (None, &Storage::Raw { offset }) => {
                Piece::Copy { source: model.file(), offset, len: tensor.bytes }
            }
            (None, Storage::Typed) => continue,
        };
        let bytes = piece.bytes();
        if bytes < options.min_external {
            continue;
        }
        let offset = end.next_multiple_of(ALIGNMENT);
        let relocated = Relocated { message: tensor.message.start, offset, bytes };
        let values = Values::External { location, relocated };
        edits.insert(tensor.message.start, content(model, tensor, new.map(|new| new.change), values)?);
        pieces.extend([Piece::Bytes(vec![0; (offset - end) as usize]), piece]);
        end = offset + bytes;
    }
    Ok(NewFile { location: Some(location.to_owned()), pieces })
}

/// Where the values of a tensor will stand.
enum Values<'a, 'l> {
    /// In the external file, at the place that they have.
    Stay,
    /// In the model file.
    Inline(Piece<'a>),
    /// In an external file.
    External { location: &'l str, relocated: Relocated },
}

/// The `TensorProto` with other values and what says where they are; every other field as it is and where it is.
fn content<'a>(
    model: &'a Onnx,
    tensor: &OnnxTensor,
    change: Option<&Change<'_>>,
    values: Values<'a, '_>,
) -> Result<Vec<Piece<'a>>> {
    let message = message_of(model, tensor);
    let mut dims = change.filter(|change| change.dims != tensor.dims).map(|change| {
        let mut fields = Vec::new();
        change.dims.iter().for_each(|&dim| put_int(&mut fields, 1, dim as i64));
        fields
    });
    let reshaped = dims.is_some();
    let element = change.map(|change| change.element).filter(|&element| element != tensor.element);
    let mut out = Vec::new();
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
                    // The old key and length serve a value of the old length.
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

/// The field `raw_data`.
fn raw(values: Piece<'_>) -> [Piece<'_>; 2] {
    let mut head = Vec::new();
    put_head(&mut head, 9, values.bytes());
    [Piece::Bytes(head), values]
}

/// The field `data_location` that says EXTERNAL.
fn external_mark() -> Vec<u8> {
    let mut bytes = Vec::new();
    put_int(&mut bytes, 14, 1);
    bytes
}

/// The fields `external_data`. Entries that the tensor has besides are kept, but for the old file's digest.
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

/// A message with edits within it: the lengths on the way to them written anew where they change.
fn assemble<'a>(message: &Message, source: &'a MappedFile, edits: &Edits<'a>) -> Result<Vec<Piece<'a>>> {
    let (mut pieces, mut copied) = (Vec::new(), message.range.start);
    let copy = |from: usize, to: usize| Piece::Copy { source, offset: from as u64, len: (to - from) as u64 };
    for field in message.fields() {
        let field = field?;
        let Value::Bytes(payload) = &field.value else { continue };
        let Some((&first, edit)) = edits.range(payload.start..payload.end).next() else { continue };
        // A message holds a key before any message within it, so that no two begin at one byte.
        let inner = if first == payload.start {
            edit.clone()
        } else {
            let message = message.message(&field, "message")?;
            assemble(&message, source, edits)?
        };
        if total(&inner) == payload.len() as u64 {
            pieces.push(copy(copied, payload.start));
        } else {
            let mut head = Vec::new();
            put_varint(&mut head, u64::from(field.number) << 3 | 2);
            put_varint(&mut head, total(&inner));
            pieces.extend([copy(copied, field.range.start), Piece::Bytes(head)]);
        }
        pieces.extend(inner);
        copied = payload.end;
    }
    pieces.push(copy(copied, message.range.end));
    Ok(joined(pieces))
}

/// The same with neighbouring copies as one and nothing empty.
fn joined(pieces: Vec<Piece<'_>>) -> Vec<Piece<'_>> {
    let mut out: Vec<Piece> = Vec::new();
    for piece in pieces.into_iter().filter(|piece| piece.bytes() > 0) {
        match (out.last_mut(), piece) {
            (
                Some(Piece::Copy { source: before, offset: start, len }),
                Piece::Copy { source, offset, len: more },
            ) if std::ptr::eq(*before, source) && *start + *len == offset => *len += more,
            (Some(Piece::Bytes(before)), Piece::Bytes(bytes)) => before.extend(bytes),
            (_, piece) => out.push(piece),
        }
    }
    out
}

fn total(pieces: &[Piece]) -> u64 {
    pieces.iter().map(Piece::bytes).sum()
}
