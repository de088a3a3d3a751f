//! Importance matrices as llama-imatrix writes them: how much each column of each weight matrix matters.
//!
//! A file stores sums over calibration text. [`Imatrix::weights`] gives exactly the `f32` values that
//! llama-quantize passes to the quantizers. The current form is a GGUF file with two F32 tensors for each
//! matrix: `NAME.in_sum2`, the sums of the squares of its inputs, and `NAME.counts`, the number of inputs,
//! one count for each expert. Experts without inputs have weights of 1. The older form, `.dat`, is all
//! little-endian:
//!
//! ```text
//! entry count i32
//! entry: name length i32, name, calls i32, value count i32, values f32...     a weight is value / calls
//! chunk count i32, name length i32, name of the calibration text               this line may be missing
//! ```
//!
//! Source: common/imatrix-loader.cpp and `load_imatrix` of tools/quantize/quantize.cpp in llama.cpp.

use std::collections::BTreeMap;
use std::path::Path;

use crate::dtype::DType;
use crate::error::{Error, Result, quoted};
use crate::gguf::{Gguf, GgufTensor};
use crate::mmap::MappedFile;

const MAKE_AGAIN: &str = "the file is damaged or cut short: fetch it again, or make it with llama-imatrix";

/// The importance weights of a model's matrices.
#[derive(Clone, Debug, PartialEq)]
pub struct Imatrix {
    weights: BTreeMap<String, Vec<f32>>,
}

impl Imatrix {
    /// Reads the whole of a file of either form.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for anything against the form, weights that are negative or not
    /// finite, and a file without a matrix; [`Error::Unsupported`] as of [`Gguf::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = MappedFile::open(path)?;
        let weights = if file.bytes().starts_with(b"GGUF") {
            read_gguf(&Gguf::open(path)?)?
        } else {
            Cursor { path, bytes: file.bytes(), at: 0 }.file()?
        };
        for (name, weights) in &weights {
            if let Some(at) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
                let problem = format!("weight {at} is {}, but must be finite and not negative", weights[at]);
                return Err(Error::malformed(path, place(name), problem, MAKE_AGAIN));
            }
        }
        Ok(Imatrix { weights })
    }

    /// The weights of the columns of a tensor, one expert after the other; each weight is finite and not
    /// negative.
    pub fn weights(&self, tensor: &str) -> Option<&[f32]> {
        self.weights.get(tensor).map(Vec::as_slice)
    }

    /// The names of the tensors that there are weights for, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.weights.keys().map(String::as_str)
    }
}

fn place(name: &str) -> String {
    format!("entry {}", quoted(name))
}

/// What a GGUF file has under one name.
#[derive(Default)]
struct Parts<'a> {
    sums: Option<&'a GgufTensor>,
    counts: Option<&'a GgufTensor>,
}

fn read_gguf(gguf: &Gguf) -> Result<BTreeMap<String, Vec<f32>>> {
    let mut entries: BTreeMap<&str, Parts> = BTreeMap::new();
    for tensor in gguf.tensors() {
        if let Some(name) = tensor.name.strip_suffix(".in_sum2") {
            entries.entry(name).or_default().sums = Some(tensor);
        } else if let Some(name) = tensor.name.strip_suffix(".counts") {
            entries.entry(name).or_default().counts = Some(tensor);
        }
    }
    if entries.is_empty() {
        let problem = "no tensor is named NAME.in_sum2, so this is not an importance matrix";
        return Err(Error::malformed(gguf.path(), "tensors", problem, "name a file made with llama-imatrix"));
    }
    entries
        .into_iter()
        .map(|(name, parts)| {
            let weights = gguf_weights(gguf, &parts)
                .map_err(|problem| Error::malformed(gguf.path(), place(name), problem, MAKE_AGAIN))?;
            Ok((name.to_owned(), weights))
        })
        .collect()
}

