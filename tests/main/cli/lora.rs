//! `build --method lora` and `lora-xs`, and what the other commands do with the result.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use curmerge::base::Base;
use curmerge_formats::safetensors::SafeTensorsLayout;
use curmerge_formats::{DType, NewSafeTensor, SafeTensors};
use serde_json::Value;

use super::folder;
use crate::support::families::{Container, Family};
use crate::support::fixture::demo;
use crate::support::program::{Ran, program, run};

/// The arguments of a short run on the demo's data. An option in `more` replaces the usual one.
fn words(method: &str, out: &Path, more: &[&str]) -> Vec<OsString> {
    let usual = [
        ("--targets", "q,o,down"),
        ("--rank", "4"),
        ("--max-steps", "12"),
        ("--batch-size", "4"),
        ("--lr", "0.01"),
        ("--shrink", "1"),
        ("--precision", "f32"),
        ("--method", method),
    ];
    // What is trained further has its targets and its rank.
    let decided = |option| more.contains(&"--init") && ["--targets", "--rank"].contains(&option);
    let usual = usual.into_iter().filter(|(option, _)| !more.contains(option) && !decided(*option));
    let paths =
        [demo("model.gguf"), "--data".into(), demo("train.jsonl"), "--valid".into(), demo("valid.jsonl")];
    let mut words: Vec<OsString> = vec!["build".into()];
    words.extend(paths.map(PathBuf::into_os_string));
    words.extend(["-o".into(), out.as_os_str().to_owned(), "--json".into(), "--no-append-eos".into()]);
    words.extend(usual.flat_map(|(option, value)| [option.into(), value.into()]));
    words.extend(more.iter().map(|word| word.into()));
    words
}

fn build(method: &str, out: &Path, more: &[&str]) -> Ran {
    let words = words(method, out, more);
    run(&words.iter().map(|word| word.as_os_str()).collect::<Vec<_>>())
}

/// Starts a run and kills it after it has saved a checkpoint.
fn killed(method: &str, out: &Path, more: &[&str]) {
    let checkpoint = PathBuf::from(format!("{}.checkpoint", out.display()));
    let words = words(method, out, more);
    let mut child = program().args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !checkpoint.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it saved a checkpoint");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!out.exists());
}

/// The loss on the demo's validation examples.
fn loss(model: &Path, adapter: Option<&Path>) -> f64 {
    let data = demo("valid.jsonl");
    let mut words = vec![OsStr::new("eval"), model.as_os_str(), "--data".as_ref(), data.as_os_str()];
    words.push("--json".as_ref());
    words.extend(adapter.iter().flat_map(|adapter| [OsStr::new("--adapter"), adapter.as_os_str()]));
    run(&words).json()["loss"].as_f64().unwrap()
}

fn last_validation(answer: &Value) -> f64 {
    answer["validation"].as_array().unwrap().last().unwrap()["loss"].as_f64().unwrap()
}

#[test]
fn every_form_of_the_result_is_the_same_model() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let plain = loss(&demo("model.gguf"), None);
    for method in ["lora", "lora-xs", "curlora"] {
        for more in [&[][..], &["--alpha", "6", "--rslora"]] {
            if method == "curlora" && !more.is_empty() {
                continue;
            }
            let [peft, gguf, merged] = ["peft", "lora.gguf", "merged.gguf"].map(path);
            let trained = last_validation(&build(method, &peft, &[more, &["--force"]].concat()).json());
            assert!(trained < 0.99 * plain, "{method}: {trained} from {plain}");
            let again = last_validation(&build(method, &gguf, more).json());
            assert_eq!(again, trained);
            curmerge!("merge", demo("model.gguf"), peft, "-o", merged, "--type-adapted", "f32").done();
            for (model, adapter) in
                [(demo("model.gguf"), Some(&peft)), (demo("model.gguf"), Some(&gguf)), (merged, None)]
            {
                let found = loss(&model, adapter.map(PathBuf::as_path));
                assert!((found - trained).abs() < 1e-4, "{method} {adapter:?}: {found} for {trained}");
            }
        }
    }
}

