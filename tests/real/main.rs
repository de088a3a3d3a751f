//! Tests with real models, and with programs that are too large to install for a test: torch, transformers,
//! PEFT, onnxruntime-genai, Ollama, Chromium.
//!
//! A default run neither compiles nor runs them, and tests/main prints a warning that it does not. To run
//! them all, set the variables of [`support::environment::VARIABLES`] and run
//!
//! ```text
//! cargo test --release --test real -- --ignored --nocapture --test-threads=1
//! ```

#![allow(clippy::print_stdout, reason = "tests print the figures they measure")]

#[allow(dead_code)] // Each test binary uses a part.
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod architectures;
mod chat_templates;
mod loss_masks;
mod ollama;
mod onnx_conversions;
mod onnx_exports;
mod onnx_written;
mod pages;
mod peft;
mod smollm2;
mod vocabularies;
