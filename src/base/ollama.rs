//! `ollama:NAME[:TAG]`: the GGUF blob of a model in Ollama's local store.
//!
//! The store keeps a JSON manifest a tag under `manifests/registry.ollama.ai/library/NAME/TAG`, whose layer of media
//! type `application/vnd.ollama.image.model` names the file `blobs/sha256-...`.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

const MODEL_LAYER: &str = "application/vnd.ollama.image.model";

/// The path itself, or the blob that `ollama:NAME[:TAG]` stands for.
pub(super) fn resolve(path: &Path) -> Result<PathBuf> {
    match path.to_str().and_then(|p| p.strip_prefix("ollama:")) {
        Some(name) => find(&store()?, name),
        None => Ok(path.into()),
    }
}

fn store() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("OLLAMA_MODELS") {
        return Ok(folder.into());
    }
    let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"));
    home.map(|h| Path::new(&h).join(".ollama/models"))
        .ok_or_else(|| Error::request("no home folder to look for Ollama's models in", "set OLLAMA_MODELS"))
}

fn find(store: &Path, name: &str) -> Result<PathBuf> {
    let (model, tag) = name.split_once(':').unwrap_or((name, "latest"));
    let plain = |part: &str| {
        !part.is_empty() && part.split('/').all(|p| !matches!(p, "" | "." | "..")) && !part.contains('\\')
    };
    if !plain(model) || !plain(tag) || tag.contains('/') {
        return Err(Error::request(
            format!("'ollama:{}' is not a model name", name.escape_debug()),
            "write ollama:NAME or ollama:NAME:TAG, as `ollama list` shows it",
        ));
    }
    let registry = store.join("manifests/registry.ollama.ai");
    let owner = if model.contains('/') { registry } else { registry.join("library") };
    let manifest = owner.join(model).join(tag);
    let text =
        std::fs::read_to_string(&manifest).map_err(|e| Error::io(&manifest, "read Ollama's manifest", e))?;
    let bad = |problem: &str| Error::input(&manifest, "manifest", problem, "run `ollama pull` again");
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|_| bad("not JSON"))?;
    let layers = json["layers"].as_array().ok_or_else(|| bad("has no layers"))?;
    let digest = layers
        .iter()
        .find(|l| l["mediaType"] == MODEL_LAYER)
        .and_then(|l| l["digest"].as_str())
        .and_then(|d| d.strip_prefix("sha256:"))
        .filter(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit()))
        .ok_or_else(|| bad("names no model blob"))?;
    Ok(store.join("blobs").join(format!("sha256-{digest}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_leads_to_its_blob() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join("manifests/registry.ollama.ai/library/tiny");
        std::fs::create_dir_all(&folder).unwrap();
        let digest = "0".repeat(64);
        let manifest = format!(
            r#"{{"layers":[{{"mediaType":"application/vnd.ollama.image.template","digest":"sha256:1"}},
                {{"mediaType":"{MODEL_LAYER}","digest":"sha256:{digest}"}}]}}"#
        );
        std::fs::write(folder.join("latest"), manifest).unwrap();
        let blob = find(store.path(), "tiny").unwrap();
        assert_eq!(blob, store.path().join(format!("blobs/sha256-{digest}")));
    }

    #[test]
    fn a_name_cannot_leave_the_store() {
        for name in ["../x", "a/../../b", "a:../b", "", "a:", "a:b/c"] {
            assert!(
                find(Path::new("/nonexistent"), name).unwrap_err().to_string().contains("not a model name")
            );
        }
    }
}
