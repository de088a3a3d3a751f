//! The model cards of folders that are written.

use std::fs;
use std::path::Path;

use curmerge_formats::gguf::{Gguf, Value};

use super::{folder, small_adapter};
use crate::support::adapter::{Recipe, random};
use crate::support::families::{Container, Family};
use crate::support::fixture::demo;

const CARD: &str = "---\nlicense: apache-2.0\nlanguage:\n- en\ntags: [base]\n---\n# The base\n";

/// A folder with a card, and the card that it was made with.
fn base(to: &Path) {
    crate::support::folder::copy(&Family::open("qwen2").path(Container::Folder), to);
    fs::write(to.join("README.md"), CARD).unwrap();
    fs::write(to.join("README.base.md"), "before").unwrap();
    let config = fs::read_to_string(to.join("config.json")).unwrap();
    let (_, rest) = config.split_once('{').unwrap();
    fs::write(to.join("config.json"), format!("{{\"_name_or_path\": \"owner/name-1B\",{rest}")).unwrap();
}

fn read(folder: &Path) -> String {
    fs::read_to_string(folder.join("README.md")).unwrap()
}

/// The card is the hub's, the base's own is kept, and both conversions read it.
#[test]
fn a_merged_folder_has_a_card_and_keeps_the_bases() {
    let scratch = folder();
    let path = |name: &str| scratch.path().join(name);
    let [hf, adapter, out, other] = ["hf", "a.safetensors", "out", "other"].map(path);
    base(&hf);
    let model = curmerge::Base::open(&hf).unwrap();
    Recipe { targets: "q", ..Recipe::default() }
        .adapter(&model, random(0.3, 1))
        .write(&adapter, &[])
        .unwrap();
    let ran = curmerge!("merge", hf, adapter, "-o", out).done();
    assert!(ran.stderr.contains("README.md, the base's model card, is README.base.md"), "{}", ran.stderr);
    let card = read(&out);
    let front = card.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n")).unwrap().0;
    let right = "base_model: \"owner/name-1B\"\nbase_model_relation: finetune\nlibrary_name: transformers\n\
                 pipeline_tag: text-generation\nlicense: \"apache-2.0\"\nlanguage: [\"en\"]\ntags:\n- curmerge";
    assert_eq!(front, right);
    for said in ["CURLoRA", "| Rank | 4 |", "| Factor of its change | 1 |", "AutoModelForCausalLM"] {
        assert!(card.contains(said), "{said}: {card}");
    }
    assert!(!card.contains(scratch.path().to_str().unwrap()));
    assert_eq!(fs::read_to_string(out.join("README.base.md")).unwrap(), CARD);
    assert_eq!(fs::read_to_string(out.join("README.base.base.md")).unwrap(), "before");
    curmerge!("merge", hf, adapter, "-o", other, "--threads", "1").done();
    assert_eq!(read(&other), card);

    let gguf = path("out.gguf");
    curmerge!("convert", out, gguf).done();
    let gguf = Gguf::open(&gguf).unwrap();
    let text = |key: &str| gguf.get(key).and_then(Value::as_str).map(str::to_owned);
    assert_eq!(text("general.license").as_deref(), Some("apache-2.0"));
    assert_eq!(
        text("general.base_model.0.repo_url").as_deref(),
        Some("https://huggingface.co/owner/name-1B")
    );
}

/// What was trained on, and with which result.
#[test]
fn a_peft_folder_says_how_it_was_trained() {
    let scratch = folder();
    let path = |name: &str| scratch.path().join(name);
    let (adapter, out, lora) = (path("a.safetensors"), path("peft"), path("lora"));
    small_adapter(&adapter);
    curmerge!("export", adapter, "--base", demo("model.gguf"), "-o", out).done();
    let card = read(&out);
    let data = curmerge_formats::sha256_hex(&fs::read(demo("train.jsonl")).unwrap());
    for said in [
        "library_name: peft\n",
        "- lora\n",
        &data,
        "| Steps | 2 of 2 planned |",
        "Loss on held-out",
        "PeftModel",
    ] {
        assert!(card.contains(said), "{said}: {card}");
    }
    let data_file = demo("train.jsonl");
    curmerge!(
        "build",
        demo("model.gguf"),
        "--data",
        data_file,
        "-o",
        lora,
        "--method",
        "lora",
        "--rank",
        "2",
        "--max-steps",
        "1",
        "--anchor",
        "none",
        "--protect",
        "none",
        "--targets",
        "q"
    )
    .done();
    let card = read(&lora);
    assert!(card.contains(&data) && card.contains("| Steps | 1 of 1 planned |"), "{card}");
}
