//! Lays out a GGUF file: the header's bytes and the place of each tensor, before any data is available.

use super::read::sorted_positions;
use super::{ALIGNMENT_KEY, Array, DEFAULT_ALIGNMENT, GgufTensor, MAX_ALIGNMENT, MAX_DIMS, Value};
use crate::dtype::DType;
use crate::error::{Error, Result, quoted};

/// llama.cpp refuses longer names (in bytes): `GGML_MAX_NAME` is 64 with the final zero.
const MAX_NAME: usize = 63;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTensor {
    /// Its name, unique in the file.
    pub name: String,
    /// How its values will be stored; a type that ggml has.
    pub dtype: DType,
    /// Lengths in ggml's order: `dims[0]` is the row length.
    pub dims: Vec<u64>,
}

/// The header of a GGUF file to be written, and where each tensor's data goes.
#[derive(Clone, Debug)]
pub struct GgufLayout {
    header: Vec<u8>,
    tensors: Vec<GgufTensor>,
    file_bytes: u64,
}

impl GgufLayout {
    /// Lays out a file of format `version` 2 or 3 with these keys and tensors, both in the order given, the
    /// data of each tensor at a multiple of `alignment` bytes. For unchanged keys and tensors of a file, the
    /// header is that file's.
    ///
    /// # Errors
    /// [`Error::Encode`] for what no reader would take: another version, an alignment other than the
    /// metadata's `general.alignment` (32 without it), keys or names that are empty, too long or used twice,
    /// a type that ggml does not have, dimensions that overflow or are not whole blocks.
    pub fn new(
        version: u32,
        alignment: u64,
        metadata: &[(String, Value)],
        tensors: Vec<NewTensor>,
    ) -> Result<Self> {
        check_file(version, alignment, metadata)?;
        if let Err(name) = sorted_positions(&tensors, |tensor| &tensor.name) {
            return Err(Error::encode(tensor_place(name), "occurs twice", "give each tensor its own name"));
        }

        let mut header = b"GGUF".to_vec();
        header.extend(version.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            put_string(&mut header, key);
            put_value(&mut header, value);
        }
        let mut data_bytes = 0u64;
        let mut placed = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let (id, bytes) = check_tensor(&tensor)?;
            put_string(&mut header, &tensor.name);
            header.extend((tensor.dims.len() as u32).to_le_bytes());
            for dim in &tensor.dims {
                header.extend(dim.to_le_bytes());
            }
            header.extend(id.to_le_bytes());
            header.extend(data_bytes.to_le_bytes());
            let NewTensor { name, dtype, dims } = tensor;
            let after = data_bytes.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(alignment));
            let after = after.ok_or_else(|| too_large(&name))?;
            placed.push(GgufTensor { name, dtype, dims, offset: data_bytes, bytes });
            data_bytes = after;
        }
        let start = header.len().next_multiple_of(alignment as usize);
        header.resize(start, 0);
        let file_bytes =
            data_bytes.checked_add(start as u64).ok_or_else(|| too_large("of the whole file"))?;
        for tensor in &mut placed {
            tensor.offset += start as u64;
        }
        Ok(GgufLayout { header, tensors: placed, file_bytes })
    }

    /// All bytes before the data, the padding to its start included.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The tensors in the order given, with their offsets from the start of the file.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// Length of the whole file: the last tensor is padded with zeros like the others.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }
}

fn tensor_place(name: &str) -> String {
    format!("tensor {}", quoted(name))
}

fn too_large(name: &str) -> Error {
    Error::encode(tensor_place(name), "the file would be larger than 2^64 bytes", "write fewer tensors")
}

fn check_file(version: u32, alignment: u64, metadata: &[(String, Value)]) -> Result<()> {
    if !matches!(version, 2 | 3) {
        return Err(Error::encode(
            "version",
            format!("GGUF version {version} is not written"),
            "write version 3",
        ));
    }
    let stated = match metadata.iter().find(|(key, _)| key == ALIGNMENT_KEY) {
        None => Some(DEFAULT_ALIGNMENT),
        Some((_, Value::U32(stated))) => Some(u64::from(*stated)),
        Some(_) => None,
    };
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT || stated != Some(alignment) {
        return Err(Error::encode(
            format!("key {ALIGNMENT_KEY:?}"),
            format!("the data would be aligned to {alignment}, but the metadata do not say so"),
            format!(
                "set the key to that power of two, at most {MAX_ALIGNMENT}, as a u32, or leave it out for 32"
            ),
        ));
    }
    if let Err(key) = sorted_positions(metadata, |(key, _)| key) {
        return Err(Error::encode(format!("key {}", quoted(key)), "occurs twice", "give each key one value"));
    }
    if metadata.iter().any(|(key, _)| key.is_empty()) {
        return Err(Error::encode("key \"\"", "a key is empty", "give each key a name"));
    }
    Ok(())
}

/// The ggml id and the length in bytes of a tensor that can be written.
fn check_tensor(tensor: &NewTensor) -> Result<(u32, u64)> {
    let fail = |problem: String, help: &str| Err(Error::encode(tensor_place(&tensor.name), problem, help));
    if tensor.name.is_empty() || tensor.name.len() > MAX_NAME {
        let problem =
            format!("the name has {} bytes, but llama.cpp takes 1 to {MAX_NAME}", tensor.name.len());
        return fail(problem, "use GGUF's short tensor names");
    }
    if tensor.dims.len() > MAX_DIMS {
        return fail(
            format!("{} dimensions, but GGUF has at most {MAX_DIMS}", tensor.dims.len()),
            "reshape it",
        );
    }
    let Some(id) = tensor.dtype.ggml_id() else {
        return fail(format!("GGUF has no type {}", tensor.dtype), "write it as F16, BF16 or F32");
    };
    match super::tensor_bytes(tensor.dtype, &tensor.dims) {
        Ok(bytes) => Ok((id, bytes)),
        Err(problem) => fail(problem, "choose another type or shape"),
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Writes the type, then the value.
fn put_value(out: &mut Vec<u8>, value: &Value) {
    let kind: u32 = match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    };
    out.extend(kind.to_le_bytes());
    match value {
        Value::U8(v) => out.extend(v.to_le_bytes()),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(v) => put_string(out, v),
        Value::Array(v) => put_array(out, v),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
    }
}

/// Writes the element type, the count, then the elements.
fn put_array(out: &mut Vec<u8>, array: &Array) {
    let kind: u32 = match array {
        Array::U8(_) => 0,
        Array::I8(_) => 1,
        Array::U16(_) => 2,
        Array::I16(_) => 3,
        Array::U32(_) => 4,
        Array::I32(_) => 5,
        Array::F32(_) => 6,
        Array::Bool(_) => 7,
        Array::String(_) => 8,
        Array::U64(_) => 10,
        Array::I64(_) => 11,
        Array::F64(_) => 12,
    };
    out.extend(kind.to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => out.extend(v),
        Array::I8(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::U16(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::I16(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::U32(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::I32(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::F32(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::Bool(v) => out.extend(v.iter().map(|&v| u8::from(v))),
        Array::String(v) => v.iter().for_each(|v| put_string(out, v)),
        Array::U64(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::I64(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::F64(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
    }
}
