//! Which ONNX runtimes run a family.

/// What ONNX runtimes say of a family.
#[derive(Clone, Copy, Debug)]
pub struct Onnx {
    /// `model.type` in genai_config.json; `None` if onnxruntime-genai (0.18) does not run the family.
    pub genai_type: Option<&'static str>,
}
