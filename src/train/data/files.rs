//! Where examples are: files, folders of files, standard input.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::compressed::uncompressed_name;
use crate::{Error, Result};

/// The name of standard input.
pub(super) const STANDARD_INPUT: &str = "-";
/// The endings of data files in a folder, without that of a compression.
const ENDINGS: [&str; 6] = ["jsonl", "json", "csv", "tsv", "txt", "ndjson"];
/// The most bytes of standard input.
const MAX_INPUT: u64 = 16 << 30;

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

/// All of standard input: what was read of it once is there for whoever asks again.
pub(super) fn standard_input() -> Result<Vec<u8>> {
    static READ: OnceLock<Vec<u8>> = OnceLock::new();
    if let Some(bytes) = READ.get() {
        return Ok(bytes.clone());
    }
    let (mut bytes, failed) = (Vec::new(), |e| Error::io("standard input", "read the examples", e));
    std::io::stdin().lock().take(MAX_INPUT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(Error::request("more than 16 GB on standard input", "give a file"));
    }
    Ok(READ.get_or_init(|| bytes).clone())
}
