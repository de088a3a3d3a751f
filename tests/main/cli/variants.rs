//! Models that differ a little from their architecture: refused if something would silently be left out.

use std::fs;
use std::path::{Path, PathBuf};

use curmerge::base::Base;
use curmerge_formats::gguf::Value as GgufValue;
use serde_json::{Value, json};

use super::folder;
use super::refused::assert_says;
use crate::support::families::{ALL, Family};
use crate::support::fixture::family;
use crate::support::folder::copy;
use crate::support::remade::Remade;

/// A copy of a family's Hugging Face folder.
fn copy_of(name: &str, to: &Path) -> PathBuf {
    let model = to.join(name);
    copy(&family(name, "hf"), &model);
    model
}

/// Changes a JSON file.
fn change(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(&mut json);
    fs::write(file, json.to_string()).unwrap();
}

/// Adds an F32 tensor of zeros after the others.
fn add_tensor(folder: &Path, name: &str, shape: &[usize]) {
    let file = folder.join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    let (header, data) = rest.split_at(length);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    let size = 4 * shape.iter().product::<usize>();
    header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [data.len(), data.len() + size]});
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    fs::write(&file, [&length[..], header.as_bytes(), data, &vec![0; size]].concat()).unwrap();
}

#[test]
fn tensors_that_would_be_left_out_are_refused() {
    let added: &[(&str, &str, &[usize])] = &[
        ("qwen3", "model.layers.0.self_attn.q_proj.bias", &[64]),
        ("qwen3", "model.layers.1.self_attn.q_proj.scale", &[1]),
        ("qwen3", "model.layers.7.self_attn.q_proj.weight", &[64, 32]),
        ("qwen2", "lm_head.bias", &[320]),
        ("qwen2", "model.norm.bias", &[32]),
        ("gpt2", "transformer.h.0.attn.c_new.weight", &[4, 4]),
        ("glm4moe", "model.layers.0.mlp.experts.gate_up_proj", &[8, 64, 32]),
        ("qwen3next", "model.layers.1.linear_attn.in_proj_ba.weight", &[4, 32]),
    ];
    for &(family, name, shape) in added {
        let folder = folder();
        let model = copy_of(family, folder.path());
        curmerge!("run", model, "-p", "a", "-n", "1").done();
        add_tensor(&model, name, shape);
        let line = curmerge!("run", model, "-p", "a", "-n", "1").refusal();
        assert_says(&line, &["tensor", "not supported"]);
    }
}

/// All names that transformers' class accepts give the activation of the family. Others are refused.
#[test]
fn activations_are_those_that_the_class_accepts() {
    for family in ALL {
        let folder = folder();
        let model = copy_of(family, folder.path());
        let activation = Family::open(family).architecture().hugging_face.activation;
        let set = |name: Value| {
            change(&model.join("config.json"), |json| json[activation.key] = name);
            Base::open(&model).map(|base| base.config().clone())
        };
        let usual = set(Value::Null).unwrap();
        for name in activation.names {
            assert_eq!(set(json!(name)).unwrap(), usual, "{family}: {name}");
        }
        for name in ["gelu_python", "relu"].into_iter().filter(|name| !activation.names.contains(name)) {
            let line = set(json!(name)).unwrap_err().to_string();
            assert_says(&line, &["config.json", activation.key, name]);
        }
    }
    // "gelu" is exact elsewhere. Gemma 1's class does not read `hidden_activation`, and Gemma 2's not
    // `hidden_act`.
    for (family, key, accepted) in [
        ("gemma", "hidden_act", true),
        ("gemma", "hidden_activation", true),
        ("gemma2", "hidden_activation", false),
        ("gemma2", "hidden_act", true),
        ("gpt2", "activation_function", false),
        ("llama2", "hidden_act", false),
    ] {
        let folder = folder();
        let model = copy_of(family, folder.path());
        change(&model.join("config.json"), |json| json[key] = json!("gelu"));
        assert_eq!(Base::open(&model).is_ok(), accepted, "{family}: {key}");
    }
}

/// Of Falcon, the models without rotary embeddings (Falcon-RW), and those whose two parts follow one another.
#[test]
fn variants_of_falcon_are_refused_by_name() {
    for (key, value) in [("alibi", true), ("parallel_attn", false)] {
        let folder = folder();
        let model = copy_of("falcon", folder.path());
        change(&model.join("config.json"), |json| json[key] = json!(value));
        let line = curmerge!("run", model, "-p", "a", "-n", "1").refusal();
        assert_says(&line, &["config.json", key, "not supported"]);
    }
}

