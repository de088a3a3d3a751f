//! The folder for Ollama: chat templates in Ollama's language, and what is refused.
//!
//! fixtures/ollama holds templates as real models have them, their Modelfiles, and the texts that Ollama's
//! own packages render with these Modelfiles. tests/real/ollama.rs runs Ollama again.

use std::collections::BTreeMap;
use std::path::Path;

use curmerge::base::Base;
use curmerge::cur::Selection;
use curmerge::export::ollama::{Prompts, write};
use curmerge::merge::{MergeOptions, Source};
use curmerge_formats::dtype::DType;
use serde_json::Value;

use crate::support::adapter::{Recipe, constant};
use crate::support::ollama::{check_renderings, fixtures, modelfiles, prompts, templates};
use crate::support::tiny;

#[test]
fn ollama_renders_what_the_models_own_template_renders() {
    let templates = templates(&fixtures());
    assert!(templates.len() > 15);
    let prompts = prompts(&templates);
    for (name, prompts) in &prompts {
        assert_eq!(matches!(prompts, Prompts::Unknown(_)), name.starts_with("unlike"), "{name}: {prompts:?}");
    }
    let (known_modelfiles, rendered) = (fixtures().join("modelfiles.json"), fixtures().join("goldens.json"));
    let golden: BTreeMap<String, String> =
        serde_json::from_str(&std::fs::read_to_string(known_modelfiles).unwrap()).unwrap();
    assert_eq!(modelfiles(&prompts), golden);
    let answers: Value = serde_json::from_str(&std::fs::read_to_string(rendered).unwrap()).unwrap();
    check_renderings(&templates, &prompts, &answers);
}

#[test]
fn a_folder_is_refused_and_a_model_without_tokenizer_gets_no_template() {
    let folder = tempfile::tempdir().unwrap();
    let (hf, gguf, out) =
        (folder.path().join("hf"), folder.path().join("tiny.gguf"), folder.path().join("out"));
    tiny::write_folder(&hf);
    tiny::write_gguf(&gguf, DType::F16);
    let recipe = Recipe { targets: "q", selection: Selection::Reference, ..Default::default() };
    let export = |path: &Path| {
        let base = Base::open(path).unwrap();
        let adapter = recipe.adapter(&base, constant(0.0));
        write(&base, &[(Source::Cur(&adapter), 1.0)], &MergeOptions::default(), &out, |_, _| ())
    };
    let refusal = export(&hf).unwrap_err().to_string();
    assert!(
        refusal.starts_with(&hf.display().to_string()) && refusal.contains("convert the base into one"),
        "{refusal}"
    );
    assert!(!out.exists());
    let written = export(&gguf).unwrap();
    assert!(matches!(written.prompts, Prompts::Unknown(_)));
    assert_eq!(std::fs::read_to_string(out.join("Modelfile")).unwrap(), "FROM ./model.gguf\n");
    assert_eq!(Prompts::Plain.modelfile(), "FROM ./model.gguf\nTEMPLATE {{ .Prompt }}\n");
}
