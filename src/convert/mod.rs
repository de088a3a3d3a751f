//! Models in other types and other containers.
//!
//! [`retype`] writes a GGUF file in other types, as llama-quantize does it; [`file_type`] says which type a tensor gets.
//! [`to_hugging_face`] writes it as a folder for transformers.

pub mod file_type;
pub mod retype;
pub mod to_hugging_face;

pub use file_type::{Choice, FileType};
pub use retype::{ConvertReport, retype};
pub use to_hugging_face::{FolderOptions, to_hugging_face};
