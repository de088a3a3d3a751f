//! Adapters exported for other programs.

mod lora;
mod ollama;
mod peft;
