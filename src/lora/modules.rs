//! The modules of adapters that follow Hugging Face's names, whatever wrapped the model when they were saved.

use std::path::Path;

use super::peft;
use crate::base::{Base, RowOrder};
use crate::{Error, Result};

/// What torch.compile, FSDP and DistributedDataParallel put into the names of modules.
const WRAPPERS: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "module"];
/// The language model's own name within a vision model.
const LANGUAGE_MODELS: [&str; 2] = ["language_model", "text_model"];

const OTHER_BASE: &str = "use the base that it was trained on";

/// The segments of a name, without those of wrappers.
pub(super) fn segments(name: &str) -> Vec<&str> {
    name.split('.').filter(|segment| !WRAPPERS.contains(segment)).collect()
}

/// What a base may call a module.
fn names(module: &str) -> [String; 4] {
    let inner: Vec<&str> = module.split('.').filter(|segment| !LANGUAGE_MODELS.contains(segment)).collect();
    let inner = inner.join(".");
    [module.to_owned(), format!("model.{module}"), inner.clone(), format!("model.{inner}")]
}

/// The canonical names of the matrices whose rows are those of a module, if it has several.
pub(super) fn joined(base: &Base, module: &str) -> Option<Vec<String>> {
    let found = names(module).iter().find_map(|name| base.architecture().joined_rows(name));
    found.map(|(joined, layer)| joined.parts.iter().map(|(part, _)| format!("blk.{layer}.{part}")).collect())
}

/// The canonical name of the matrix of a module, which may lack the outer `model.` (an adapter of AutoModel
/// has none) or name a language model within a larger one.
///
/// # Errors
/// A module that is no linear layer of the base; `tensor` of the file at `path` is its part.
pub(super) fn canonical(base: &Base, module: &str, path: &Path, tensor: &str) -> Result<String> {
    let names = names(module);
    let found = names.iter().find_map(|name| match base.is_known() {
        true => base.architecture().of_hugging_face(name).map(|(name, _)| name),
        false => base.place(name).map(|place| place.name.to_string()),
    });
    let refuse = |problem: &str, help: &str| {
        Err(Error::input(path, format!("tensor '{}'", tensor.escape_debug()), problem, help))
    };
    match found {
        Some(name) if !base.is_known() || name.starts_with("blk.") || is_projection(base, &name) => Ok(name),
        Some(name) if name == "output" && base.place("output").is_some() => Ok(name),
        Some(name) if name == "output" => refuse(
            "changes the head, which this model shares with its embeddings",
            "train linear layers of the blocks, or a model whose config.json has \"tie_word_embeddings\": false",
        ),
        _ => refuse("belongs to no linear layer of the base", OTHER_BASE),
    }
}

/// Whether a matrix outside the blocks is a linear layer: neither an embedding nor the head.
pub(super) fn is_projection(base: &Base, name: &str) -> bool {
    base.architecture().makes_per_layer_inputs(name) && base.place(name).is_some()
}

/// How the file orders the rows of B of a matrix, and the columns of A.
///
/// # Errors
/// Rows or columns that are not a whole number of heads.
pub(super) fn orders(
    base: &Base,
    name: &str,
    [rows, columns]: [usize; 2],
    path: &Path,
    tensor: &str,
) -> Result<[RowOrder; 2]> {
    if let Some((joined, layer, part)) = base.architecture().joined_rows_with(name)
        && let Some((order, all)) = base.config().joined_part(joined, layer, part)
    {
        if rows == all {
            return Ok([order, RowOrder::CANONICAL]);
        }
        let place = format!("tensor '{}'", tensor.escape_debug());
        return Err(Error::input(path, place, format!("{rows} rows, not {all}"), OTHER_BASE));
    }
    let Some(line) = base.architecture().line(name) else { return Ok([RowOrder::CANONICAL; 2]) };
    let order = base.config().hugging_face_order(line, rows as u64);
    let both = order.zip(base.config().hugging_face_columns(line, columns as u64));
    both.map(|(rows, columns)| [rows, columns]).ok_or_else(|| {
        let place = format!("tensor '{}'", tensor.escape_debug());
        let problem = format!("{rows} rows or {columns} columns are not a whole number of heads");
        Error::input(path, place, problem, OTHER_BASE)
    })
}

/// Fails if an adapter's folder has pickled weights in place of `wanted`.
pub(super) fn refuse_pickled(folder: &Path, wanted: &str) -> Result<()> {
    let pickled = folder.join("adapter_model.bin");
    if folder.join(wanted).exists() || !pickled.exists() {
        return Ok(());
    }
    let problem = "is a pickled .bin file, which can run any code and is not read";
    let help = format!(
        "load it with PEFT and save it again, which writes {} (save_pretrained with safe_serialization)",
        peft::WEIGHTS
    );
    Err(Error::file(pickled, problem, help))
}
