//! What `curmerge build` writes: the ending of the output's name says it.

use std::path::{Path, PathBuf};

use curmerge_formats::output::{OutputFile, OutputFolder, Reservation};

use super::method::Trainee;
use crate::base::Base;
use crate::export::{Format, export, no_cur, refuse_unloaded};
use crate::lora::peft;
use crate::{Error, Result};

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// curmerge's adapter.
    Adapter,
    /// A LoRA as a GGUF file, for llama.cpp.
    Gguf,
    /// A LoRA as a folder, for PEFT.
    Folder,
}

/// Where the result of a run goes.
#[derive(Clone, Debug)]
pub(super) struct Output {
    path: PathBuf,
    form: Form,
    /// Whether to replace an existing folder.
    force: bool,
}

impl Output {
    /// A name without an ending, one that ends in `/`, and an existing folder mean a folder; `.gguf` means a
    /// GGUF file; any other ending curmerge's adapter.
    pub(super) fn new(path: &Path, force: bool) -> Self {
        let form = match Format::of_output(path) {
            Format::Peft => Form::Folder,
            Format::Gguf => Form::Gguf,
            Format::Curmerge | Format::OnnxAdapter | Format::Ollama => Form::Adapter,
        };
        // Without a slash at the end, so that names beside it can be made.
        let path = path.components().collect();
        Self { path, form, force }
    }

    /// The file or folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file that holds the matrices.
    pub(super) fn file(&self) -> PathBuf {
        match self.form {
            Form::Folder => self.path.join(peft::WEIGHTS),
            Form::Adapter | Form::Gguf => self.path.clone(),
        }
    }

    /// Reserves the output for this run. Refuses one that cannot be written, that another program writes, or
    /// that is no form of what is trained.
    pub(super) fn reserve(&self, lora: bool, inputs: &[&Path]) -> Result<Reservation> {
        match self.form {
            Form::Folder => Ok(OutputFolder::create(&self.path, inputs, self.force)?.reserve()),
            Form::Adapter if lora => Err(no_cur(&self.path)),
            Form::Adapter | Form::Gguf => Ok(OutputFile::create(&self.path, inputs)?.reserve()),
        }
    }

    /// Refuses a form that cannot keep the Fisher information.
    pub(super) fn check_keeps_fisher(&self) -> Result<()> {
        match self.form {
            Form::Adapter => Ok(()),
            Form::Folder | Form::Gguf => {
                let problem = "--keep-fisher is for curmerge's own adapter";
                Err(Error::input(&self.path, "output", problem, "name a .safetensors file, or leave it out"))
            }
        }
    }

    /// Refuses a matrix that the program of the output's form loads no LoRA for.
    pub(super) fn check_targets(&self, base: &Base, trainee: &Trainee) -> Result<()> {
        match (self.form, trainee) {
            (Form::Adapter, Trainee::Cur(_)) => Ok(()),
            (Form::Gguf, _) => refuse_unloaded(base, trainee.trained(), Format::Gguf),
            (Form::Adapter | Form::Folder, _) => refuse_unloaded(base, trainee.trained(), Format::Peft),
        }
    }

    /// Writes what was trained.
    pub(super) fn write(&self, base: &Base, trainee: &Trainee, inputs: &[&Path]) -> Result<()> {
        let format = match (self.form, trainee) {
            (Form::Adapter, Trainee::Cur(adapter)) => return Ok(adapter.write(&self.path, inputs)?),
            (Form::Gguf, _) => Format::Gguf,
            (Form::Adapter | Form::Folder, _) => Format::Peft,
        };
        export(base, trainee.trained(), format, &self.path, inputs, self.force)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_decides_the_form() {
        let existing = std::env::temp_dir();
        for (name, form) in [
            ("a.safetensors", Form::Adapter),
            ("a.st", Form::Adapter),
            ("x/a.GGUF", Form::Gguf),
            ("a", Form::Folder),
            ("v1.5/", Form::Folder),
            (existing.to_str().unwrap(), Form::Folder),
        ] {
            assert_eq!(Output::new(Path::new(name), false).form, form, "{name}");
        }
        assert_eq!(Output::new(Path::new("x/v1.5/"), false).path(), Path::new("x/v1.5"));
    }
}
