//! Base models.

mod contradictions;
mod numbers;
mod onnx;
mod quantized;
mod sizes_by_block;
