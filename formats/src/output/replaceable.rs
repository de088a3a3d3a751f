//! Which folders may be replaced: outputs of this program, and folders like them. To replace one removes all
//! that it holds, so a slip of the hand must not name a home folder.

use std::fs;
use std::path::Path;

use super::target::Target;
use crate::error::{Error, Result};

/// Refuses to replace an existing folder that is no output of this program.
pub(super) fn check(target: &Target) -> Result<()> {
    let refuse = |what| Err(Error::WrongKind { path: target.shown.clone(), what });
    let holds = |inner: Option<std::path::PathBuf>| {
        inner.and_then(|inner| inner.canonicalize().ok()).is_some_and(|inner| inner.starts_with(&target.path))
    };
    if holds(std::env::home_dir()) {
        return refuse("or holds your home folder, which is not replaced");
    }
    if holds(std::env::current_dir().ok()) {
        return refuse("or holds the current folder, which is not replaced");
    }
    if is_output(&target.path).map_err(|error| Error::io(&target.shown, "list the folder", error))? {
        return Ok(());
    }
    refuse("a folder that this program did not write, which is not replaced: remove it yourself")
}

/// Whether a folder is empty or holds at its top what every output has: weights, or what names them.
fn is_output(folder: &Path) -> std::io::Result<bool> {
    let stem = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (mut is_empty, mut has_weights) = (true, false);
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        is_empty = false;
        if name == ".git" {
            return Ok(false);
        }
        let ending = Path::new(&name).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        has_weights |= match ending {
            // Splits are named after their folder.
            "gguf" => name.starts_with(&stem),
            "safetensors" | "onnx" => true,
            _ => name == "Modelfile" || name == "onnx",
        };
    }
    Ok(is_empty || has_weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_outputs_are_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("out");
        for (names, replaced) in [
            (&[][..], true),
            (&["config.json", "model.safetensors"][..], true),
            (&["adapter_config.json", "adapter_model.safetensors"][..], true),
            (&["out-00001-of-00002.gguf"][..], true),
            (&["Modelfile", "model.gguf"][..], true),
            (&["model.onnx", "model.onnx_data"][..], true),
            (&["thesis.tex"][..], false),
            (&["mistral.gguf", "gemma.gguf"][..], false),
            (&["model.safetensors", ".git"][..], false),
        ] {
            fs::create_dir(&folder).unwrap();
            names.iter().for_each(|name| fs::write(folder.join(name), "").unwrap());
            let checked = check(&Target::find(&folder).unwrap());
            assert_eq!(checked.is_ok(), replaced, "{names:?}: {checked:?}");
            fs::remove_dir_all(&folder).unwrap();
        }
        let here = check(&Target::find(Path::new(".")).unwrap()).unwrap_err().to_string();
        assert!(here.contains("current folder"), "{here}");
        if let Some(home) = std::env::home_dir().filter(|home| home.is_dir() && home.parent().is_some()) {
            let refused = check(&Target::find(&home).unwrap()).unwrap_err().to_string();
            assert!(refused.contains("home folder"), "{refused}");
        }
    }
}
