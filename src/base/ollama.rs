//! `ollama:NAME[:TAG]`: the GGUF blob of a model in Ollama's local store.
//!
//! The store has a JSON manifest per tag, at `manifests/registry.ollama.ai/library/NAME/TAG`. A name may
//! include another registry and owner (`hf.co/OWNER/NAME`). The manifest's layer of media type
//! `application/vnd.ollama.image.model` names the file `blobs/sha256-...`.

use std::path::{Path, PathBuf};

use curmerge_formats::input;

use crate::{Error, Result};

/// The longest manifest that is read, in bytes.
const MAX_MANIFEST: u64 = 4 << 20;

const MODEL_LAYER: &str = "application/vnd.ollama.image.model";

/// The store of an Ollama that runs as a Linux service.
const SERVICE_STORE: &str = "/usr/share/ollama/.ollama/models";

/// The blob that `ollama:NAME[:TAG]` names, or any other path unchanged.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    match path.to_str().and_then(|p| p.strip_prefix("ollama:")) {
        Some(name) => find(&stores(), name),
        None => Ok(path.into()),
    }
}

/// The stores to search, in order.
fn stores() -> Vec<PathBuf> {
    if let Some(folder) = std::env::var_os("OLLAMA_MODELS") {
        return vec![folder.into()];
    }
    let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"));
    let own = home.map(|h| Path::new(&h).join(".ollama/models"));
    own.into_iter().chain([SERVICE_STORE.into()]).collect()
}

fn find(stores: &[PathBuf], name: &str) -> Result<PathBuf> {
    // A colon before a slash starts a registry's port, not a tag.
    let tagged = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
    let (model, tag) = tagged.unwrap_or((name, "latest"));
    let plain = |part: &str| {
        !part.is_empty() && part.split('/').all(|p| !matches!(p, "" | "." | "..")) && !part.contains('\\')
    };
    if !plain(model) || !plain(tag) {
        return Err(Error::request(
            format!("'ollama:{}' is not a model name", name.escape_debug()),
            "write ollama:NAME or ollama:NAME:TAG, as `ollama list` shows it",
        ));
    }
    let registry = match model.split('/').count() {
        1 => "manifests/registry.ollama.ai/library",
        2 => "manifests/registry.ollama.ai",
        _ => "manifests",
    };
    let manifest_in = |store: &PathBuf| store.join(registry).join(model).join(tag);
    let store = stores.iter().find(|store| manifest_in(store).exists()).or(stores.first());
    let Some(store) = store else { return Err(Error::request("no Ollama store", "set OLLAMA_MODELS")) };
    let manifest = manifest_in(store);
    let text = input::read(&manifest, MAX_MANIFEST)
        .map_err(|e| Error::io(&manifest, "read Ollama's manifest", e))?;
    let bad = |problem: &str| Error::input(&manifest, "manifest", problem, "run `ollama pull` again");
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(|_| bad("not JSON"))?;
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
        let digest = "0".repeat(64);
        let manifest = format!(
            r#"{{"layers":[{{"mediaType":"application/vnd.ollama.image.template","digest":"sha256:1"}},
                {{"mediaType":"{MODEL_LAYER}","digest":"sha256:{digest}"}}]}}"#
        );
        let places = [
            ("tiny", "registry.ollama.ai/library/tiny/latest"),
            ("tiny:1b", "registry.ollama.ai/library/tiny/1b"),
            ("someone/tiny", "registry.ollama.ai/someone/tiny/latest"),
            ("hf.co/someone/tiny:Q8_0", "hf.co/someone/tiny/Q8_0"),
            ("localhost:5000/someone/tiny", "localhost:5000/someone/tiny/latest"),
        ];
        let stores = [store.path().join("empty"), store.path().into()];
        for (name, place) in places {
            let file = store.path().join("manifests").join(place);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, &manifest).unwrap();
            let blob = find(&stores, name).unwrap();
            assert_eq!(blob, store.path().join(format!("blobs/sha256-{digest}")), "{name}");
        }
    }

    #[test]
    fn a_name_cannot_leave_the_store() {
        for name in ["../x", "a/../../b", "a/../b:x", "", "a:", "a:.."] {
            let error = find(&["/nonexistent".into()], name).unwrap_err().to_string();
            assert!(error.contains("not a model name"), "{name}: {error}");
        }
    }
}
