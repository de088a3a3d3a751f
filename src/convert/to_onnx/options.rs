//! How to write an ONNX model.

use curmerge_formats::onnx::ElementType;

use crate::convert::file_type::FileType;
use crate::error::CallerOption;
use crate::{Error, Result};

/// The name of the model within a folder.
pub const MODEL: &str = "model.onnx";

/// The type of an ONNX model's matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnnxType {
    /// FLOAT throughout.
    #[default]
    F32,
    /// Matrices, products and caches in FLOAT16.
    F16,
    /// Matrices except the embedding in blocks of 32 four-bit numbers around zero, like Q4_0; the rest in
    /// FLOAT.
    Q4_0,
    /// Like [`Self::Q4_0`], each block with a zero point of its own.
    Q4_1,
}

/// How to write an ONNX model.
#[derive(Clone, Debug, Default)]
pub struct OnnxOptions {
    /// The type of the matrices. Default: F32.
    pub file_type: OnnxType,
    /// Whether the weights go into a file beside the model even if one file could hold them. Default:
    /// false.
    pub external_data: bool,
    /// Whether the model is for onnxruntime-genai: attention in the one operator GroupQueryAttention, without
    /// `position_ids`; a folder then has genai_config.json. Default: false.
    pub genai: bool,
    /// The matrices that get LoRA inputs, in the words of [`Base::targets`](crate::base::Base::targets).
    /// Default: `None`, no inputs.
    pub lora_inputs: Option<String>,
    /// Whether to replace an existing folder. Default: false.
    pub force: bool,
}

/// The LoRA inputs of a module: A `[in, rank]` and B `[rank, out]`.
pub(crate) fn lora_inputs(module: &str) -> [String; 2] {
    ["lora_A", "lora_B"].map(|part| format!("{module}.{part}.weight"))
}

impl OnnxType {
    /// The type of this name.
    ///
    /// # Errors
    /// A type that curmerge does not write into ONNX models.
    pub fn of(file_type: FileType) -> Result<Self> {
        match file_type {
            FileType::F32 => Ok(OnnxType::F32),
            FileType::F16 => Ok(OnnxType::F16),
            FileType::Q4_0 => Ok(OnnxType::Q4_0),
            FileType::Q4_1 => Ok(OnnxType::Q4_1),
            other => {
                let problem = format!("an ONNX model is not stored as {other}");
                let help = "use f32, f16, q4_0 or q4_1";
                Err(Error::request(problem, help).avoidable(CallerOption::FileType))
            }
        }
    }

    /// The type that products are computed in.
    pub(super) fn products(self) -> ElementType {
        if self == OnnxType::F16 { ElementType::FLOAT16 } else { ElementType::FLOAT }
    }

    /// Whether each block has a zero point of its own; `None` for types without blocks.
    pub(super) fn blocks(self) -> Option<bool> {
        match self {
            OnnxType::F32 | OnnxType::F16 => None,
            OnnxType::Q4_0 => Some(false),
            OnnxType::Q4_1 => Some(true),
        }
    }
}

impl std::fmt::Display for OnnxType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}
