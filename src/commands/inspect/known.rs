//! The architectures that curmerge knows, and what works with each.

use serde_json::{Value as Json, json};

use crate::arch::{self, Architecture};

const HEADER: [&str; 4] = ["models", "GGUF", "model_type", "into ONNX"];

/// What stands below the table.
const NOTES: &str = "\
build, eval, run, select, merge, verify, export, and convert between GGUF and folders work with all of them. Experts are
frozen. Models of other architectures can be inspected, selected from, merged, verified and exported (--format gguf)
by the names of their matrices.
";

/// A row for each architecture.
pub fn text() -> String {
    let rows: Vec<[String; 4]> =
        std::iter::once(HEADER.map(String::from)).chain(arch::ALL.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let lines = rows.iter().map(|[models, gguf, model_type, onnx]| {
        let [a, b, c] = widths;
        format!("{models:<a$}  {gguf:<b$}  {model_type:<c$}  {onnx}\n")
    });
    lines.collect::<String>() + "\n" + NOTES
}

fn row(architecture: &&'static Architecture) -> [String; 4] {
    let onnx = match (architecture.without_onnx_form(), architecture.onnx.genai_type) {
        (Some(what), _) => format!("no: {what}"),
        (None, Some(_)) => "yes, also with --genai".into(),
        (None, None) => "yes".into(),
    };
    let model_types = architecture.hugging_face.model_types.join(", ");
    [architecture.models.into(), architecture.name.into(), model_types, onnx]
}

/// The same as JSON.
pub fn json() -> Json {
    let entry = |architecture: &&'static Architecture| {
        json!({
            "models": architecture.models,
            "gguf": architecture.name,
            "model_types": architecture.hugging_face.model_types,
            "class": architecture.hugging_face.class,
            "experts": architecture.has_experts(),
            "onnx": architecture.without_onnx_form().is_none(),
            "genai": architecture.onnx.genai_type.filter(|_| architecture.without_onnx_form().is_none()),
        })
    };
    json!({ "architectures": arch::ALL.iter().map(entry).collect::<Vec<_>>() })
}
