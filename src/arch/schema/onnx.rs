//! Which ONNX runtimes run a family.

/// What ONNX runtimes say of a family.
#[derive(Clone, Copy, Debug)]
pub struct Onnx {
    /// `model.type` in genai_config.json; `None` if curmerge writes no model of the family for onnxruntime-genai (0.18).
    pub genai_type: Option<&'static str>,
}
