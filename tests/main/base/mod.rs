//! Base models.

mod contradictions;
mod onnx;
