//! GGUF files with another key, or another value of one.

use std::fs;
use std::path::Path;

use curmerge_formats::gguf::{Gguf, GgufLayout, NewTensor, Value};

const ARCHITECTURE: &str = "general.architecture";

/// Writes a GGUF file with this key of its architecture, in place of one of the same name.
pub fn set(file: &Path, key: &str, value: Value, out: &Path) {
    changed(file, out, |architecture, metadata| {
        let key = format!("{architecture}.{key}");
        match metadata.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => metadata.push((key, value)),
        }
    });
}

/// Writes a GGUF file as one of another architecture.
pub fn renamed(file: &Path, name: &str, out: &Path) {
    changed(file, out, |architecture, metadata| {
        let old = format!("{architecture}.");
        for (key, value) in metadata {
            if let Some(rest) = key.strip_prefix(&old) {
                *key = format!("{name}.{rest}");
            } else if key == ARCHITECTURE {
                *value = Value::String(name.into());
            }
        }
    });
}

fn changed(file: &Path, out: &Path, change: impl FnOnce(&str, &mut Vec<(String, Value)>)) {
    let file = Gguf::open(file).unwrap();
    let mut metadata = file.metadata().to_vec();
    change(file.get(ARCHITECTURE).and_then(Value::as_str).unwrap(), &mut metadata);
    let tensors = file.tensors().iter().map(|t| NewTensor {
        name: t.name.clone(),
        dtype: t.dtype,
        dims: t.dims.clone(),
    });
    let layout = GgufLayout::new(3, 32, &metadata, tensors.collect()).unwrap();
    let mut bytes = layout.header().to_vec();
    for (old, new) in file.tensors().iter().zip(layout.tensors()) {
        bytes.resize(new.offset as usize, 0);
        bytes.extend(file.data(old));
    }
    bytes.resize(layout.file_bytes() as usize, 0);
    fs::write(out, bytes).unwrap();
}
