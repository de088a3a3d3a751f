//! Where examples are: files, folders of files, standard input.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use curmerge_formats::input;

use crate::compressed::{self, uncompressed_name};
use crate::{Error, Result};

/// The name of standard input.
pub(super) const STANDARD_INPUT: &str = "-";
/// The endings of data files in a folder, without that of a compression.
const ENDINGS: [&str; 7] = ["jsonl", "json", "csv", "tsv", "txt", "ndjson", "parquet"];
/// The first bytes of a Parquet file.
const PARQUET: &[u8] = b"PAR1";
/// The bytes of standard input that are held in memory. More go into a temporary file.
const MAX_START: u64 = 64 << 20;
const READ: &str = "read the examples";

/// The files of these paths, in order: of a folder, those whose ending is that of data, sorted by name.
///
/// # Errors
/// A folder that cannot be read or has no such file; standard input named twice.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    if paths.iter().filter(|path| *path == Path::new(STANDARD_INPUT)).count() > 1 {
        return Err(Error::request("standard input is named twice", "name it once"));
    }
    let mut all = Vec::new();
    for path in paths {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let failed = |e| Error::io(path, "list", e);
        let mut own = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            if file.is_file() && is_data(&file) {
                own.push(file);
            }
        }
        if own.is_empty() {
            let help = format!("name its files, or give them one of the endings {}", ENDINGS.join(", "));
            return Err(Error::file(path, "is a folder without data files", help));
        }
        own.sort();
        all.append(&mut own);
    }
    Ok(all)
}

/// Whether a file has the ending of data, and is not hidden.
pub fn is_data(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let name = uncompressed_name(path);
    let ending = name.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    !hidden && ENDINGS.contains(&ending.as_str())
}

/// A data file for reading, decompressed; `-` is standard input, which may be opened again.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>> {
    if path == Path::new(STANDARD_INPUT) {
        return standard_input();
    }
    compressed::open(path).map_err(|source| Error::io(path, READ, source))
}

/// Whether a data file is a Parquet file.
///
/// # Errors
/// A file that cannot be read; a Parquet file on standard input, which is read in no order.
pub(super) fn is_parquet(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    if path == Path::new(STANDARD_INPUT) {
        if kept_input()?.0.start.starts_with(PARQUET) {
            return Err(Error::request(
                "standard input is a Parquet file",
                "save it in a file, and name that",
            ));
        }
        return Ok(false);
    }
    let failed = |source| Error::io(path, READ, source);
    let file = input::open(path).map_err(failed)?;
    file.take(PARQUET.len() as u64).read_to_end(&mut start).map_err(failed)?;
    Ok(start == PARQUET)
}

/// The bytes that a data file takes where it is.
pub(super) fn stored_bytes(path: &Path) -> Result<u64> {
    if path == Path::new(STANDARD_INPUT) {
        return Ok(kept_input()?.1);
    }
    std::fs::metadata(path).map(|file| file.len()).map_err(|source| Error::io(path, READ, source))
}

/// What was read of standard input once: its first bytes, and the rest in an unnamed file.
struct Input {
    start: Vec<u8>,
    rest: File,
}

fn standard_input() -> Result<Box<dyn Read>> {
    let input = kept_input()?.0;
    let failed = |source| Error::io("standard input", READ, source);
    let mut rest = input.rest.try_clone().map_err(failed)?;
    rest.rewind().map_err(failed)?;
    Ok(Box::new(input.start.as_slice().chain(rest)))
}

fn kept_input() -> Result<(&'static Input, u64)> {
    static READ_ONCE: OnceLock<(Input, u64)> = OnceLock::new();
    if let Some((input, bytes)) = READ_ONCE.get() {
        return Ok((input, *bytes));
    }
    let failed = |source| Error::io("standard input", READ, source);
    let (mut start, mut given) = (Vec::new(), std::io::stdin().lock());
    (&mut given).take(MAX_START).read_to_end(&mut start).map_err(failed)?;
    let mut rest = tempfile::tempfile().map_err(failed)?;
    let more = std::io::copy(&mut given, &mut rest).map_err(failed)?;
    let bytes = start.len() as u64 + more;
    let (input, bytes) = READ_ONCE.get_or_init(|| (Input { start, rest }, bytes));
    Ok((input, *bytes))
}
