//! Base models in every container.

mod onnx;
