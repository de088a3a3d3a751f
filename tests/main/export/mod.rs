//! Exports of adapters.

mod lora;
mod ollama;
