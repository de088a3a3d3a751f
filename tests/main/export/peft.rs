//! The LoRA for PEFT: what PEFT loads none for is refused by name, before a run trains it.

use std::fs;

use serde_json::Value;

use crate::support::families::{Container, Family};

/// PEFT 0.21 refuses `out_proj` of models with Mamba, and names modules as transformers does.
#[test]
fn a_nemotron_h_has_no_lora_of_its_state_spaces_outputs() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let base = Family::open("nemotron_h").path(Container::Folder);
    let out = path("peft");
    curmerge!("select", base, "-o", path("all.st"), "--targets", "all", "--rank", "4").done();
    let line = curmerge!("export", path("all.st"), "--base", base, "--format", "peft", "-o", out).refusal();
    assert!(line.contains("PEFT loads no LoRA of 'blk.0.ssm_out' in nemotron_h models"), "{line}");
    assert!(line.contains("--targets") && !out.exists(), "{line}");
    curmerge!("export", path("all.st"), "--base", base, "--format", "gguf", "-o", path("a.gguf")).done();

    let data = path("data.jsonl");
    fs::write(&data, "{\"prompt\": \"a b\", \"completion\": \" c\"}\n".repeat(4)).unwrap();
    let line = curmerge!(
        "build",
        base,
        "--data",
        data,
        "-o",
        out,
        "--method",
        "lora",
        "--rank",
        "4",
        "--anchor",
        "none",
        "--protect",
        "none",
        "--max-steps",
        "1"
    )
    .refusal();
    assert!(line.contains("PEFT loads no LoRA of 'blk.0.ssm_out'") && !out.exists(), "{line}");

    curmerge!("select", base, "-o", path("some.st"), "--targets", "q,in", "--rank", "4").done();
    curmerge!("export", path("some.st"), "--base", base, "--format", "peft", "-o", out).done();
    let config: Value = serde_json::from_slice(&fs::read(out.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["target_modules"], serde_json::json!(["in_proj", "q_proj"]));
}
