//! The files beside the weights of a Hugging Face folder: which go along with a merged model.

use std::fs;
use std::path::Path;

use curmerge::base::Base;
use curmerge::merge::{MergeOptions, Source, merge};
use curmerge::rewrite::Companion;

use crate::support::adapter::{Recipe, constant};
use crate::support::folder::names;
use crate::support::tiny;

/// Merges an adapter into the folder, and returns what was left out.
fn merged(base: &Path, out: &Path) -> Vec<Companion> {
    let base = Base::open(base).unwrap();
    let adapter = Recipe { targets: "q", rank: 3, scale: 1.0, seed: 1, ..Default::default() }
        .adapter(&base, constant(0.1));
    merge(&base, &[(Source::Cur(&adapter), 1.0)], &MergeOptions::default(), out, |_, _| {})
        .unwrap()
        .companions
}

fn write(folder: &Path, files: &[&str]) {
    for file in files {
        fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
        fs::write(folder.join(file), "{}").unwrap();
    }
}

#[test]
fn what_is_of_an_adapter_a_trainer_or_old_weights_stays_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (hf, out) = (folder.path().join("hf"), folder.path().join("out"));
    tiny::write_folder(&hf);
    let own = names(&hf);
    write(&hf, &["README.md", "chat_template.jinja", "additional_chat_templates/rag.jinja", "modeling_x.py"]);
    let all = names(&hf);
    write(
        &hf,
        &[
            "adapter_config.json",
            "adapter_model.safetensors",
            "adapters.safetensors",
            "0000100_adapters.safetensors",
            "style/adapter_config.json",
            "style/adapter_model.safetensors",
            "checkpoint-500/config.json",
            "checkpoint-500/optimizer.pt",
            "optimizer.pt",
            "rng_state_0.pth",
            "training_args.bin",
            "trainer_state.json",
            "pytorch_model.bin",
            "consolidated.safetensors",
            "model.Q4_0.gguf",
            "onnx/model.onnx_data",
            ".curmerge-a1b2c3.tmp",
        ],
    );
    let left_out = merged(&hf, &out);
    let (mut found, mut right) = (names(&out), all);
    // The output has a card of its own.
    right.push("README.base.md".into());
    // An emptied folder is not made.
    found.sort();
    right.sort();
    assert_eq!(found, right);
    assert!(own.iter().all(|name| found.contains(name)));
    assert!(out.join("additional_chat_templates/rag.jinja").exists());
    let adapter = |path: &str| Companion::OfAdapter(path.into());
    let training = |path: &str| Companion::OfTraining(path.into());
    let weights = |path: &str| Companion::OldWeights(path.into());
    let right = [
        adapter("0000100_adapters.safetensors"),
        Companion::BaseCard("README.md".into()),
        adapter("adapter_config.json"),
        adapter("adapter_model.safetensors"),
        adapter("adapters.safetensors"),
        training("checkpoint-500"),
        weights("consolidated.safetensors"),
        weights("model.Q4_0.gguf"),
        weights("onnx/model.onnx_data"),
        training("optimizer.pt"),
        weights("pytorch_model.bin"),
        training("rng_state_0.pth"),
        adapter("style"),
        training("trainer_state.json"),
        training("training_args.bin"),
    ];
    assert_eq!(left_out, right);
}

/// A folder from elsewhere may have links to any file of its user.
#[cfg(unix)]
#[test]
fn links_are_followed_within_the_folder_alone() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let (hf, out) = (folder.path().join("hf"), folder.path().join("out"));
    tiny::write_folder(&hf);
    let secret = folder.path().join("secret");
    fs::write(&secret, "mine").unwrap();
    symlink(&secret, hf.join("notes.txt")).unwrap();
    symlink("../secret", hf.join("other.txt")).unwrap();
    symlink("nowhere", hf.join("gone.txt")).unwrap();
    symlink(folder.path(), hf.join("above")).unwrap();
    symlink("config.json", hf.join("alias.json")).unwrap();
    let left_out = merged(&hf, &out);
    let leads_out = ["above", "gone.txt", "notes.txt", "other.txt"];
    assert_eq!(left_out, leads_out.map(|path| Companion::LeadsOut(path.into())));
    assert!(!names(&out).iter().any(|name| leads_out.contains(&name.as_str())));
    assert_eq!(fs::read(out.join("alias.json")).unwrap(), fs::read(hf.join("config.json")).unwrap());

    // As Hugging Face's cache keeps a model.
    let model = folder.path().join("models--a--b");
    let (blobs, revision) = (model.join("blobs"), model.join("snapshots/0123"));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&revision).unwrap();
    for name in names(&hf)
        .into_iter()
        .filter(|name| hf.join(name).is_file() && name != "notes.txt" && name != "other.txt")
    {
        fs::copy(hf.join(&name), blobs.join(&name)).unwrap();
        symlink(Path::new("../../blobs").join(&name), revision.join(&name)).unwrap();
    }
    symlink(&secret, revision.join("notes.txt")).unwrap();
    let of_cache = folder.path().join("of-cache");
    assert_eq!(merged(&revision, &of_cache), [Companion::LeadsOut("notes.txt".into())]);
    assert!(of_cache.join("tokenizer.json").is_file() && of_cache.join("alias.json").is_file());
}