#[test]
fn a_lora_is_trained_further() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    for (first, more) in [("peft", &[][..]), ("lora.gguf", &["--alpha", "6", "--rslora"])] {
        let (first, again, on) = (path(first), path("again"), path("on.gguf"));
        let trained = last_validation(&build("lora", &first, more).json());
        let init = ["--init", first.to_str().unwrap(), "--force"];
        // A step that moves nothing leaves it as it was.
        let still = ["--max-steps", "1", "--lr", "1e-30"];
        let found = last_validation(&build("lora", &again, &[&init[..], &still].concat()).json());
        assert!((found - trained).abs() < 1e-6, "{found} for {trained}");
        // The file says what it is, also to a run that names no method.
        let more_steps = ["--max-steps", "60", "--lr", "0.003"];
        let further = build("curlora", &on, &[&init[..], &more_steps].concat()).json();
        assert!(last_validation(&further) < trained - 0.01, "{trained}: {further}");
        let found = loss(&demo("model.gguf"), Some(&on));
        assert!((found - last_validation(&further)).abs() < 1e-4, "{found}");
    }
    let (peft, xs) = (path("peft"), path("xs"));
    let init = ["--init", peft.to_str().unwrap(), "--force"];
    for (method, out, more, wanted) in [
        ("lora-xs", &xs, &[][..], "--init is for --method curlora or lora"),
        ("lora", &peft, &[], "would replace the input"),
        ("lora", &xs, &["--keep-fisher"], "--keep-fisher is for --method curlora"),
    ] {
        let line = build(method, out, &[&init[..], more].concat()).refusal();
        assert!(line.contains(wanted), "{line}");
    }
    let adapter = path("a.safetensors");
    build("curlora", &adapter, &[]).json();
    let line = build("lora", &xs, &["--init", adapter.to_str().unwrap()]).refusal();
    assert!(line.contains("is no LoRA") && line.contains("leave out --method"), "{line}");
}

#[test]
fn a_lora_of_another_program_is_exported_as_our_own_is() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let model = demo("model.gguf");
    let first = path("first");
    build("lora", &first, &["--alpha", "6"]).json();
    let right = loss(&model, Some(&first));
    let (gguf, peft, ollama) = (path("a.gguf"), path("again"), path("ollama"));
    curmerge!("export", first, "--base", model, "--format", "gguf", "-o", gguf).done();
    curmerge!("export", gguf, "--base", model, "--format", "peft", "-o", peft).done();
    for adapter in [&gguf, &peft] {
        let found = loss(&model, Some(adapter));
        assert!((found - right).abs() < 1e-6, "{}: {found} for {right}", adapter.display());
    }
    curmerge!("export", peft, "--base", model, "--format", "ollama", "-o", ollama, "--type-adapted", "f32")
        .done();
    let found = loss(&ollama.join("model.gguf"), None);
    assert!((found - right).abs() < 1e-4, "{found} for {right}");
    // Trainers save a tokenizer and a template beside the adapter.
    let merged = path("merged.gguf");
    let said = |peft: &Path| curmerge!("merge", model, peft, "-o", merged).done().stderr;
    assert!(!said(&peft).contains("chat template"));
    fs::write(peft.join("chat_template.jinja"), "{{ messages }}").unwrap();
    assert!(said(&peft).contains("again: its chat template is not that of the base"), "{}", said(&peft));
    let shown = curmerge!("inspect", peft, "--json").json();
    let tensors = shown["tensors"].as_array().unwrap();
    assert!(tensors.iter().any(|t| t["name"].as_str().unwrap().ends_with("q_proj.lora_A.weight")), "{shown}");
    let line =
        curmerge!("export", peft, "--base", model, "--format", "peft", "-o", peft, "--force").refusal();
    assert!(line.contains("would replace the input"), "{line}");
}

