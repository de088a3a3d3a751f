//! Adapters merged into models.

mod companions;
mod definition;
mod fused;
mod kill;
mod lora;
mod onnx;
mod shards;
