//! What curmerge can do with a model, by its architecture.

use std::path::Path;

use serde_json::Value as Json;

use crate::Error;
use crate::base::Base;
use crate::commands::report::contents::{Entry, Support};

/// The commands that need a known architecture.
const ALL: &str = "build, eval, run, merge, export and convert work";

/// What curmerge can do with the model of this path. `None` if its metadata says that it is not a model, as
/// in a LoRA as a GGUF file.
pub fn of(path: &Path, metadata: &[Entry]) -> Option<Support> {
    let kind = metadata.iter().find(|entry| entry.key == "general.type").map(|entry| &entry.value);
    let support = |level, line: String| Some(Support { level, line });
    match kind.and_then(Json::as_str) {
        Some("mmproj") => {
            let line = "the vision or audio part of a model: llama.cpp takes it beside the model (--mmproj), which is what \
                        curmerge trains and merges into; convert changes its types";
            return support("by name", line.into());
        }
        Some(kind) if kind != "model" => return None,
        _ => {}
    }
    let base = match Base::open_any(path) {
        Ok(base) => base,
        Err(error) => return support("none", format!("inspect only: {error}")),
    };
    match base.must_be_known() {
        Ok(()) => {
            let name = base.architecture_name();
            let except = match base.architecture().without_onnx_form() {
                Some(what) => format!(", except into ONNX, which has no form for {what}"),
                None => String::new(),
            };
            let quantized = base.decoded_codes_of().map_or_else(String::new, |method| {
                format!(
                    "; the weights are quantized by {method}, so a merge is a GGUF file or a folder in half precision"
                )
            });
            support("full", format!("{name}: {ALL}{except}{quantized}"))
        }
        Err(Error::UnknownArchitecture { problem, help, .. }) => {
            let add = "; CONTRIBUTING.md in curmerge's source says how to add an architecture";
            let add = if base.architecture_name().is_empty() { "" } else { add };
            support("by name", format!("{problem}; {help}{add}"))
        }
        Err(error) => support("none", format!("inspect only: {error}")),
    }
}
