//! Base models.

mod onnx;
