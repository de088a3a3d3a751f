//! Lays out a safetensors file: the header's bytes and each tensor's offset, before any data is available.

use std::collections::BTreeMap;

use serde_json::json;

use super::{MAX_HEADER, METADATA, SafeTensor};
use crate::dtype::DType;
use crate::error::{Error, Result, quoted};

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSafeTensor {
    /// Its name, unique in the file.
    pub name: String,
    /// How its values will be stored; a type that safetensors has.
    pub dtype: DType,
    /// Lengths, slowest first.
    pub shape: Vec<u64>,
}

/// The header of a safetensors file to be written, and where each tensor's data goes.
#[derive(Clone, Debug)]
pub struct SafeTensorsLayout {
    header: Vec<u8>,
    tensors: Vec<SafeTensor>,
    file_bytes: u64,
}

impl SafeTensorsLayout {
    /// Lays out a file with the data in the order given and without gaps, as the format demands. The header
    /// has its metadata first and then its tensors by name, and is padded with spaces to a multiple of 8
    /// bytes.
    ///
    /// # Errors
    /// [`Error::Encode`] for a name used twice or called `__metadata__`, a type that safetensors does not
    /// have, a shape that overflows or is not a whole number of bytes, a header beyond 100 MB.
    pub fn new(metadata: &BTreeMap<String, String>, tensors: Vec<NewSafeTensor>) -> Result<Self> {
        let mut entries = BTreeMap::new();
        let mut placed = Vec::with_capacity(tensors.len());
        let mut end = 0u64;
        for NewSafeTensor { name, dtype, shape } in tensors {
            let place = format!("tensor {}", quoted(&name));
            let Some(stored) = dtype.safetensors_name() else {
                let problem = format!("safetensors has no type {dtype}");
                return Err(Error::encode(place, problem, "write it as F16, BF16 or F32"));
            };
            let elements = shape.iter().try_fold(1u64, |product, &length| product.checked_mul(length));
            let Some(bytes) = elements.and_then(|elements| dtype.bytes_for(elements)) else {
                let problem =
                    format!("shape {shape:?} of {dtype} is too large or not a whole number of bytes");
                return Err(Error::encode(place, problem, "choose another shape or type"));
            };
            let begin = end;
            end = end.checked_add(bytes).ok_or_else(|| {
                Error::encode(&place, "the file would exceed 2^64 bytes", "write fewer tensors")
            })?;
            let entry = json!({ "data_offsets": [begin, end], "dtype": stored, "shape": shape }).to_string();
            if name == METADATA || entries.insert(name.clone(), entry).is_some() {
                return Err(Error::encode(place, "the name is taken", "give each tensor its own name"));
            }
            placed.push(SafeTensor { name, dtype, shape, offset: begin, bytes });
        }
        let header = header_bytes(metadata, &entries)?;
        let start = header.len() as u64;
        let file_bytes = end
            .checked_add(start)
            .ok_or_else(|| Error::encode("file", "it would exceed 2^64 bytes", "write fewer tensors"))?;
        for tensor in &mut placed {
            tensor.offset += start;
        }
        Ok(SafeTensorsLayout { header, tensors: placed, file_bytes })
    }

    /// All bytes before the data: the length, the JSON and its padding.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The tensors in the order given, with their offsets from the start of the file.
    pub fn tensors(&self) -> &[SafeTensor] {
        &self.tensors
    }

    /// Length of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }
}

/// The length, the JSON with `entries` already as JSON, and padding that keeps the data 8-byte aligned.
fn header_bytes(metadata: &BTreeMap<String, String>, entries: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut members = Vec::with_capacity(entries.len() + 1);
    if !metadata.is_empty() {
        let texts: Vec<String> = metadata.iter().map(|(key, text)| quote(key) + ":" + &quote(text)).collect();
        members.push(format!("{}:{{{}}}", quote(METADATA), texts.join(",")));
    }
    members.extend(entries.iter().map(|(name, entry)| quote(name) + ":" + entry));
    let mut json = format!("{{{}}}", members.join(",")).into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    if json.len() > MAX_HEADER {
        let problem = format!("it has {} bytes, but readers take {MAX_HEADER}", json.len());
        return Err(Error::encode("header", problem, "write fewer tensors or less metadata"));
    }
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    Ok(header)
}
