//! Opening a safetensors file: the header is read and checked once, the tensors' bytes stay mapped.

use std::collections::BTreeMap;
use std::path::Path;

use super::MAX_HEADER;
use super::header::{Entry, Header};
use crate::dtype::DType;
use crate::error::{Error, FETCH_AGAIN, Result, json_problem, quoted};
use crate::mmap::MappedFile;

/// An open safetensors file.
#[derive(Debug)]
pub struct SafeTensors {
    file: MappedFile,
    metadata: BTreeMap<String, String>,
    tensors: Vec<SafeTensor>,
    /// Positions in `tensors`.
    names: BTreeMap<String, usize>,
}

/// A tensor of a safetensors file.
#[derive(Clone, Debug, PartialEq)]
pub struct SafeTensor {
    /// Its name, unique in the file.
    pub name: String,
    /// How its values are stored.
    pub dtype: DType,
    /// Lengths, slowest first: `[out, in]` for a matrix. None for a scalar; a zero is allowed and means no values.
    pub shape: Vec<u64>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl SafeTensors {
    /// Maps and checks a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for anything against the format: a header beyond the file or 100 MB, JSON of
    /// another form, a name used twice, shapes that overflow or do not fit their bytes, gaps, overlaps or bytes left
    /// over; [`Error::Unsupported`] for an element type that is not known.
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let (json, data_start) = header_json(path, file.bytes())?;
        let header = Header::parse(json)
            .map_err(|error| Error::malformed(path, "header", json_problem(&error), FETCH_AGAIN))?;
        let mut tensors = Vec::new();
        for (name, entry) in header.entries {
            tensors.push(check_entry(path, name, entry, data_start)?);
        }
        // Tensors without bytes share an offset; the sort keeps these by name.
        tensors.sort_by_key(|tensor| (tensor.offset, tensor.bytes));
        check_cover(path, &tensors, data_start, file.bytes().len() as u64)?;
        let names =
            tensors.iter().enumerate().map(|(position, tensor)| (tensor.name.clone(), position)).collect();
        Ok(SafeTensors { metadata: header.metadata, tensors, names, file })
    }

    /// The path as it was given to [`SafeTensors::open`].
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The texts under `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// All tensors, in the order of their data.
    pub fn tensors(&self) -> &[SafeTensor] {
        &self.tensors
    }

    /// The tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&SafeTensor> {
        self.names.get(name).map(|&position| &self.tensors[position])
    }

    /// The stored bytes of a tensor of this file.
    ///
    /// # Panics
    /// If `tensor` is of another file and lies beyond this one.
    pub fn data(&self, tensor: &SafeTensor) -> &[u8] {
        &self.file.bytes()[tensor.offset as usize..(tensor.offset + tensor.bytes) as usize]
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.file.bytes()
    }

    /// The mapped file itself, for [`crate::OutputFile::copy_from`].
    pub fn file(&self) -> &MappedFile {
        &self.file
    }
}

/// The header's JSON, and the byte at which the data start.
fn header_json<'a>(path: &Path, bytes: &'a [u8]) -> Result<(&'a [u8], u64)> {
    let malformed = |problem: String| Error::malformed(path, "byte 0", problem, FETCH_AGAIN);
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(malformed(format!("{} bytes are too few for a safetensors file", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    let limit = rest.len().min(MAX_HEADER);
    match usize::try_from(length) {
        Ok(length) if length <= limit => Ok((&rest[..length], 8 + length as u64)),
        _ => Err(malformed(format!("the header is said to have {length} bytes, and at most {limit} can be"))),
    }
}

/// Checks one tensor by itself.
fn check_entry(path: &Path, name: String, entry: Entry, data_start: u64) -> Result<SafeTensor> {
    let place = format!("tensor {}", quoted(&name));
    let malformed = |problem: String| Error::malformed(path, &place, problem, FETCH_AGAIN);
    let Some(dtype) = DType::from_safetensors_name(&entry.dtype) else {
        let problem = format!("element type {} is not known", quoted(&entry.dtype));
        return Err(Error::unsupported(path, place, problem, "convert the model to BF16 or F16"));
    };
    let (begin, end) = entry.data_offsets;
    let offset = begin.checked_add(data_start);
    let (Some(offset), Some(bytes)) = (offset, end.checked_sub(begin)) else {
        return Err(malformed(format!("offsets {begin} to {end} are no range")));
    };
    let elements = entry.shape.iter().try_fold(1u64, |product, &length| product.checked_mul(length));
    match elements.and_then(|elements| dtype.bytes_for(elements)) {
        Some(needed) if needed == bytes => Ok(SafeTensor { name, dtype, shape: entry.shape, offset, bytes }),
        Some(needed) => {
            Err(malformed(format!("{dtype} of its shape takes {needed} bytes, and it has {bytes}")))
        }
        None => Err(malformed(format!("its shape of {dtype} is too large or no whole number of bytes"))),
    }
}

/// Checks that the tensors, in the order of their offsets, cover the data without gap, overlap or bytes left over.
fn check_cover(path: &Path, tensors: &[SafeTensor], data_start: u64, file_bytes: u64) -> Result<()> {
    let mut end = data_start;
    for tensor in tensors {
        let place = || format!("tensor {}", quoted(&tensor.name));
        if tensor.offset != end {
            let problem = format!(
                "its data begin at byte {}, and must at {end}, after the tensor before",
                tensor.offset
            );
            return Err(Error::malformed(path, place(), problem, FETCH_AGAIN));
        }
        end = match end.checked_add(tensor.bytes) {
            Some(end) if end <= file_bytes => end,
            _ => {
                let problem = format!("its {} bytes go past the end of the file", tensor.bytes);
                return Err(Error::malformed(path, place(), problem, FETCH_AGAIN));
            }
        };
    }
    if end != file_bytes {
        let problem = format!("the tensors end at byte {end}, the file at {file_bytes}");
        return Err(Error::malformed(path, format!("byte {end}"), problem, FETCH_AGAIN));
    }
    Ok(())
}
