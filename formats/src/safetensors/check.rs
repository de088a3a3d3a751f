//! Checking a header: first what the crate `safetensors` leaves to its caller, then the crate's own checks,
//! whose errors get the tensor and the numbers that they lack.

use std::path::Path;

use ::safetensors::SafeTensorError;
use ::safetensors::tensor::Metadata;

use super::header::{Entry, Header};
use crate::dtype::DType;
use crate::error::{Error, FETCH_AGAIN, Result, one_line, quoted};

/// Lengths of a shape that are read: numpy and PyTorch have no more. The crate takes 24 times a long shape's
/// bytes in memory.
const MAX_DIMS: usize = 64;

/// Checks the file `bytes`, whose header is `header` and whose data start at byte `data_start`, and gives the
/// header as the crate reads it.
pub(super) fn check(path: &Path, header: &Header, bytes: &[u8], data_start: u64) -> Result<Metadata> {
    for (name, entry) in &header.entries {
        check_range(path, name, entry, data_start, bytes.len() as u64)?;
    }
    match ::safetensors::SafeTensors::read_metadata(bytes) {
        Ok((_, metadata)) => Ok(metadata),
        Err(error) => Err(explain(path, &error, header, data_start, bytes.len() as u64)),
    }
}

/// The type of that name.
///
/// # Errors
/// [`Error::Unsupported`].
pub(super) fn known_dtype(path: &Path, tensor: &str, name: &str) -> Result<DType> {
    DType::from_safetensors_name(name).ok_or_else(|| {
        let problem = format!("element type {} is not known", quoted(name));
        Error::unsupported(path, place(tensor), problem, "convert the model to BF16 or F16")
    })
}

fn place(tensor: &str) -> String {
    format!("tensor {}", quoted(tensor))
}

/// Checks that a tensor's type is known and its bytes lie in the file. The crate adds offsets up unchecked: a
/// sum beyond 2^64 panics in a build with overflow checks, and wraps around to a valid length in any other.
fn check_range(path: &Path, name: &str, entry: &Entry, data_start: u64, file_bytes: u64) -> Result<()> {
    known_dtype(path, name, &entry.dtype)?;
    let (begin, end) = entry.data_offsets;
    let malformed = |problem| Err(Error::malformed(path, place(name), problem, FETCH_AGAIN));
    let (Some(bytes), Some(end_in_file)) = (end.checked_sub(begin), end.checked_add(data_start)) else {
        return malformed(format!("offsets {begin} to {end} are not a range"));
    };
    if entry.shape.len() > MAX_DIMS {
        return malformed(format!(
            "its shape has {} lengths, but at most {MAX_DIMS} are read",
            entry.shape.len()
        ));
    }
    if end_in_file > file_bytes {
        return malformed(format!("its {bytes} bytes go past the end of the file"));
    }
    Ok(())
}

/// The crate's error with the tensor at fault and its numbers.
fn explain(path: &Path, error: &SafeTensorError, header: &Header, data_start: u64, file_bytes: u64) -> Error {
    use SafeTensorError::*;
    let (place, problem) = match error {
        InvalidOffset(name) => {
            let offsets = || header.entries.values().map(|entry| entry.data_offsets);
            let own = header.entries.get(name).map_or((0, 0), |entry| entry.data_offsets);
            let before = offsets().filter(|other| *other < own).max().map_or(0, |(_, end)| end);
            let (begin, end) = (own.0 + data_start, before + data_start);
            (
                place(name),
                format!("its data begin at byte {begin}, not at {end}, where the tensor before it ends"),
            )
        }
        TensorInvalidInfo | ValidationOverflow | MisalignedSlice => {
            let misfit = header.entries.iter().find_map(|(name, entry)| Some((place(name), misfit(entry)?)));
            misfit.unwrap_or_else(|| ("header".to_owned(), one_line(error)))
        }
        MetadataIncompleteBuffer => {
            let ends = header.entries.values().map(|entry| entry.data_offsets.1);
            let end = ends.max().unwrap_or(0) + data_start;
            (format!("byte {end}"), format!("the tensors end at byte {end}, the file at {file_bytes}"))
        }
        _ => ("header".to_owned(), one_line(error)),
    };
    Error::malformed(path, place, problem, FETCH_AGAIN)
}

/// Why a tensor's shape, type and offsets do not fit together, if they do not.
fn misfit(entry: &Entry) -> Option<String> {
    let dtype = DType::from_safetensors_name(&entry.dtype)?;
    let found = entry.data_offsets.1 - entry.data_offsets.0;
    let elements = entry.shape.iter().try_fold(1u64, |product, &length| product.checked_mul(length));
    match elements.and_then(|elements| dtype.bytes_for(elements)) {
        Some(needed) if needed == found => None,
        Some(needed) => Some(format!("{dtype} of its shape takes {needed} bytes, but it has {found}")),
        None => Some(format!("its shape of {dtype} is too large or not a whole number of bytes")),
    }
}
