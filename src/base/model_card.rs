//! The YAML front matter of a folder's README.md: the model's authors, its origin and its licence.
//!
//! It keeps what the GGUF keys need: texts, lists and mappings. Numbers and dates stay texts. A model whose
//! front matter is not YAML is converted without it, and the caller says so.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::Value as Json;

use crate::Result;
use crate::base::folder::{Folder, Object};

/// A model card nests less deeply than this.
const MAX_DEPTH: usize = 64;
/// A model card has fewer values than this, counting those of an alias each time.
const MAX_VALUES: usize = 1 << 18;

/// The model card, empty if there is none, and whether there is one that cannot be read.
pub(crate) fn read(folder: Folder<'_>) -> Result<(Object, bool)> {
    let Some(text) = folder.text_with_newlines("README.md")? else { return Ok((Object::new(), false)) };
    let mut lines = text.lines();
    if lines.next() != Some("---") {
        return Ok((Object::new(), false));
    }
    let yaml: Vec<&str> = lines.take_while(|line| *line != "---").collect();
    let yaml = yaml.join("\n").replace('\t', "  ") + "\n";
    Ok(match parse(&yaml) {
        Some(Json::Object(card)) => (card, false),
        Some(Json::Null) => (Object::new(), false),
        _ => (Object::new(), true),
    })
}

/// A list or mapping that is not finished.
enum Open {
    List(Vec<Json>),
    Mapping(Object, Option<String>),
}

/// The first document; `None` if it is not YAML or too large.
fn parse(yaml: &str) -> Option<Json> {
    let mut open: Vec<(Open, usize)> = Vec::new();
    let mut anchors: HashMap<usize, (Json, usize)> = HashMap::new();
    let mut budget = MAX_VALUES;
    for event in Parser::new_from_str(yaml) {
        let (event, _) = event.ok()?;
        let (value, anchor) = match event {
            Event::SequenceStart(anchor, _) => {
                open.push((Open::List(Vec::new()), anchor));
                (open.len() <= MAX_DEPTH).then_some(())?;
                continue;
            }
            Event::MappingStart(anchor, _) => {
                open.push((Open::Mapping(Object::new(), None), anchor));
                (open.len() <= MAX_DEPTH).then_some(())?;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop()? {
                (Open::List(list), anchor) => (Json::Array(list), anchor),
                (Open::Mapping(mapping, _), anchor) => (Json::Object(mapping), anchor),
            },
            Event::Scalar(text, style, anchor, _) => (scalar(&text, style), anchor),
            Event::Alias(anchor) => {
                let (value, values) = anchors.get(&anchor)?;
                budget = budget.checked_sub(*values)?;
                (value.clone(), 0)
            }
            Event::DocumentEnd => return Some(Json::Null),
            _ => continue,
        };
        budget = budget.checked_sub(1)?;
        if anchor != 0 {
            let values = count(&value);
            budget = budget.checked_sub(values)?;
            anchors.insert(anchor, (value.clone(), values));
        }
        match open.last_mut() {
            None => return Some(value),
            Some((Open::List(list), _)) => list.push(value),
            Some((Open::Mapping(mapping, key), _)) => match key.take() {
                Some(key) => drop(mapping.insert(key, value)),
                // No key that the caller looks up is a list or a mapping.
                None => *key = Some(value.as_str().unwrap_or_default().to_owned()),
            },
        }
    }
    Some(Json::Null)
}

fn scalar(text: &str, style: ScalarStyle) -> Json {
    let null = style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
    if null { Json::Null } else { Json::String(text.to_owned()) }
}

fn count(value: &Json) -> usize {
    match value {
        Json::Array(list) => 1 + list.iter().map(count).sum::<usize>(),
        Json::Object(mapping) => 1 + mapping.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_lists_and_mappings_are_kept_as_written() {
        let card = "license: mit\nlanguage:\n- en\n- no\nversion: 1.0\nbase_model: &b [a/b, 'c: d']\nx: *b\ny:\nz: |\n  a\n  b\n";
        let expected = json!({
            "license": "mit", "language": ["en", "no"], "version": "1.0", "base_model": ["a/b", "c: d"],
            "x": ["a/b", "c: d"], "y": null, "z": "a\nb\n",
        });
        assert_eq!(parse(card), Some(expected));
        assert_eq!(parse(""), Some(Json::Null));
    }

    #[test]
    fn what_is_no_yaml_or_too_much_is_refused() {
        assert_eq!(parse("a: [b"), None);
        assert_eq!(parse(&"[".repeat(100_000)), None);
        // Each line repeats the one before ten times.
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let alias = format!("*a{}", i - 1);
            bomb += &format!("a{i}: &a{i} [{}]\n", [alias.as_str(); 10].join(","));
        }
        assert_eq!(parse(&bomb), None);
    }
}
