//! The index of a Hugging Face folder whose tensors are in several files, `model.safetensors.index.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::base::folder::{Folder, SAFETENSORS_INDEX};
use crate::{Error, Result};

/// The text of an index: the file of each tensor and the bytes of all, with the other members of `metadata`
/// that the index of `base` has.
///
/// # Errors
/// An index of `base` that is not JSON.
pub fn text(base: &Path, files: &BTreeMap<&str, String>, total_bytes: u64) -> Result<String> {
    let index = Folder::new(base).object(SAFETENSORS_INDEX)?;
    let mut metadata = match index.as_ref().and_then(|index| index.get("metadata")) {
        Some(Json::Object(metadata)) => metadata.clone(),
        _ => serde_json::Map::new(),
    };
    metadata.insert("total_size".into(), json!(total_bytes));
    let text = serde_json::to_string_pretty(&json!({ "metadata": metadata, "weight_map": files }));
    let text = text.map_err(|e| Error::request(format!("the index: {e}"), "report this as a bug"))?;
    Ok(text + "\n")
}

/// The text of the index in the folder `base` with its `total_size` changed by `growth` bytes, and nothing
/// else.
pub(super) fn grown(base: &Path, growth: i128) -> Result<String> {
    let text = Folder::new(base).text(SAFETENSORS_INDEX)?.unwrap_or_default();
    Ok(with_growth(&text, growth).unwrap_or(text))
}

/// `None` if there is no such number.
fn with_growth(text: &str, growth: i128) -> Option<String> {
    const KEY: &str = "\"total_size\"";
    let after = text.find(KEY)? + KEY.len();
    let number = after + text[after..].find(|c: char| c.is_ascii_digit())?;
    let between = &text[after..number];
    if between.trim() != ":" {
        return None;
    }
    let end = number + text[number..].find(|c: char| !c.is_ascii_digit())?;
    let size: i128 = text[number..end].parse().ok()?;
    Some(format!("{}{}{}", &text[..number], size.checked_add(growth)?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_size_changes_in_the_index() {
        let text = "{\"metadata\": {\"total_size\" : 120, \"x\": 1},\n \"weight_map\": {}}";
        let smaller = "{\"metadata\": {\"total_size\" : 70, \"x\": 1},\n \"weight_map\": {}}";
        assert_eq!(with_growth(text, -50).as_deref(), Some(smaller));
        assert_eq!(with_growth("{\"metadata\": {}}", 1), None);
        assert_eq!(with_growth("{\"total_size\": \"9\"}", 1), None);
    }
}
