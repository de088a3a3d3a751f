//! Opens a safetensors file: reads and checks the header once, and leaves the tensors' bytes mapped.

use std::collections::BTreeMap;
use std::path::Path;

use super::MAX_HEADER;
use super::check::{check, known_dtype};
use super::header::Header;
use crate::dtype::DType;
use crate::error::{Error, FETCH_AGAIN, Result, one_line};
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
    /// Lengths, slowest first: `[out, in]` for a matrix. None for a scalar; a zero is allowed and means no
    /// values.
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
    /// [`Error::Io`]; [`Error::Malformed`] for anything against the format: a header beyond the file or 100
    /// MB, JSON of another form, a name used twice, shapes that overflow or do not fit their bytes, gaps,
    /// overlaps or trailing bytes; [`Error::Unsupported`] for an element type that is not known.
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let (json, data_start) = header_json(path, file.bytes())?;
        let header = Header::parse(json)
            .map_err(|error| Error::malformed(path, "header", one_line(&error), FETCH_AGAIN))?;
        let checked = check(path, &header, file.bytes(), data_start)?;
        let mut tensors = Vec::new();
        for (name, info) in checked.tensors() {
            let (begin, end) = info.data_offsets;
            tensors.push(SafeTensor {
                dtype: known_dtype(path, &name, &info.dtype.to_string())?,
                shape: info.shape.iter().map(|&length| length as u64).collect(),
                offset: data_start + begin as u64,
                bytes: (end - begin) as u64,
                name,
            });
        }
        // Tensors without bytes share an offset: they come before the tensor that has bytes there, by name.
        tensors.sort_by(|a, b| (a.offset, a.bytes, &a.name).cmp(&(b.offset, b.bytes, &b.name)));
        let names =
            tensors.iter().enumerate().map(|(position, tensor)| (tensor.name.clone(), position)).collect();
        let metadata = checked.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(SafeTensors { metadata, tensors, names, file })
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
        _ => Err(malformed(format!("the header is said to have {length} bytes, but at most {limit} can be"))),
    }
}