/// Falcon 7B has one key and value head, whatever `num_kv_heads` says. Falcon 2 has several, and one norm.
#[test]
fn forms_of_falcon_are_told_by_its_keys() {
    let folder = folder();
    let model = copy_of("falcon", folder.path());
    let set = |key: &str, value: Value| {
        change(&model.join("config.json"), |json| json[key] = value);
        Base::open(&model).map(|base| (base.config().kv_heads, base.config().two_norms))
    };
    assert_eq!(set("num_kv_heads", json!(4)).unwrap(), (1, false));
    assert!(set("multi_query", json!(false)).unwrap_err().to_string().contains("shape"));
    set("num_kv_heads", json!(1)).unwrap();
    let line = set("new_decoder_architecture", json!(true)).unwrap_err().to_string();
    assert_says(&line, &["attn_norm_2", "missing"]);
    assert_eq!(set("num_ln_in_parallel_attn", json!(1)).unwrap(), (1, false));
    assert!(Base::open(family("falcon-40b", "hf")).unwrap().config().two_norms);
}

/// llama.cpp always computes the tanh formula, so the folder gives the file's numbers.
#[test]
fn gpt_neox_may_have_the_tanh_formula() {
    let folder = folder();
    let model = copy_of("gptneox", folder.path());
    let text = folder.path().join("text.txt");
    fs::write(&text, "a quick brown fox jumps over it").unwrap();
    let loss = |model: &Path| {
        curmerge!("eval", model, "--data", &text, "--json").done().json()["loss"].as_f64().unwrap()
    };
    let (exact, of_file) = (loss(&model), loss(&family("gptneox", "model.gguf")));
    for name in ["gelu_fast", "gelu_new"] {
        change(&model.join("config.json"), |json| json["hidden_act"] = json!(name));
        assert!((loss(&model) - of_file).abs() < 1e-6 && (exact - of_file).abs() > 1e-5, "{exact} {of_file}");
        let ran = curmerge!("convert", &model, folder.path().join("out.gguf")).done();
        assert!(!ran.stderr.contains("GELU"), "{}", ran.stderr);
    }
}

#[test]
fn the_vision_part_of_a_model_is_named() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let text = |text: &str| Some(GgufValue::String(text.into()));
    let made = Remade::of(&family("llama2", "model.gguf")).set("general.type", text("mmproj"));
    made.set("general.architecture", text("clip")).write(&path("mmproj.gguf"));
    let line = curmerge!("run", path("mmproj.gguf"), "-p", "a").refusal();
    assert_says(&line, &["mmproj.gguf", "vision or audio part", "name the file of the language model"]);
    let told = curmerge!("inspect", path("mmproj.gguf")).done().stdout;
    assert!(
        told.contains("the vision or audio part of a model: llama.cpp takes it beside the model"),
        "{told}"
    );
    curmerge!("convert", path("mmproj.gguf"), path("out.gguf"), "--type", "q8_0").done();
}

/// Older programs stored masks, which are computed instead.
#[test]
fn masks_in_a_folder_are_passed_over() {
    let folder = folder();
    let model = copy_of("gptneox", folder.path());
    add_tensor(&model, "gpt_neox.layers.0.attention.bias", &[1, 1, 4, 4]);
    add_tensor(&model, "gpt_neox.layers.0.attention.masked_bias", &[]);
    curmerge!("run", &model, "-p", "a", "-n", "1").done();
    curmerge!("convert", &model, folder.path().join("out.gguf")).done();
}

#[test]
fn added_tokens_may_have_no_embedding() {
    let folder = folder();
    let model = copy_of("qwen3", folder.path());
    let config: Value = serde_json::from_slice(&fs::read(model.join("config.json")).unwrap()).unwrap();
    let rows = config["vocab_size"].as_u64().unwrap();
    let token = json!({"id": rows, "content": "<image>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    change(&model.join("tokenizer.json"), |json| {
        let taken = |token: &Value| token["id"].as_u64().unwrap();
        let last = json["added_tokens"].as_array().unwrap().iter().map(taken).max().unwrap();
        // The tokenizers crate numbers added tokens from the last id on.
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        for id in last.max(vocab.len() as u64) + 1..rows {
            vocab.insert(format!("filling{id}"), json!(id));
        }
        json["added_tokens"].as_array_mut().unwrap().push(token);
    });
    curmerge!("run", model, "-p", "a", "-n", "1").done();
    assert_says(
        &curmerge!("run", model, "-p", "a <image>", "-n", "1").refusal(),
        &["<image>", "no embedding"],
    );
}

#[test]
fn empty_matrices_and_vectors_are_no_targets() {
    let folder = folder();
    let model = copy_of("qwen3", folder.path());
    change(&model.join("config.json"), |json| json["model_type"] = json!("other"));
    add_tensor(&model, "nothing", &[4, 0]);
    let out = folder.path().join("a.safetensors");
    for name in ["nothing", "model.norm"] {
        let line = curmerge!("select", model, "--targets", name, "--rank", "2", "-o", out).refusal();
        assert_says(&line, &[name, "not a target"]);
    }
    curmerge!("select", model, "--targets", "model.layers.0.mlp.up_proj", "--rank", "2", "-o", out).done();
}
