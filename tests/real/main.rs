//! Real models, and programs that are too large to install for a test: torch, transformers, PEFT, onnxruntime-genai.
//! Not run by default.

#[allow(dead_code)] // Each test binary uses a part.
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod onnx_conversions;
mod onnx_exports;
mod onnx_written;
mod smollm2;
mod vocabularies;
