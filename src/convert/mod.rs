//! Models in other types and other containers.
//!
//! [`retype`] writes a GGUF file in other types, as llama-quantize does it; [`file_type`] says which type a tensor gets.
//! [`to_gguf`] makes a GGUF file of a Hugging Face folder, as llama.cpp's converter does it, and [`to_hugging_face`] a
//! folder for transformers of a GGUF file. [`to_onnx`] makes an ONNX model of either.

mod config_json;
pub mod file_type;
pub(crate) mod onnx_companions;
pub mod retype;
pub mod to_gguf;
pub mod to_hugging_face;
pub mod to_onnx;

use crate::base::{Base, layer_part};

pub use file_type::{Choice, FileType};
pub use retype::{ConvertReport, retype};
pub use to_gguf::to_gguf;
pub use to_hugging_face::{FolderOptions, to_hugging_face};
pub use to_onnx::{OnnxOptions, OnnxType, to_onnx, to_onnx_folder};

/// Whether llama.cpp's converter keeps a matrix of this canonical name in F32, whatever the folder has.
fn in_f32(name: &str) -> bool {
    let part = layer_part(name).map_or(name, |(_, part)| part);
    matches!(part, "position_embd" | "ffn_gate_inp")
}

/// The matrix that the tensor of this canonical name is a part of, where the architecture has it in one.
fn whole<'n>(base: &Base, canonical: &'n str) -> Option<&'n str> {
    let (whole, _) = canonical.strip_suffix(']')?.split_once('[')?;
    (!base.parts(whole).is_empty()).then_some(whole)
}
