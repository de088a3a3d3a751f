//! Models in other types and other containers.
//!
//! [`retype`] writes a GGUF file in other types, as llama-quantize does it; [`file_type`] says which type a tensor gets.

pub mod file_type;
pub mod retype;

pub use file_type::{Choice, FileType};
pub use retype::{ConvertReport, retype};
