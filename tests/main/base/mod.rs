//! Base models.

mod contradictions;
mod onnx;
mod quantized;
mod sizes_by_block;
