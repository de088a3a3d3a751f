//! LoRA adapters compared with PEFT: it loads those that `export` writes, and `merge` merges those that PEFT
//! makes.

use std::ffi::OsStr;
use std::fs;

use curmerge::base::Base;

use crate::support::environment;
use crate::support::families::{CONTAINERS, Container, Family};

#[test]
#[ignore = "needs CURMERGE_PYTHON with torch, transformers and peft"]
fn peft_agrees_on_fused_and_transposed_matrices() {
    let folder = tempfile::tempdir().unwrap();
    let [adapter_file, exported, merged, lora] =
        ["adapter.st", "peft", "merged", "lora"].map(|name| folder.path().join(name));
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
            let folders = [&path, &exported, &merged].map(|folder| folder.as_os_str());
            let arguments = [&["same".as_ref()], &folders[..], &["OUT".as_ref()]].concat();
            let found = environment::answer("peft_client.py", &arguments, &[]);
            let [off, moved] = ["off", "moved"].map(|key| found[key].as_f64().unwrap());
            println!("{name} {words} {container:?}: logits off by {off:.1e}, moved by {moved:.1e}");
            assert!(off < 1e-4 && moved > 1e-2, "{name} {words} {container:?}: {off} {moved}");
        }
        // transformers stores experts as parameters without modules, and curmerge refuses PEFT's adapters of those.
        let kinds: &[&str] = if name == "qwen3moe" { &[] } else { &["plain", "rslora", "patterns"] };
        for kind in kinds {
            fs::remove_dir_all(&lora).ok();
            let words = ["make".as_ref(), path.as_os_str(), lora.as_os_str(), OsStr::new(kind)];
            environment::ask("peft_client.py", &words, &[]);
            curmerge!("merge", path, lora, "-o", merged, "--type-adapted", "f32", "--force").done();
            let folders = [&path, &lora, &merged].map(|folder| folder.as_os_str());
            let words = [&["merged".as_ref()], &folders[..], &["OUT".as_ref()]].concat();
            let found = environment::answer("peft_client.py", &words, &[]);
            let error = found["error"].as_f64().unwrap();
            println!("{name} {kind}: {} matrices, error at most {error:.1e}", found["changed"]);
            assert!(error < 1e-4 && found["changed"].as_u64() >= Some(8), "{name} {kind}: {error}");
        }
    }
}