#[test]
fn the_folder_says_what_peft_expects() {
    let folder = folder();
    let out = folder.path().join("peft");
    build("lora", &out, &["--alpha", "6", "--rslora"]).json();
    let config: Value = serde_json::from_slice(&fs::read(out.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(
        (&config["r"], &config["lora_alpha"], &config["use_rslora"]),
        (&4.into(), &6.into(), &true.into())
    );
    // A is written as trained: near its initial values, which lie within 1 / sqrt(n).
    let file = SafeTensors::open(&out.join("adapter_model.safetensors")).unwrap();
    let a =
        file.tensors().iter().find(|t| t.name.ends_with("layers.0.self_attn.q_proj.lora_A.weight")).unwrap();
    let values = file.data(a).as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let bound = 1.0 / (a.shape[1] as f32).sqrt() + 0.06;
    assert!(values.clone().all(|x| x.abs() < bound) && values.clone().any(|x| x.abs() > 0.5 * bound));
}

#[test]
fn scaling_back_scales_b_alone() {
    let folder = folder();
    let [whole, half] = ["whole", "half"].map(|name| folder.path().join(name));
    build("lora", &whole, &[]).json();
    build("lora", &half, &["--shrink", "0.5"]).json();
    let words = |out: &Path| SafeTensors::open(&out.join("adapter_model.safetensors")).unwrap();
    let (whole, half) = (words(&whole), words(&half));
    for tensor in whole.tensors() {
        let factor = if tensor.name.contains("lora_B") { 0.5 } else { 1.0 };
        let [a, b] = [&whole, &half].map(|file| {
            let bytes = file.data(file.tensor(&tensor.name).unwrap()).as_chunks::<4>().0.to_vec();
            bytes.into_iter().map(f32::from_le_bytes).collect::<Vec<_>>()
        });
        assert!(a.iter().zip(&b).all(|(a, b)| (a * factor - b).abs() < 1e-7), "{}", tensor.name);
    }
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes_at_any_thread_count() {
    let folder = folder();
    let bytes = |out: &Path| fs::read(out.join("adapter_model.safetensors")).unwrap();
    for (method, protect) in [("lora", "none"), ("lora", "replay"), ("lora", "fisher"), ("lora-xs", "fisher")]
    {
        let path = |name: &str| folder.path().join(format!("{method}-{protect}-{name}"));
        let all = ["--protect", protect, "--anchor-texts", "4", "--max-steps", "40", "--save-every", "3"];
        let (whole, out) = (path("whole"), path("out"));
        build(method, &whole, &[&all[..], &["--threads", "1"]].concat()).json();
        killed(method, &out, &all);
        build(method, &out, &[&all[..], &["--resume", "--threads", "2"]].concat()).json();
        assert!(bytes(&whole) == bytes(&out), "{method} {protect}");
        let other = build(method, &path("other"), &[&all[..], &["--resume"]].concat()).refusal();
        assert!(other.contains("no checkpoint"), "{other}");
    }
}

#[test]
fn what_does_not_fit_a_method_is_refused() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let line = build("lora", &path("a.safetensors"), &[]).refusal();
    assert!(line.contains("a.safetensors") && line.contains("name a folder or a .gguf file"), "{line}");
    for (method, more, wanted) in [
        ("curlora", &["--alpha", "4"][..], "--alpha is for --method lora or lora-xs"),
        ("curlora", &["--rslora"], "--rslora is for"),
        ("lora", &["--scale", "2"], "--scale is for --method curlora"),
        ("lora", &["--alpha", "0"], "--alpha 0 cannot be used"),
        ("lora-xs", &["--rank", "100000"], "fewer than rank 100000"),
    ] {
        let line = build(method, &path("x"), more).refusal();
        assert!(line.contains(wanted), "{line}");
    }
    let existing = path("existing");
    fs::create_dir(&existing).unwrap();
    fs::write(existing.join("mine"), "kept").unwrap();
    let line = build("lora", &existing, &[]).refusal();
    assert!(line.contains("existing") && line.contains("--force"), "{line}");
    assert!(existing.join("mine").exists());
}

#[test]
fn parts_of_fused_matrices_train_and_load_as_one() {
    let folder = folder();
    for family in ["phi3", "gpt2"] {
        let family = Family::open(family);
        let base = family.path(Container::Gguf);
        let data = folder.path().join("data.jsonl");
        fs::write(&data, "{\"text\": \"the small bird eats fish near the water\"}\n".repeat(8)).unwrap();
        let train = |out: &Path, more: &str| {
            let [base, data, out] = [&base, &data, out].map(|path| path.to_str().unwrap());
            let words =
                ["build", base, "--data", data, "--valid", data, "-o", out, "--force", "--precision", "f32"];
            let words = words.into_iter().chain(["--json"]).chain(more.split(' '));
            last_validation(&run(&words.map(OsStr::new).collect::<Vec<_>>()).json())
        };
        let losses = ["peft", "lora.gguf"].map(|name| {
            let out = folder.path().join(name);
            let lora = "--method lora --targets all --rank 3 --alpha 5 --lr 0.02 --epochs 3 --shrink 1";
            let right = train(&out, lora);
            let found = curmerge!("eval", base, "--data", data, "--adapter", out, "--json").json();
            let found = found["loss"].as_f64().unwrap();
            assert!((found - right).abs() < 1e-4, "{name}: {found} for {right}");
            let size = |file: &Path| {
                SafeTensors::open(&file.join("adapter_model.safetensors")).map(|f| f.bytes().len())
            };
            if name == "peft" {
                // Trained further, the parts of a fused matrix keep their rank.
                let further = folder.path().join("further");
                let still =
                    format!("--init {} --max-steps 1 --lr 1e-30 --protect none", out.to_str().unwrap());
                let found = train(&further, &still);
                assert!((found - right).abs() < 1e-6, "{name}: {found} for {right}");
                assert_eq!(size(&further).unwrap(), size(&out).unwrap());
            }
            right
        });
        assert_eq!(losses[0], losses[1]);
    }
}

#[test]
fn a_lora_of_experts_is_merged_and_not_run() {
    let folder = folder();
    let lora = folder.path().join("lora");
    fs::create_dir(&lora).unwrap();
    let family = Family::open("qwen3moe");
    let base = family.path(Container::Gguf);
    let weight = |name: &str| {
        let base = Base::open(&base).unwrap();
        let weight = base.weight(name).unwrap();
        [weight.rows() as u64, weight.cols() as u64]
    };
    let [m, n] = weight("blk.0.ffn_gate_exps[1]");
    let module = "base_model.model.model.layers.0.mlp.experts.1.gate_proj";
    let tensors = [("lora_A", vec![2, n]), ("lora_B", vec![m, 2])].map(|(part, shape)| NewSafeTensor {
        name: format!("{module}.{part}.weight"),
        dtype: DType::F32,
        shape,
    });
    let layout = SafeTensorsLayout::new(&BTreeMap::new(), tensors.into()).unwrap();
    let mut bytes = layout.header().to_vec();
    // Every number is 0.5.
    bytes.extend((0..2 * (m + n)).flat_map(|_| 0.5f32.to_le_bytes()));
    fs::write(lora.join("adapter_model.safetensors"), bytes).unwrap();
    fs::write(lora.join("adapter_config.json"), r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 2}"#).unwrap();

    let line = curmerge!("run", base, "--adapter", lora, "-p", "a", "-n", "1").refusal();
    assert!(line.contains("ffn_gate_exps[1]") && line.contains("merge the adapter"), "{line}");
    curmerge!("merge", base, lora, "-o", folder.path().join("merged.gguf")).done();
}
