//! Numbers of a block: tensors of one value in Hugging Face folders, and arrays in GGUF's metadata.

use curmerge_formats::gguf::{Array, Value};

use super::model::{Base, Files};
use super::tensors::layer_part;
use crate::{Error, Result};

impl Base {
    /// The numbers that a GGUF file has in its metadata in place of tensors, by their canonical names. Those that cannot be
    /// read are left out.
    pub fn numbers_of_metadata(&self) -> Vec<(String, f32)> {
        let lines = self.architecture.names().filter(|line| line.in_metadata);
        let names = lines.flat_map(|line| {
            (0..self.config.layers).map(|layer| line.canonical.replacen("{}", &layer.to_string(), 1))
        });
        match self.files {
            Files::Gguf(_) => {
                names.filter_map(|name| Some((name.clone(), self.number(&name).ok()?))).collect()
            }
            Files::HuggingFace(_) | Files::Onnx(_) => Vec::new(),
        }
    }

    /// The number of this canonical name, for which GGUF has [a key of its
    /// metadata](crate::arch::TensorNames::metadata_key).
    ///
    /// # Errors
    /// It is missing or not finite; an array that has no number for every block; a tensor of several values;
    /// those of [`Self::weight`].
    pub fn number(&self, name: &str) -> Result<f32> {
        let number = match &self.files {
            Files::Gguf(model) => {
                let (layer, key) = layer_part(name).unwrap_or((usize::MAX, name));
                let found = match model.first().get(key) {
                    Some(Value::Array(Array::F32(all))) if all.len() == self.config.layers => {
                        all.get(layer).copied()
                    }
                    // llama.cpp takes one number for that of all blocks.
                    Some(Value::F32(one)) => Some(*one),
                    _ => None,
                };
                found.filter(|number| number.is_finite()).ok_or_else(|| {
                    let problem = "not a finite F32 for every block";
                    Error::input(&self.path, key, problem, "the file is damaged; download it again")
                })?
            }
            Files::HuggingFace(_) | Files::Onnx(_) => match self.weight(name)?.vector()[..] {
                [number] if number.is_finite() => number,
                _ => {
                    return Err(self.error(name, "not one finite number", "download the folder again"));
                }
            },
        };
        Ok(number)
    }
}
