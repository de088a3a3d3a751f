//! Conversions between containers and between types.

mod architectures;
mod from_onnx;
mod mxfp4;
mod onnx_folders;
mod onnx_genai;
mod retype;
mod rope_scaling;
mod to_gguf;
mod to_hugging_face;
mod to_onnx;
