//! ONNX, the container of onnxruntime: a graph of operators and its weights in one protobuf message, or the weights in
//! files beside it.
//!
//! The wire format is walked by hand over the mapped file (`wire`), all of it, and not with types that prost
//! generates. prost decodes a message whole and copies every weight into memory; leaving the weights out would take a
//! walk by hand down to the initializers first and a second message put together without them. It also forgets where
//! a field stood and what it does not know, and a model whose weights are replaced must keep every other byte. Of
//! ONNX's schema a dozen messages matter here, each a `match` on field numbers, and one walker serves reading and
//! writing.
//!
//! The schema is <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>; names below are its names:
//!
//! ```text
//! ModelProto: versions, opset imports, metadata, functions, GraphProto
//! GraphProto: NodeProto..., initializers (TensorProto)..., inputs and outputs (ValueInfoProto)...
//! NodeProto:  operator, names of its inputs and outputs, AttributeProto... (numbers, texts, tensors, graphs)
//! TensorProto: dims, data_type, name, and raw_data, or float_data, int32_data, ..., or external_data
//! ```

mod adapter;
mod element;
mod external;
mod graph;
mod layout;
mod read;
mod rewrite;
mod tensor;
mod values;
mod wire;
mod write;

pub use adapter::OnnxAdapterLayout;
pub use element::ElementType;
pub use external::ExternalFile;
pub use graph::{
    Attribute, AttributeValue, Dimension, Function, Graph, Node, SparseTensor, ValueInfo, ValueType,
};
pub use read::Onnx;
pub use rewrite::{Change, NewFile, Piece, RewriteOptions, rewrite};
pub use tensor::{OnnxTensor, Storage};
pub use write::{NewGraph, NewOnnx, NewOnnxTensor, OnnxLayout, OnnxPlace};

/// Bytes that a protobuf message may have: readers count them in a signed 32-bit integer.
pub const MAX_MODEL: u64 = i32::MAX as u64;
