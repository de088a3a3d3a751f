//! Tensors of an ONNX model: their types, shapes and places, checked when the file is opened.

use std::ops::Range;

use super::element::{ElementType, TypedField};
use super::external::{ExternalFiles, Place};
use super::wire::{Field, Message, Value};
use crate::error::{Error, FETCH_AGAIN, Result, quoted};

/// A tensor: an initializer, or the value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxTensor {
    /// Its name; initializers have one, unique in their graph.
    pub name: String,
    /// How its values are stored.
    pub element: ElementType,
    /// Lengths, slowest first. None for a scalar; a zero is allowed and means no values.
    pub dims: Vec<u64>,
    /// Length of its values as raw data, in bytes; for texts, the sum of their lengths.
    pub bytes: u64,
    /// Where its values are.
    pub storage: Storage,
    /// Its `TensorProto` in the model file, without key and length.
    pub(super) message: Range<usize>,
}

/// Where the values of a tensor are.
#[derive(Clone, Debug, PartialEq)]
pub enum Storage {
    /// Raw little-endian bytes in the model file.
    Raw {
        /// The first byte, from the start of the file.
        offset: u64,
    },
    /// In the typed field of the `TensorProto`.
    Typed,
    /// Raw bytes in a file beside the model.
    External {
        /// The file's position in [`super::Onnx::external_files`].
        file: usize,
        /// The first byte, from the start of that file.
        offset: u64,
    },
}

impl OnnxTensor {
    /// Number of values.
    pub fn elements(&self) -> u64 {
        // Checked when the tensor was read.
        elements(&self.dims).unwrap_or(0)
    }
}

/// Number of values of a tensor, if a signed 64-bit integer counts them.
pub(super) fn elements(dims: &[u64]) -> Option<u64> {
    if dims.contains(&0) {
        return Some(0);
    }
    let product = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
    product.filter(|&elements| i64::try_from(elements).is_ok())
}

/// The fields of a `TensorProto` as they come.
#[derive(Default)]
struct Parts {
    dims: Vec<i64>,
    element: Option<i64>,
    name: Option<String>,
    raw: Option<Range<usize>>,
    /// The typed field in use, with its entries and the sum of the lengths of its texts.
    typed: Option<(TypedField, u64, u64)>,
    entries: Vec<(String, String)>,
    location: Option<i64>,
}

/// Reads a `TensorProto`.
pub(super) fn read(message: &Message, files: &mut ExternalFiles) -> Result<OnnxTensor> {
    let mut parts = Parts::default();
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => message.push_ints(&field, &mut parts.dims)?,
            2 => message.once(&field, &mut parts.element, message.int(&field)?)?,
            3 => return Err(message.malformed("it is one segment of a tensor, which no writer makes")),
            8 => message.once(&field, &mut parts.name, message.text(&field)?.to_owned())?,
            9 => message.once(&field, &mut parts.raw, message.bytes(&field)?)?,
            13 => parts.entries.push(read_entry(&message.message(&field, "external_data")?)?),
            14 => message.once(&field, &mut parts.location, message.int(&field)?)?,
            number => {
                if let Some(typed) = TypedField::of(number) {
                    count_typed(message, &field, typed, &mut parts)?;
                }
            }
        }
    }
    check(message, parts, files)
}

/// Reads a `StringStringEntryProto`.
pub(super) fn read_entry(message: &Message) -> Result<(String, String)> {
    let (mut key, mut value) = (None, None);
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => message.once(&field, &mut key, message.text(&field)?.to_owned())?,
            2 => message.once(&field, &mut value, message.text(&field)?.to_owned())?,
            _ => {}
        }
    }
    let key = key.filter(|key| !key.is_empty()).ok_or_else(|| message.malformed("it has no key"))?;
    Ok((key, value.unwrap_or_default()))
}

