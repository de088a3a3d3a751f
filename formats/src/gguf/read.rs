//! Opens a GGUF file: reads and checks the whole header once, and leaves the tensors' bytes mapped.

use std::path::Path;

use super::parse::Cursor;
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAX_ALIGNMENT, MAX_DIMS, Value};
use crate::dtype::DType;
use crate::error::{Error, FETCH_AGAIN, Result, quoted};
use crate::mmap::MappedFile;

/// An open GGUF file.
#[derive(Debug)]
pub struct Gguf {
    file: MappedFile,
    version: u32,
    alignment: u64,
    metadata: Vec<(String, Value)>,
    tensors: Vec<GgufTensor>,
    /// Positions in `metadata`, sorted by key.
    keys: Vec<usize>,
    /// Positions in `tensors`, sorted by name.
    names: Vec<usize>,
    /// Length of the header, without the padding before the data.
    header_bytes: usize,
}

/// A tensor of a GGUF file.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufTensor {
    /// Its name, unique in the file.
    pub name: String,
    /// How its values are stored.
    pub dtype: DType,
    /// Lengths in ggml's order, none of them zero: `dims[0]` is the row length. At most four; none for a
    /// scalar.
    pub dims: Vec<u64>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl GgufTensor {
    /// The shape with the slowest dimension first, `[out, in]` for a matrix: `dims` reversed.
    pub fn shape(&self) -> Vec<u64> {
        self.dims.iter().rev().copied().collect()
    }
}

impl Gguf {
    /// Maps and checks a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for anything against the format: a count, length or offset beyond
    /// the file, a name used twice, an alignment that is not a power of two, dimensions that overflow or are
    /// not whole blocks, tensors that are unaligned or overlap, text that is not UTF-8;
    /// [`Error::Unsupported`] for version 1, big-endian files, arrays of arrays and unknown tensor types.
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let mut cursor = Cursor { path, bytes: file.bytes(), at: 0 };
        let version = read_version(&mut cursor)?;
        let tensor_count = cursor.u64("tensor count")?;
        let key_count = cursor.u64("key count")?;

        // A key takes at least its length, one byte, its type and a one-byte value.
        cursor.check_count(key_count, 8 + 1 + 4 + 1, "key count")?;
        let mut metadata = Vec::new();
        for number in 0..key_count {
            let key = cursor.string(&format!("key number {number}"))?;
            if key.is_empty() {
                return Err(cursor.malformed(&format!("key number {number}"), "the key is empty"));
            }
            let value = cursor.value(&key)?;
            metadata.push((key, value));
        }
        let keys = sorted_positions(&metadata, |(key, _)| key).map_err(|key| {
            Error::malformed(path, format!("key {}", quoted(key)), "occurs twice", FETCH_AGAIN)
        })?;
        let alignment = read_alignment(path, &metadata)?;

