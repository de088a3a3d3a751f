//! The same model with new values for some of its tensors.
//!
//! In the model file only the fields of those tensors and the lengths of the messages around them change. A
//! tensor that keeps its type and size is replaced in place. An external file keeps its layout if no size
//! changes. Otherwise its tensors move, each to an offset with the alignment of its old one.

mod external_file;
mod message;
mod replacement;

use std::collections::BTreeMap;

use super::external::{MIN_EXTERNAL, check_location};
use super::{MAX_MODEL, Onnx, OnnxTensor, Storage};
use crate::error::{Error, Result, quoted};
use crate::output::{Piece, Pieces};
use external_file::{Relocated, external_file};
use message::{Edits, Values, assemble, content, has_checksum};
use replacement::Tensors;

pub use replacement::Replacement;

/// The alignment that onnx.proto advises for tensors in an external file, so that readers can map them.
const ALIGNMENT: u64 = 4096;

/// How to write a model.
#[derive(Clone, Debug)]
pub struct RewriteOptions {
    /// The location of a new external file, written if the model file would be too large.
    pub external: String,
    /// Limit of the model file in bytes; 0 moves out every weight that can be. [`MAX_MODEL`] by default.
    pub max_model_bytes: u64,
    /// Tensors of fewer bytes stay in the model file when its weights move out: readers need shapes and axes
    /// directly. 1024 by default.
    pub min_external: u64,
    /// New locations of external files by their [`super::ExternalFile::location`]; others keep theirs. A
    /// model that is written into the folder of its base needs them.
    pub locations: BTreeMap<String, String>,
}

impl RewriteOptions {
    /// Options that keep the external files' names, with a location for a new one.
    pub fn new(external: impl Into<String>) -> Self {
        RewriteOptions {
            external: external.into(),
            max_model_bytes: MAX_MODEL,
            min_external: MIN_EXTERNAL,
            locations: BTreeMap::new(),
        }
    }
}

/// A file to be written.
#[derive(Clone, Debug)]
pub struct NewFile<'a> {
    /// Its path relative to the model's folder; `None` for the model file itself.
    pub location: Option<String>,
    /// Its content. [`Piece::Computed`] has the position of its values among the replacements, as raw
    /// little-endian data.
    pub pieces: Pieces<'a>,
}

/// The files of a model with new values for some tensors: the external files in the order of
/// [`Onnx::external_files`], then a new one if it is needed, and the model file last, so that a file exists
/// before the model names it. An external file without new values is one piece.
///
/// # Errors
/// [`Error::Encode`] for a tensor that is not the model's, is replaced twice or holds texts; for dimensions
/// that overflow; for a location that is taken or leads out of the folder; for a model file that is too large
/// even with its weights outside.
pub fn rewrite<'a>(
    model: &'a Onnx,
    replacements: &[Replacement<'_>],
    options: &RewriteOptions,
) -> Result<Vec<NewFile<'a>>> {
    let tensors = Tensors::new(model.tensors(), replacements)?;
    let locations = locations(model, options)?;

    let (mut files, mut edits) = (Vec::new(), Edits::new());
    for (file, location) in locations.iter().enumerate() {
        let (pieces, placed) = external_file(model, file, &tensors);
        let touched = pieces.iter().any(|piece| matches!(piece, Piece::Computed { .. }));
        for relocated in placed {
            let tensor = tensors.all[&relocated.message];
            let replacement = tensors.new.get(&relocated.message).map(|new| new.replacement);
            let stays = *location == model.external_files()[file].location
                && Storage::External { file, offset: relocated.offset } == tensor.storage
                && relocated.bytes == tensor.bytes
                && !(touched && has_checksum(model, tensor)?);
            let values = if stays { Values::Stay } else { Values::External { location, relocated } };
            if !stays || replacement.is_some() {
                let content = content(model, tensor, replacement, values)?;
                edits.insert(tensor.message.start, content);
            }
        }
        files.push(NewFile { location: Some(location.clone()), pieces });
    }
    for (&message, new) in tensors.new.iter().filter(|(message, _)| !is_external(tensors.all[*message])) {
        let values = Values::Inline(Piece::Computed { index: new.index, len: new.bytes });
        edits.insert(message, content(model, tensors.all[&message], Some(new.replacement), values)?);
    }

    let mut pieces = assemble(&model.message(), model.file(), &edits)?;
    if pieces.bytes() > options.max_model_bytes {
        let moved_out = move_out(model, &tensors, &locations, options, &mut edits)?;
        if moved_out.pieces.bytes() > 0 {
            files.push(moved_out);
            pieces = assemble(&model.message(), model.file(), &edits)?;
        }
        let (size, limit) = (pieces.bytes(), options.max_model_bytes.max(MAX_MODEL));
        if size > limit {
            let problem = format!("it would have {size} bytes without its weights, of {limit}");
            return Err(Error::encode("model file", problem, "change fewer tensors, or to a narrower type"));
        }
    }
    files.push(NewFile { location: None, pieces });
    Ok(files)
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

/// Moves the weights of the model file to an external one.
fn move_out<'a>(
    model: &'a Onnx,
    tensors: &Tensors<'_, '_>,
    taken: &[String],
    options: &RewriteOptions,
    edits: &mut Edits<'a>,
) -> Result<NewFile<'a>> {
    let location = options.external.as_str();
    check_new_location(location, taken)?;
    let mut pieces = Pieces::default();
    for tensor in &model.graph().initializers {
        let message = tensor.message.start;
        let new = tensors.new.get(&message);
        let piece = match (new, &tensor.storage) {
            (_, Storage::External { .. }) => continue,
            (Some(new), _) => Piece::Computed { index: new.index, len: new.bytes },
            (None, &Storage::Raw { offset }) => {
                Piece::Copy { source: model.file(), offset, len: tensor.bytes }
            }
            (None, Storage::Typed) => continue,
        };
        let bytes = piece.bytes();
        if bytes < options.min_external {
            continue;
        }
        let offset = pieces.bytes().next_multiple_of(ALIGNMENT);
        let relocated = Relocated { message, offset, bytes };
        let values = Values::External { location, relocated };
        edits.insert(message, content(model, tensor, new.map(|new| new.replacement), values)?);
        pieces.pad_to(offset);
        pieces.push(piece);
    }
    Ok(NewFile { location: Some(location.to_owned()), pieces })
}