/// The weights of one entry, or what is wrong with it.
fn gguf_weights(gguf: &Gguf, parts: &Parts) -> std::result::Result<Vec<f32>, String> {
    let floats = |tensor: Option<&GgufTensor>, part: &str| match tensor {
        None => Err(format!("there is no tensor {part}")),
        Some(tensor) if tensor.dtype != DType::F32 => {
            Err(format!("{part} is stored as {}, but must be F32", tensor.dtype))
        }
        Some(tensor) => Ok(floats(gguf.data(tensor))),
    };
    let (mut weights, counts) = (floats(parts.sums, "in_sum2")?, floats(parts.counts, "counts")?);
    // No tensor is empty.
    if !weights.len().is_multiple_of(counts.len()) {
        return Err(format!("{} sums cannot be divided among {} counts", weights.len(), counts.len()));
    }
    let columns = weights.len() / counts.len();
    for (weights, count) in weights.chunks_exact_mut(columns).zip(counts) {
        if !count.is_finite() {
            return Err(format!("a count is {count}, but must be finite"));
        }
        // Rounds like C's lround: halves away from zero, and through an integer.
        let count = count.round() as i64 as f32;
        for weight in weights {
            *weight = if count > 0.0 { *weight / count } else { 1.0 };
        }
    }
    Ok(weights)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// A place in the bytes of a `.dat` file.
struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn file(mut self) -> Result<BTreeMap<String, Vec<f32>>> {
        // An entry takes at least its three counts, one byte of name and one value.
        let count = self.count("entry count", 4 + 1 + 4 + 4 + 4)?;
        if count == 0 {
            return Err(self.malformed("entry count", "there are no entries"));
        }
        let mut entries = BTreeMap::new();
        for number in 0..count {
            let (name, weights) = self.entry(number)?;
            if entries.insert(name.clone(), weights).is_some() {
                return Err(self.malformed(&place(&name), "occurs twice"));
            }
        }
        if self.at < self.bytes.len() {
            self.i32("chunk count")?;
            let length = self.count("name of the calibration text", 1)?;
            self.take(length, "name of the calibration text")?;
        }
        match self.bytes.len() - self.at {
            0 => Ok(entries),
            more => Err(self.malformed("end", format!("{more} bytes follow that belong to nothing"))),
        }
    }

    fn entry(&mut self, number: usize) -> Result<(String, Vec<f32>)> {
        let start = format!("entry number {number}");
        let length = self.count(&start, 1)?;
        let Ok(name) = std::str::from_utf8(self.take(length, &start)?) else {
            return Err(self.malformed(&start, "the name is not UTF-8"));
        };
        if name.is_empty() {
            return Err(self.malformed(&start, "the name is empty"));
        }
        let place = place(name);
        let calls = self.i32(&place)?;
        let count = self.count(&place, 4)?;
        if count == 0 {
            return Err(self.malformed(&place, "there are no values"));
        }
        let mut weights = floats(self.take(count * 4, &place)?);
        if calls > 0 {
            weights.iter_mut().for_each(|weight| *weight /= calls as f32);
        }
        Ok((name.to_owned(), weights))
    }

    /// The next number, which promises that many items of at least `size` bytes each.
    fn count(&mut self, place: &str, size: usize) -> Result<usize> {
        let count = self.i32(place)?;
        let room = (self.bytes.len() - self.at) / size;
        match usize::try_from(count) {
            Ok(count) if count <= room => Ok(count),
            _ => {
                let problem = format!("the count is {count}, but from 0 to {room} items fit in the file");
                Err(self.malformed(place, problem))
            }
        }
    }

    fn i32(&mut self, place: &str) -> Result<i32> {
        let mut out = [0; 4];
        out.copy_from_slice(self.take(4, place)?);
        Ok(i32::from_le_bytes(out))
    }

    fn take(&mut self, length: usize, place: &str) -> Result<&'a [u8]> {
        let remaining = &self.bytes[self.at..];
        if length > remaining.len() {
            let problem =
                format!("{length} bytes are promised, but only {} remain in the file", remaining.len());
            return Err(self.malformed(place, problem));
        }
        self.at += length;
        Ok(&remaining[..length])
    }

    fn malformed(&self, place: &str, problem: impl Into<String>) -> Error {
        Error::malformed(self.path, format!("{place} at byte {}", self.at), problem, MAKE_AGAIN)
    }
}
