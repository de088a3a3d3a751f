//! Tests of the containers and number formats through their public interface.

mod adapter;
mod gguf;
mod gguf_second_reader;
mod gguf_split;
mod imatrix;
mod onnx;
mod onnx_rewrite;
mod onnx_write;
mod output;
mod quant_goldens;
mod safetensors;
mod whole_file;
