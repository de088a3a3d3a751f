//! `export --format ollama`: the folder that it writes, and what it refuses.

use std::fs;

use super::{folder, small_adapter};
use crate::support::fixture::demo;
use crate::support::folder::names;

#[test]
fn export_for_ollama_is_the_merged_model_and_its_template() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (base, adapter, out) = (demo("model.gguf"), path("adapter.st"), path("out"));
    small_adapter(&adapter);
    let export = || curmerge!("export", adapter, "--base", base, "--format", "ollama", "-o", out);
    let said = export().done().stdout;
    assert!(said.contains("answers end at <|im_start|> <|im_end|>\n"), "{said}");
    assert!(said.ends_with(&format!("-f {}\n", out.join("Modelfile").display())), "{said}");

    let merged = path("merged.gguf");
    curmerge!("merge", base, adapter, "-o", merged).done();
    assert!(
        fs::read(out.join("model.gguf")).unwrap() == fs::read(&merged).unwrap(),
        "model.gguf is not the merged model"
    );
    let modelfile = fs::read_to_string(out.join("Modelfile")).unwrap();
    assert!(modelfile.starts_with("FROM ./model.gguf\nTEMPLATE \"\"\"{{ "), "{modelfile}");
    assert!(
        modelfile.ends_with("\nPARAMETER stop \"<|im_start|>\"\nPARAMETER stop \"<|im_end|>\"\n"),
        "{modelfile}"
    );
    assert_eq!(names(&out), ["Modelfile", "README.md", "model.gguf"]);
    assert!(fs::read_to_string(out.join("README.md")).unwrap().contains("ollama create"));

    assert!(export().refusal().contains("--force"));
    let words = ["--format", "ollama", "--type", "f16", "--force", "--json"];
    let [format, ollama, kind, f16, force, json] = words;
    let report =
        curmerge!("export", adapter, "--base", base, format, ollama, "-o", out, kind, f16, force, json)
            .json();
    assert_eq!(report["prompts"], "chat");
    assert!(report["tensors"].as_array().unwrap().iter().all(|t| t["dtype"] == "F16"), "{report}");
    assert_eq!(fs::read_to_string(out.join("Modelfile")).unwrap(), modelfile);
}

#[test]
fn only_exports_for_ollama_take_a_type() {
    let folder = folder();
    let (adapter, out) = (folder.path().join("adapter.st"), folder.path().join("out"));
    small_adapter(&adapter);
    let (base, kind) = (demo("model.gguf"), "f16");
    let export = curmerge!("export", adapter, "--base", base, "--format", "gguf", "-o", out, "--type", kind);
    assert!(export.refusal().contains("for --format ollama"));
}
