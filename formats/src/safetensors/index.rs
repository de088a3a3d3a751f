//! The index of a model that is split into several safetensors files.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use super::header::Unique;
use crate::error::{Error, FETCH_AGAIN, Result, one_line, quoted};
use crate::input;

/// The name of the index in a model's folder.
pub const SHARD_INDEX: &str = "model.safetensors.index.json";

/// The one member of the index that matters; `metadata` only repeats sizes.
#[derive(Deserialize)]
struct Index {
    weight_map: Unique<String>,
}

/// The longest index that is read, in bytes.
const MAX_BYTES: u64 = 1 << 27;

/// Reads a model folder's `model.safetensors.index.json`, which maps each tensor to the file that holds it.
/// `None` if the folder has no index, because the model is one file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] for JSON of another form, a tensor named twice, or a file name that is
/// more than a plain name, which could lead out of the folder. Whether the files are there and hold the
/// tensors is not checked.
pub fn shard_index(folder: &Path) -> Result<Option<BTreeMap<String, String>>> {
    let path = folder.join(SHARD_INDEX);
    let bytes = match input::read(&path, MAX_BYTES) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| Error::io(&path, "read", error))?,
    };
    let index: Index = serde_json::from_slice(&bytes)
        .map_err(|error| Error::malformed(&path, "weight_map", one_line(&error), FETCH_AGAIN))?;
    for (tensor, file) in &index.weight_map.0 {
        if !is_plain_name(file) {
            return Err(Error::malformed(
                &path,
                format!("tensor {}", quoted(tensor)),
                format!("its file {} is not a plain name", quoted(file)),
                "the index must name files of its own folder",
            ));
        }
    }
    Ok(Some(index.weight_map.0))
}

/// The name of file `number` (from 0) of `count` files of a model. A single file has no number.
pub fn shard_name(number: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    }
}

/// Whether `name` means one entry of a folder on every system, Windows with its `\` and `C:` included.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        && !name.contains(|c: char| matches!(c, '/' | '\\' | ':') || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::is_plain_name;

    #[test]
    fn only_plain_names_pass() {
        assert!(is_plain_name("model-00001-of-00002.safetensors"));
        for name in ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", "C:x", "x/", "a\0b", "./x"] {
            assert!(!is_plain_name(name), "{name:?}");
        }
    }
}
