//! Base models.

mod contradictions;
mod onnx;
mod quantized;
