//! What the tests share.

pub mod adapter;
pub mod chat;
pub mod decoder;
pub mod environment;
#[macro_use]
pub mod families;
pub mod fixture;
pub mod folder;
pub mod gguf_key;
pub mod goldens;
pub mod hub;
pub mod limited;
pub mod next;
pub mod ollama;
pub mod onnx_llama;
pub mod onnx_weights;
pub mod onnx_writer;
#[macro_use]
pub mod program;
pub mod python;
pub mod real_exports;
pub mod refusal;
pub mod remade;
pub mod tiny;
pub mod venv;