        // A tensor takes at least its name's length, one byte, its dimension count, type and offset.
        cursor.check_count(tensor_count, 8 + 1 + 4 + 4 + 8, "tensor count")?;
        let mut tensors = Vec::new();
        for number in 0..tensor_count {
            tensors.push(read_tensor(&mut cursor, number, alignment)?);
        }
        let names = sorted_positions(&tensors, |tensor| &tensor.name).map_err(|name| {
            Error::malformed(path, format!("tensor {}", quoted(name)), "occurs twice", FETCH_AGAIN)
        })?;
        let header_bytes = cursor.at;
        place_tensors(path, &mut tensors, header_bytes as u64, alignment, file.bytes().len() as u64)?;
        Ok(Gguf { version, alignment, metadata, tensors, keys, names, header_bytes, file })
    }

    /// The path as it was given to [`Gguf::open`].
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The format version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The alignment of each tensor's offset in bytes, a power of two.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Length of the header in bytes, without the padding before the data.
    pub(super) fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    /// The byte at which the data start.
    pub(super) fn data_start(&self) -> u64 {
        data_start(self.header_bytes as u64, self.alignment)
    }

    /// All keys with their values, in the order of the file.
    pub fn metadata(&self) -> &[(String, Value)] {
        &self.metadata
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let found =
            self.keys.binary_search_by(|&position| self.metadata[position].0.as_str().cmp(key)).ok()?;
        Some(&self.metadata[self.keys[found]].1)
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// The tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        let found =
            self.names.binary_search_by(|&position| self.tensors[position].name.as_str().cmp(name)).ok()?;
        Some(&self.tensors[self.names[found]])
    }

    /// The stored bytes of a tensor of this file.
    ///
    /// # Panics
    /// If `tensor` is of another file and lies beyond this one.
    pub fn data(&self, tensor: &GgufTensor) -> &[u8] {
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

fn read_version(cursor: &mut Cursor) -> Result<u32> {
    let path = cursor.path;
    if cursor.bytes.get(..4) != Some(b"GGUF") {
        return Err(Error::malformed(
            path,
            "byte 0",
            "the file does not begin with GGUF",
            "name a GGUF file",
        ));
    }
    cursor.at = 4;
    let version = cursor.u32("version")?;
    match version {
        2 | 3 => Ok(version),
        _ if matches!(version.swap_bytes(), 1..=3) => Err(Error::unsupported(
            path,
            "version",
            "the file is big-endian",
            "convert it with gguf_convert_endian.py of llama.cpp",
        )),
        1 => {
            Err(Error::unsupported(path, "version", "GGUF version 1 is not read", "convert the model again"))
        }
        _ => Err(Error::unsupported(
            path,
            "version",
            format!("GGUF version {version} is not known"),
            "convert the model to version 3",
        )),
    }
}

fn read_alignment(path: &Path, metadata: &[(String, Value)]) -> Result<u64> {
    match metadata.iter().find(|(key, _)| key == ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some((_, Value::U32(alignment)))
            if alignment.is_power_of_two() && u64::from(*alignment) <= MAX_ALIGNMENT =>
        {
            Ok(u64::from(*alignment))
        }
        Some((key, value)) => {
            let found = match value {
                Value::U32(alignment) => alignment.to_string(),
                other => format!("of type {}", other.type_name()),
            };
            let problem = format!(
                "the alignment is {found} and must be a u32, a power of two of at most {MAX_ALIGNMENT}"
            );
            Err(Error::malformed(path, format!("key {}", quoted(key)), problem, FETCH_AGAIN))
        }
    }
}

/// Reads one tensor's entry. Its `offset` counts from the start of the data until [`place_tensors`] runs.
fn read_tensor(cursor: &mut Cursor, number: u64, alignment: u64) -> Result<GgufTensor> {
    let place = format!("tensor number {number}");
    let name = cursor.string(&place)?;
    if name.is_empty() {
        return Err(cursor.malformed(&place, "the name is empty"));
    }
    let place = format!("tensor {}", quoted(&name));
    let dim_count = cursor.u32(&place)? as usize;
    if dim_count > MAX_DIMS {
        return Err(
            cursor.malformed(&place, format!("{dim_count} dimensions, but at most {MAX_DIMS} are allowed"))
        );
    }
    let dims = (0..dim_count).map(|_| cursor.u64(&place)).collect::<Result<Vec<_>>>()?;
    let id = cursor.u32(&place)?;
    let Some(dtype) = DType::from_ggml_id(id) else {
        return Err(Error::unsupported(
            cursor.path,
            place,
            format!("ggml type {id} is not known"),
            "convert the model to a type such as Q8_0 with llama-quantize",
        ));
    };
    let offset = cursor.u64(&place)?;
    if !offset.is_multiple_of(alignment) {
        return Err(cursor
            .malformed(&place, format!("offset {offset} is not a multiple of the alignment {alignment}")));
    }
    match super::tensor_bytes(dtype, &dims) {
        Ok(bytes) => Ok(GgufTensor { name, dtype, dims, offset, bytes }),
        Err(problem) => Err(cursor.malformed(&place, problem)),
    }
}

fn data_start(header_end: u64, alignment: u64) -> u64 {
    // Cannot overflow: the header ends within a file in memory, and the alignment is a `u32`.
    header_end.next_multiple_of(alignment)
}

/// Makes the offsets count from the start of the file, and checks that the tensors lie in the file and apart.
fn place_tensors(
    path: &Path,
    tensors: &mut [GgufTensor],
    header_end: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<()> {
    let data_start = data_start(header_end, alignment);
    let place = |tensor: &GgufTensor| format!("tensor {}", quoted(&tensor.name));
    for tensor in tensors.iter_mut() {
        let start = tensor.offset.checked_add(data_start);
        let end = start.and_then(|start| start.checked_add(tensor.bytes));
        let (Some(start), Some(_)) = (start, end.filter(|&end| end <= file_bytes)) else {
            let problem = format!(
                "{} bytes from byte {} of the data go past the end of the file ({file_bytes} bytes)",
                tensor.bytes, tensor.offset
            );
            return Err(Error::malformed(path, place(tensor), problem, FETCH_AGAIN));
        };
        tensor.offset = start;
    }
    let mut by_offset: Vec<&GgufTensor> = tensors.iter().collect();
    by_offset.sort_by_key(|tensor| tensor.offset);
    for pair in by_offset.windows(2) {
        if pair[0].offset + pair[0].bytes > pair[1].offset {
            let problem = format!("its bytes overlap those of tensor {}", quoted(&pair[0].name));
            return Err(Error::malformed(path, place(pair[1]), problem, FETCH_AGAIN));
        }
    }
    Ok(())
}

/// Positions of `items` in the order of their names, or a name that occurs twice.
pub(super) fn sorted_positions<T>(
    items: &[T],
    name: impl Fn(&T) -> &String,
) -> std::result::Result<Vec<usize>, &str> {
    let mut positions: Vec<usize> = (0..items.len()).collect();
    positions.sort_unstable_by_key(|&position| name(&items[position]));
    for pair in positions.windows(2) {
        if name(&items[pair[0]]) == name(&items[pair[1]]) {
            return Err(name(&items[pair[0]]));
        }
    }
    Ok(positions)
}
