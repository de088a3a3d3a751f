//! A base model over any container: its configuration, and its tensors under canonical names.
//!
//! [`Base::open`] tells containers apart and gives the same for each: [`Base::config`] (dimensions and
//! options of the transformer), [`Base::tensors`] (where each tensor is stored) and [`Base::weight`] (a
//! tensor's numbers). [`Base::tokenizer`], with the chat template, is in [`crate::tokenizer`].
//!
//! Weights stay in the mapped file, in the type that they are stored in. A [`Weight`] decodes rows on demand,
//! in the canonical layout: `[out, in]`, rows in GGUF's order. Its digests ([`Weight::stored_sha256`],
//! [`Weight::values_sha256`]) bind an adapter to the base that it was trained on. So no module above this one
//! knows the container of a base.
//!
//! `gguf/`, `hugging_face/` and `onnx/` each read one container; [`folder`] reads the small files of a
//! model's folder.

mod check;
mod config;
mod finite;
pub mod folder;
mod gguf;
mod hugging_face;
mod joined_experts;
mod joined_rows;
pub(crate) mod json;
mod model;
pub(crate) mod model_card;
pub mod nbits;
mod numbers;
mod ollama;
mod onnx;
mod open;
mod opened;
pub mod quantized;
mod rope;
mod row_order;
mod targets;
mod tensor;
mod tensors;
mod unread;
mod weight;

pub use config::{
    AttentionTemperature, BlockSizes, Config, DeltaNetConfig, Experts, PerLayerInputs, StateSpaceConfig,
};
pub use model::{Base, Files};
pub use nbits::NBits;
pub use onnx::OnnxModel;
pub use open::resolve;
pub use rope::{
    LongRope, Rope, RopeScaling, UNROTATED, YARN_BETAS, long_amplitude, yarn_amplitude, yarn_of_llama_cpp,
};
pub(crate) use rope::{from_json as rope_from_json, ntk_alpha, parameters as rope_parameters};
pub use row_order::RowOrder;
pub use tensor::{BaseTensor, NBitsTensors, Slice, StoredTensor};
pub use tensors::{Place, layer_part};
pub use weight::Weight;
