//! `--second-opinion`: what the crate `gguf-rs` reads in a GGUF file, beside what we read.

use std::path::Path;

use curmerge_formats::detect::Container;
use curmerge_formats::gguf::{GgufModel, SecondOpinion, second_opinion};
use serde_json::{Value as Json, json};

use crate::{Error, Result};

/// The opinion on a GGUF file, or on all splits of one together.
pub fn of(path: &Path, container: Container) -> Result<SecondOpinion> {
    if container != Container::Gguf {
        let help = "name a GGUF file, or leave --second-opinion out";
        return Err(Error::file(path, "only a GGUF file gets a second opinion", help));
    }
    let mut all = SecondOpinion::default();
    for file in GgufModel::open(path)?.files() {
        let SecondOpinion { tensors, keys, disagreements, unknown } = second_opinion(file)?;
        all.tensors += tensors;
        all.keys += keys;
        all.disagreements.extend(disagreements);
        all.unknown.extend(unknown);
    }
    Ok(all)
}

/// Lines for a terminal. Names in them are escaped.
pub fn text(opinion: &SecondOpinion) -> String {
    let mut text = format!(
        "\nsecond opinion: gguf-rs read {} tensors and {} keys, {} disagreements\n",
        opinion.tensors,
        opinion.keys,
        opinion.disagreements.len()
    );
    for d in &opinion.disagreements {
        text += &format!("  {}: ours {}; gguf-rs {}\n", d.place, d.ours, d.theirs);
    }
    for line in &opinion.unknown {
        text += &format!("  not compared: {line}\n");
    }
    text
}

/// The same as JSON.
pub fn json(opinion: &SecondOpinion) -> Json {
    let disagreements: Vec<Json> = opinion
        .disagreements
        .iter()
        .map(|d| json!({ "place": d.place, "ours": d.ours, "theirs": d.theirs }))
        .collect();
    json!({
        "reader": "gguf-rs",
        "tensors": opinion.tensors,
        "keys": opinion.keys,
        "disagreements": disagreements,
        "unknown": opinion.unknown,
    })
}

/// An error if the readers disagree.
pub fn verdict(path: &Path, opinion: &SecondOpinion) -> Result<()> {
    match opinion.disagreements.len() {
        0 => Ok(()),
        count => Err(Error::input(
            path,
            "second opinion",
            format!("gguf-rs and curmerge disagree in {count} place{}", if count == 1 { "" } else { "s" }),
            "get the file again; if they still disagree, report it as a bug",
        )),
    }
}

#[cfg(test)]
mod tests {
    use curmerge_formats::gguf::Disagreement;

    use super::*;

    #[test]
    fn a_disagreement_is_shown_and_fails() {
        let path = Path::new("m.gguf");
        let mut opinion = SecondOpinion { tensors: 3, keys: 2, ..SecondOpinion::default() };
        assert!(verdict(path, &opinion).is_ok());
        opinion.unknown.push("tensor \"t\": gguf-rs does not know type Q2_0".into());
        assert!(verdict(path, &opinion).is_ok());
        opinion.disagreements.push(Disagreement {
            place: "key \"k\"".into(),
            ours: "U8(1)".into(),
            theirs: "\"2\"".into(),
        });
        let error = verdict(path, &opinion).unwrap_err().to_string();
        assert!(
            error.starts_with("m.gguf: second opinion: gguf-rs and curmerge disagree in 1 place"),
            "{error}"
        );
        let text = text(&opinion);
        assert!(
            text.contains("3 tensors and 2 keys")
                && text.contains("  key \"k\": ours U8(1); gguf-rs \"2\"\n")
        );
        assert!(text.contains("  not compared: tensor \"t\""));
        assert_eq!(json(&opinion)["disagreements"][0]["place"], "key \"k\"");
    }
}
