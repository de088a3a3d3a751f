//! The file that `curmerge init` writes.

use std::path::{Component, Path, PathBuf};

use super::data::Data;
use super::fit::{self, Fit};
use super::task::Task;
use super::{described, terminal};
use crate::base::{Base, Files};
use crate::commands::recipe::{has_scheme, quoted};
use crate::{Error, Result};

/// The answers.
pub(super) struct Recipe<'a> {
    pub(super) base_path: &'a Path,
    pub(super) base: &'a Base,
    pub(super) data_paths: &'a [PathBuf],
    pub(super) data: &'a Data,
    pub(super) task: Task,
    pub(super) memory: u64,
    pub(super) fit: &'a Fit,
    pub(super) adapter: &'a Path,
}

impl Recipe<'_> {
    /// The file's text, for a file of this name.
    ///
    /// # Errors
    /// A path that is not UTF-8; a current folder that is gone.
    pub(super) fn text(&self, file: &Path) -> Result<String> {
        let Self { base, data, task, fit, .. } = self;
        self.fit.warn(self.memory);
        let path = |path: &Path| beside(path, file).and_then(|path| in_quotes(&path));
        let adapter = path(self.adapter)?;
        let paths = self.data_paths.iter().map(|own| path(own)).collect::<Result<Vec<_>>>()?;
        let merged = path(&self.merged())?;
        let mut text = format!(
            "# A recipe for curmerge. Paths are relative to this file.\n#\n#     curmerge build --config {name}\n#     \
             curmerge merge --config {name}\n#\n# Every option of a command may stand here by its long name: see curmerge \
             build --help, and for\n# all options in effect curmerge build --config {name} --print-config.\n\n",
            name = file.file_name().unwrap_or_default().to_string_lossy()
        );
        let comment = |line: &str| format!("# {}\n", terminal::plain(line));
        text += &comment(&described(base));
        text += &format!("base = {}\n\n[build]\n", path(self.base_path)?);
        text += &comment(&data.described());
        text += &format!("data = [{}]\n", paths.join(", "));
        text += "# Without examples of your own to measure on, one in 20 is held out.\n# valid = \"valid.jsonl\"\n";
        text += &format!("output = {adapter}\n");
        if data.max_seq_len != 1024 {
            text += &format!("max-seq-len = {}\n", data.max_seq_len);
        }
        text += &format!("\n# The task: {}. {}\nepochs = {}\n", task.name(), task.note(), task.epochs());
        text += &format!("\n# Memory: {}.\n", fit.text(self.memory));
        text += &format!(
            "targets = {}\nrank = {}\nmemory = {}\n",
            quoted(&fit.targets),
            fit.rank,
            quoted(&fit::size(fit.memory))
        );
        if !fit.anchor {
            text +=
                "# Too little memory for texts of what the model knows: the change is scaled back instead.\n";
            text += "anchor = \"none\"\n";
        }
        text += "\n# To learn more, lower lambda (110); to forget less, raise it, or limit what may be forgotten:\n";
        text += "# max-forgetting = 0.003\n";
        text += &format!("\n[run]\nadapter = [{adapter}]\n");
        text += &format!("\n# [eval]\n# adapter = [{adapter}]\n# data = \"test.jsonl\"\n");
        text += &task
            .evaluation()
            .lines()
            .map(|line| format!("# {}\n", line.trim_start_matches("# ")))
            .collect::<String>();
        text += &format!("\n[merge]\nadapter = [{adapter}]\noutput = {merged}\n");
        Ok(text)
    }

    /// The merged model: of the base's own kind, beside the adapter.
    fn merged(&self) -> PathBuf {
        let stem = self.adapter.file_stem().unwrap_or_default().to_string_lossy();
        let ending = match self.base.files() {
            Files::Gguf(_) => ".gguf",
            Files::Onnx(_) => ".onnx",
            Files::HuggingFace(_) => "",
        };
        self.adapter.with_file_name(format!("{stem}-merged{ending}"))
    }
}

fn in_quotes(path: &Path) -> Result<String> {
    let text = path.to_str();
    let text = text.ok_or_else(|| Error::file(path, "the name is not UTF-8", "rename it: TOML is UTF-8"))?;
    Ok(quoted(text))
}

/// A path, seen from the folder of `file`. What is no path in the file system stays as it is.
fn beside(path: &Path, file: &Path) -> Result<PathBuf> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let elsewhere = path.to_str().is_some_and(has_scheme) && !path.exists();
    if elsewhere || path.is_absolute() || folder.as_os_str().is_empty() {
        return Ok(path.to_owned());
    }
    let absolute = |path: &Path| std::path::absolute(path).map_err(|e| Error::io(path, "find", e));
    let (path, folder) = (absolute(path)?, absolute(folder)?);
    // After `..` the folder's own name would have to be known.
    if path.components().chain(folder.components()).any(|part| part == Component::ParentDir) {
        return Ok(path);
    }
    let shared = path.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(shared).map(|_| Component::ParentDir);
    Ok(up.chain(path.components().skip(shared)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_file() {
        for (path, file, seen) in [
            ("m.gguf", "run.toml", "m.gguf"),
            ("m.gguf", "exp/run.toml", "../m.gguf"),
            ("exp/a/m.gguf", "exp/run.toml", "a/m.gguf"),
            ("ollama:smollm2:135m", "exp/run.toml", "ollama:smollm2:135m"),
            ("/m.gguf", "exp/run.toml", "/m.gguf"),
        ] {
            assert_eq!(beside(Path::new(path), Path::new(file)).unwrap(), Path::new(seen), "{path}");
        }
    }
}
