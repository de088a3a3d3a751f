//! Safetensors files that carry their own SHA-256, so that one flipped bit anywhere is found.
//!
//! The metadata's `sha256` is the digest of the whole file with its own 64 digits read as zeros. Digests of
//! single tensors, which locate damage, belong to the format that uses this one.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{NewSafeTensor, SafeTensors, SafeTensorsLayout};
use crate::digest::{hex, is_digest, sha256_hex};
use crate::error::{Error, FETCH_AGAIN, Result, quoted};
use crate::output::OutputFile;

/// The metadata's key for the digest of the whole file.
const SHA256: &str = "sha256";

/// What the digest reads in place of its own digits.
const NO_DIGITS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The bytes of a file with this metadata, these tensors and its digest. `data` holds the tensors' bytes in
/// order.
///
/// # Errors
/// [`Error::Encode`] for what [`SafeTensorsLayout::new`] refuses.
pub fn seal(metadata: BTreeMap<String, String>, tensors: Vec<NewSafeTensor>, data: &[u8]) -> Result<Vec<u8>> {
    let (mut file, at) = unsealed_header(metadata, tensors)?;
    file.extend_from_slice(data);
    let digest = sha256_hex(&file);
    file[at..at + digest.len()].copy_from_slice(digest.as_bytes());
    Ok(file)
}

/// [`seal`] into a file, from the tensors' bytes in order and in pieces of any size, so that memory never
/// holds all of them. Commits the file.
///
/// # Errors
/// Those of [`seal`], and of writing.
pub fn seal_into(
    mut file: OutputFile,
    metadata: BTreeMap<String, String>,
    tensors: Vec<NewSafeTensor>,
    pieces: impl IntoIterator<Item = Vec<u8>>,
) -> Result<()> {
    let (header, at) = unsealed_header(metadata, tensors)?;
    let mut hash = Sha256::new();
    for piece in std::iter::once(header).chain(pieces) {
        hash.update(&piece);
        file.append(&piece)?;
    }
    file.write_all_at(at as u64, hex(&hash.finalize()).as_bytes())?;
    file.commit()
}

/// The header with zeros in place of the digits, and the position of the digits.
fn unsealed_header(
    mut metadata: BTreeMap<String, String>,
    tensors: Vec<NewSafeTensor>,
) -> Result<(Vec<u8>, usize)> {
    metadata.insert(SHA256.to_owned(), NO_DIGITS.to_owned());
    let header = SafeTensorsLayout::new(&metadata, tensors)?.header().to_vec();
    let at = digits_at(&header).ok_or_else(|| {
        Error::encode("header", "the place of the whole-file SHA-256 is not unique", "report this as a bug")
    })?;
    Ok((header, at))
}

/// Compares the digest that a file carries with its bytes.
///
/// # Errors
/// [`Error::Checksum`] of the whole file; [`Error::Malformed`] if it carries no digest where [`seal`] puts
/// it.
pub fn verify_seal(file: &SafeTensors) -> Result<()> {
    let (path, bytes) = (file.path(), file.bytes());
    let recorded = file.metadata().get(SHA256).map_or("", String::as_str);
    let data_start = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize + 8);
    let at = digits_at(&bytes[..data_start]).filter(|_| is_digest(recorded)).ok_or_else(|| {
        let problem = "it is not in the header where curmerge writes it";
        Error::malformed(path, SHA256, problem, FETCH_AGAIN)
    })?;
    let mut hash = Sha256::new();
    hash.update(&bytes[..at]);
    hash.update(NO_DIGITS);
    hash.update(&bytes[at + NO_DIGITS.len()..]);
    compare(path, "whole file".to_owned(), recorded, &hex(&hash.finalize()))
}

/// Compares the digest recorded for a part of a file with that of its bytes.
///
/// # Errors
/// [`Error::Checksum`] that names `place`.
pub fn verify_part(path: &Path, place: String, recorded: &str, bytes: &[u8]) -> Result<()> {
    compare(path, place, recorded, &sha256_hex(bytes))
}

fn compare(path: &Path, place: String, expected: &str, found: &str) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    // The recorded digest is a text from the file: an error shows at most the length of a digest.
    let expected = if is_digest(expected) { expected.to_owned() } else { quoted(expected) };
    Err(Error::Checksum { path: path.to_owned(), place, expected, found: found.to_owned() })
}

/// The position of the 64 digits in a header, between `"sha256":"` and `"`. Quotes within a text are escaped,
/// so our files have exactly one such position. Other files may have none or several.
fn digits_at(header: &[u8]) -> Option<usize> {
    let before = format!("\"{SHA256}\":\"");
    let mut places =
        header.windows(before.len()).enumerate().filter(|(_, window)| *window == before.as_bytes());
    let (at, _) = places.next()?;
    let start = at + before.len();
    let ends = header.get(start + NO_DIGITS.len()) == Some(&b'"');
    (places.next().is_none() && ends).then_some(start)
}
