//! Detects what a path holds from its content, never from its extension.

use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::input;
use crate::output::finish_interrupted;

/// The kinds of model container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Container {
    /// A GGUF file: it begins with `GGUF`.
    Gguf,
    /// A safetensors file: after the header's length comes `{`.
    SafeTensors,
    /// A folder with a `config.json`.
    HfFolder,
    /// An ONNX file, or what looks like the start of one: protobuf has no magic number.
    Onnx,
    /// None of these.
    Unknown,
}

/// Detects what the file or folder `path` holds from its first bytes. The answer says which reader to try;
/// only that reader checks the file. If a killed program left an output there half renamed, this finishes it.
///
/// # Errors
/// [`Error::Io`] if there is nothing at `path` or it cannot be read.
pub fn detect(path: &Path) -> Result<Container> {
    finish_interrupted(path)?;
    let kind = std::fs::metadata(path).map_err(|error| Error::io(path, "open", error))?;
    if kind.is_dir() {
        let config = path.join("config.json").is_file();
        return Ok(if config { Container::HfFolder } else { Container::Unknown });
    }
    // Opening a pipe or device might block for ever.
    if !kind.is_file() {
        return Ok(Container::Unknown);
    }
    let mut start = Vec::new();
    input::open(path)
        .and_then(|file| file.take(64).read_to_end(&mut start))
        .map_err(|error| Error::io(path, "read", error))?;
    Ok(detect_bytes(&start, kind.len()))
}

/// The same from a file's first bytes (64 are enough) and its length.
fn detect_bytes(start: &[u8], length: u64) -> Container {
    if start.starts_with(b"GGUF") {
        return Container::Gguf;
    }
    if let Some((header, rest)) = start.split_first_chunk::<8>()
        && u64::from_le_bytes(*header).checked_add(8).is_some_and(|end| end <= length)
        && rest.first() == Some(&b'{')
    {
        return Container::SafeTensors;
    }
    if is_onnx_start(start) { Container::Onnx } else { Container::Unknown }
}

/// Whether a protobuf message begins as a `ModelProto` does: first `ir_version` (field 1, a small number),
/// then one of the fields 2 to 8 or 14, 20 or 25 that may follow (onnx.proto).
fn is_onnx_start(start: &[u8]) -> bool {
    let [0x08, 1..=99, key, rest @ ..] = start else { return false };
    let (field, wire) = match (key, rest) {
        (key, _) if key & 0x80 == 0 => (key >> 3, key & 7),
        (key, [high @ 1, ..]) => ((key & 0x7f) >> 3 | high << 4, key & 7),
        _ => return false,
    };
    match field {
        5 => wire == 0,
        2 | 3 | 4 | 6 | 7 | 8 | 14 | 20 | 25 => wire == 2,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_are_enough() {
        assert_eq!(detect_bytes(b"GGUF\x03\0\0\0", 8), Container::Gguf);
        assert_eq!(detect_bytes(b"\x02\0\0\0\0\0\0\0{}", 10), Container::SafeTensors);
        assert_eq!(detect_bytes(b"\x0b\0\0\0\0\0\0\0{}", 10), Container::Unknown);
        // As `onnx.helper.make_model` writes them: a graph, or first a producer's name; functions are field
        // 25.
        assert_eq!(detect_bytes(b"\x08\x0a:\x05", 100), Container::Onnx);
        assert_eq!(detect_bytes(b"\x08\x07\x12\x07pytorch", 100), Container::Onnx);
        assert_eq!(detect_bytes(b"\x08\x0a\xca\x01\x05", 100), Container::Onnx);
        for other in [&b""[..], b"{\"a\": 1}", b"PK\x03\x04", b"\x7fELF", b"\x08", b"\x08\x0a\x0a"] {
            assert_eq!(detect_bytes(other, 100), Container::Unknown, "{other:?}");
        }
    }

    #[test]
    fn folders_are_detected_by_their_config() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(detect(folder.path()).unwrap(), Container::Unknown);
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        assert_eq!(detect(folder.path()).unwrap(), Container::HfFolder);
        assert!(detect(&folder.path().join("missing")).is_err());
    }
}
