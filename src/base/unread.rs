//! Weights of a Hugging Face folder in forms that are not read: named for what they are, since such a folder
//! is whole and only needs another form.

use std::path::Path;

use super::folder::{CONFIG, Folder, SAFETENSORS_INDEX};
use crate::{Error, Result};

const USE_THE_SOURCE: &str = "use the model that it was made from, or a GGUF file of it";

/// Refuses a folder whose weights are quantized by MLX, or pickled. [`super::quantized`] tells of other
/// quantization.
pub(super) fn refuse(folder: Folder<'_>) -> Result<()> {
    let config = folder.object(CONFIG)?.unwrap_or_default();
    // mlx-lm writes this key, and a copy under another.
    if config.get("quantization").and_then(|settings| settings.get("group_size")).is_some() {
        let problem = "the weights are quantized by MLX, which is not read";
        return Err(Error::input(folder.join(CONFIG), "quantization", problem, USE_THE_SOURCE));
    }
    match pickled(folder.path()) {
        Some(name) if !folder.has(SAFETENSORS_INDEX) && !folder.has("model.safetensors") => {
            let problem = "is a pickled .bin file, which can run any code and is not read";
            let help = "load the model with transformers and save it again (save_pretrained), which writes safetensors";
            Err(Error::file(folder.join(name), problem, help))
        }
        _ => Ok(()),
    }
}

/// The name of a file of pickled weights in the folder.
fn pickled(folder: &Path) -> Option<String> {
    let names =
        std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with("pytorch_model") && name.ends_with(".bin")).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_named_with_the_mend() {
        let own = tempfile::tempdir().unwrap();
        let with = |config: &str| {
            std::fs::write(own.path().join(CONFIG), config).unwrap();
            refuse(Folder::new(own.path())).map_err(|error| error.to_string())
        };
        let error = with(r#"{"quantization": {"group_size": 32, "bits": 4}}"#).unwrap_err();
        assert!(error.contains("config.json: quantization: the weights are quantized by MLX"), "{error}");
        assert!(error.contains("use the model that it was made from"), "{error}");
        assert_eq!(with(r#"{"quantization_config": null}"#), Ok(()));
        for name in
            ["pytorch_model-00002-of-00002.bin", "pytorch_model-00001-of-00002.bin", "training_args.bin"]
        {
            std::fs::write(own.path().join(name), "").unwrap();
        }
        let error = with("{}").unwrap_err();
        assert!(
            error.contains("00001-of-00002.bin: is a pickled .bin file") && error.contains("save_pretrained"),
            "{error}"
        );
        std::fs::write(own.path().join("model.safetensors"), "").unwrap();
        assert_eq!(with("{}"), Ok(()));
    }
}
