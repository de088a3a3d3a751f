//! Conversion of models into other types and other containers.
//!
//! [`mod@retype`] writes a GGUF file in other types, like llama-quantize; [`file_type`] chooses the type of
//! each tensor. [`mod@to_gguf`] makes a GGUF file from a Hugging Face folder, like llama.cpp's converter,
//! [`mod@to_hugging_face`] a folder for transformers from a GGUF file, and [`mod@to_onnx`] an ONNX model from
//! either.

pub(crate) mod config_json;
pub mod file_type;
pub(crate) mod onnx_companions;
pub mod retype;
pub mod to_gguf;
pub mod to_hugging_face;
pub mod to_onnx;

pub use file_type::{Choice, FileType};
pub use retype::{ConvertReport, retype};
pub use to_gguf::to_gguf;
pub use to_hugging_face::{FolderOptions, to_hugging_face};
pub use to_onnx::{OnnxOptions, OnnxType, to_onnx, to_onnx_folder};

use crate::base::Config;

/// What a user should know of a model whose texts beyond a length have frequencies of their own in transformers.
fn of_longer_texts(config: &Config) -> Option<String> {
    let longest = config.rope.as_ref()?.longest?;
    Some(format!(
        "texts of more than {longest} tokens get other logits in transformers, which changes rotary frequencies with the length"
    ))
}
