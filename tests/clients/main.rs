//! Tests of models and adapters in other programs: llama.cpp, gguf, safetensors, onnx and onnxruntime. They
//! are installed from PyPI into a virtual environment that the first run makes under target/.

#![allow(clippy::print_stdout, reason = "tests print the figures they measure")]

#[allow(dead_code)] // Each test binary uses a part.
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod architectures;
mod demo;
mod hub;
mod onnx_decoders;
mod onnx_genai;
mod onnx_rewritten;
mod sampler;
mod terminal;
mod to_onnx;