/// Counts the entries of a typed field, which may be packed, and in several parts.
fn count_typed(message: &Message, field: &Field, typed: TypedField, parts: &mut Parts) -> Result<()> {
    let (seen, count, texts) = parts.typed.get_or_insert((typed, 0, 0));
    if *seen != typed {
        let problem = format!("it has values in {} and in {}", seen.name(), typed.name());
        return Err(message.malformed(problem));
    }
    let width = match typed {
        TypedField::Float => 4,
        TypedField::Double => 8,
        _ => 1,
    };
    *count += match (&field.value, typed) {
        (Value::Bytes(range), TypedField::String) => {
            *texts += range.len() as u64;
            1
        }
        (Value::Bytes(range), TypedField::Float | TypedField::Double) if range.len() % width == 0 => {
            (range.len() / width) as u64
        }
        (Value::Bytes(range), TypedField::Int32 | TypedField::Int64 | TypedField::Uint64) => {
            let mut count = 0;
            for value in message.source.varints(message.kind, range.clone()) {
                value?;
                count += 1;
            }
            count
        }
        (Value::Fixed32(_), TypedField::Float)
        | (Value::Fixed64(_), TypedField::Double)
        | (Value::Varint(_), TypedField::Int32 | TypedField::Int64 | TypedField::Uint64) => 1,
        _ => return Err(message.malformed(format!("{} is not a list of its numbers", typed.name()))),
    };
    Ok(())
}

fn check(message: &Message, parts: Parts, files: &mut ExternalFiles) -> Result<OnnxTensor> {
    let path = message.source.path;
    let name = parts.name.unwrap_or_default();
    let place = match name.as_str() {
        "" => format!("TensorProto at byte {}", message.range.start),
        name => format!("tensor {}", quoted(name)),
    };
    let malformed = |problem: String| Error::malformed(path, &place, problem, FETCH_AGAIN);
    let id = parts.element.ok_or_else(|| malformed("it has no data_type".to_owned()))?;
    let element = ElementType::from_id(id).ok_or_else(|| {
        let problem = format!("data_type {id} is not known");
        Error::unsupported(path, &place, problem, "export the model again as FLOAT or FLOAT16")
    })?;
    let mut dims = Vec::with_capacity(parts.dims.len());
    for &dim in &parts.dims {
        let dim = u64::try_from(dim).map_err(|_| malformed(format!("a dimension is {dim}")))?;
        dims.push(dim);
    }
    let too_large = || malformed("its dimensions are too large".to_owned());
    let elements = elements(&dims).ok_or_else(too_large)?;
    let texts = element == ElementType::STRING;
    let needed = if texts { 0 } else { element.bytes_for(elements).ok_or_else(too_large)? };
    let tensor = |storage, bytes| OnnxTensor {
        name: name.clone(),
        element,
        dims: dims.clone(),
        bytes,
        storage,
        message: message.range.clone(),
    };

    let external = match parts.location {
        None | Some(0) => false,
        Some(1) => true,
        Some(other) => return Err(malformed(format!("data_location {other} is not known"))),
    };
    if external {
        if texts {
            return Err(malformed("texts cannot be in an external file".to_owned()));
        }
        if parts.raw.is_some_and(|raw| !raw.is_empty()) || parts.typed.is_some() {
            return Err(malformed("it has values of its own and in an external file".to_owned()));
        }
        let Place { file, offset } = files.place(&place, &parts.entries, needed)?;
        return Ok(tensor(Storage::External { file, offset }, needed));
    }
    match (parts.raw, parts.typed) {
        (Some(_), _) if texts => Err(malformed("texts cannot be raw data".to_owned())),
        (Some(raw), None) if raw.len() as u64 == needed => {
            Ok(tensor(Storage::Raw { offset: raw.start as u64 }, needed))
        }
        (Some(raw), None) => {
            let problem = format!("{element} of its shape takes {needed} bytes, but it has {}", raw.len());
            Err(malformed(problem))
        }
        (Some(_), Some((typed, ..))) => {
            Err(malformed(format!("it has values in raw_data and in {}", typed.name())))
        }
        (None, Some((typed, count, lengths))) => {
            let (entries, _) = element.entries_for(elements).ok_or_else(too_large)?;
            if typed != element.field() {
                let problem = format!("its values are in {}, but {element} has no place there", typed.name());
                return Err(malformed(problem));
            }
            if count != entries {
                let problem = format!(
                    "{element} of its shape takes {entries} entries of {}, but it has {count}",
                    typed.name()
                );
                return Err(malformed(problem));
            }
            Ok(tensor(Storage::Typed, if texts { lengths } else { needed }))
        }
        (None, None) if elements == 0 => Ok(tensor(Storage::Typed, 0)),
        (None, None) => Err(malformed("it has no values".to_owned())),
    }
}
