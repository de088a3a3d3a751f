//! stub
mod read;
mod value;
mod write;
pub use read::{Gguf, GgufTensor};
pub use value::{Array, Value};
pub use write::{GgufLayout, NewTensor};
