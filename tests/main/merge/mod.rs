//! Adapters merged into models.

mod companions;
mod definition;
mod fused;
mod kill;
mod lora;
mod lora_experts;
mod lora_whole;
mod onnx;
mod shards;
