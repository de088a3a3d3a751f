//! LoRA adapters in PEFT itself: those that `export` writes, and those that it makes, merged by both.

use std::ffi::OsStr;
use std::fs;

use curmerge::base::Base;

use crate::support::environment;
use crate::support::families::{CONTAINERS, Container, Family};

#[test]
#[ignore = "needs CURMERGE_PYTHON with torch, transformers and peft"]
fn peft_agrees_on_fused_and_transposed_matrices() {
    let folder = tempfile::tempdir().unwrap();
    let [adapter_file, exported, merged, lora, out] =
        ["adapter.st", "peft", "merged", "lora", "out.json"].map(|name| folder.path().join(name));
    let ask = |words: &[&OsStr]| environment::ask("peft_client.py", words, &[]);
    let answer = || -> serde_json::Value { serde_json::from_slice(&fs::read(&out).unwrap()).unwrap() };
    for name in ["phi3", "gpt2", "llama2", "gemma3", "qwen3moe"] {
        let family = Family::open(name);
        let path = family.path(Container::Folder);
        for (words, container) in ["all", "q,v,o"].into_iter().flat_map(|w| CONTAINERS.map(|c| (w, c))) {
            let base = Base::open(family.path(container)).unwrap();
            family.adapter(&base, words).write(&adapter_file, &[]).unwrap();
            let base = family.path(container);
            curmerge!("export", adapter_file, "--base", base, "--format", "peft", "-o", exported, "--force")
                .done();
            curmerge!("merge", path, adapter_file, "-o", merged, "--type-adapted", "f32", "--force").done();
            ask(&[
                "same".as_ref(),
                path.as_os_str(),
                exported.as_os_str(),
                merged.as_os_str(),
                out.as_os_str(),
            ]);
            let (off, moved) = (answer()["off"].as_f64().unwrap(), answer()["moved"].as_f64().unwrap());
            println!("{name} {words} {container:?}: logits off by {off:.1e}, moved by {moved:.1e}");
            assert!(off < 1e-4 && moved > 1e-2, "{name} {words} {container:?}: {off} {moved}");
        }
        // Of experts transformers keeps parameters without modules, and PEFT's adapters of those are refused.
        let kinds: &[&str] = if name == "qwen3moe" { &[] } else { &["plain", "rslora", "patterns"] };
        for kind in kinds {
            fs::remove_dir_all(&lora).ok();
            ask(&["make".as_ref(), path.as_os_str(), lora.as_os_str(), OsStr::new(kind)]);
            curmerge!("merge", path, lora, "-o", merged, "--type-adapted", "f32", "--force").done();
            ask(&[
                "merged".as_ref(),
                path.as_os_str(),
                lora.as_os_str(),
                merged.as_os_str(),
                out.as_os_str(),
            ]);
            let error = answer()["error"].as_f64().unwrap();
            println!("{name} {kind}: {} matrices, error at most {error:.1e}", answer()["changed"]);
            assert!(error < 1e-4 && answer()["changed"].as_u64() >= Some(8), "{name} {kind}: {error}");
        }
    }
}
