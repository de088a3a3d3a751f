//! GGUF files and Hugging Face folders converted to folders with an ONNX model: the files beside it, and what
//! is refused.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::families::{Container, Family};
use crate::support::folder::{copy, names};
use crate::support::program;
use crate::support::remade::Remade;

#[test]
fn folders_have_the_files_that_other_programs_need() {
    let out = tempfile::tempdir().unwrap();
    let family = Family::open("llama3");
    let source = copied(&family, &out.path().join("source"), |_| ());
    std::fs::create_dir(source.join("extra")).unwrap();
    std::fs::write(source.join("extra/notes.txt"), "kept").unwrap();
    std::fs::write(source.join("pytorch_model.bin"), "weights in another form").unwrap();
    let made = out.path().join("made");
    curmerge!("convert", source, made, "--format", "onnx", "--type", "f16", "--external-data").done();
    assert_eq!(std::fs::read_to_string(made.join("extra/notes.txt")).unwrap(), "kept");
    let right =
        ["config.json", "extra", "model.onnx", "model.onnx_data", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(names(&made), right);
    let config = |folder: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
    };
    let (mut made_config, source_config) = (config(&made), config(&source));
    let settings = made_config.as_object_mut().unwrap().remove("transformers.js_config").unwrap();
    assert_eq!(made_config, source_config);
    let right = json!({ "dtype": "fp32", "kv_cache_dtype": "float16", "use_external_data_format": true });
    assert_eq!(settings, right);

    // From a GGUF file, they are generated.
    let of_gguf = out.path().join("of-gguf");
    curmerge!("convert", family.path(Container::Gguf), of_gguf, "--format", "onnx").done();
    assert_eq!(config(&of_gguf)["model_type"], "llama");
    assert!(of_gguf.join("tokenizer.json").is_file() && of_gguf.join("generation_config.json").is_file());
    let refused = curmerge!("convert", source, made, "--format", "onnx").refusal();
    assert!(refused.contains("already exists"), "{refused}");
    curmerge!("convert", source, made, "--format", "onnx", "--force").done();
    assert!(!made.join("model.onnx_data").exists());
}

#[test]
fn only_the_language_model_of_a_vision_model_is_written() {
    let out = tempfile::tempdir().unwrap();
    let family = Family::open("gemma3");
    let mut text = Value::Null;
    let source = copied(&family, &out.path().join("source"), |config| {
        text = config.take();
        let mut inner = text.clone();
        inner.as_object_mut().unwrap().retain(|key, _| key != "architectures" && key != "eos_token_id");
        *config = json!({
            "architectures": ["Gemma3ForConditionalGeneration"],
            "model_type": "gemma3",
            "eos_token_id": [1, 106],
            "text_config": inner,
            "vision_config": { "hidden_size": 8 },
        });
    });
    for name in ["preprocessor_config.json", "processor_config.json", "notes.txt"] {
        std::fs::write(source.join(name), "{}").unwrap();
    }
    let made = out.path().join("made");
    let ran = curmerge!("convert", source, made, "--format", "onnx", "--genai", "--json").json();
    assert!(ran["notes"].to_string().contains("preprocessor_config.json"), "{ran}");
    let read =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(made.join(name)).unwrap()).unwrap() };
    let mut config = read("config.json");
    config.as_object_mut().unwrap().remove("transformers.js_config").unwrap();
    // architectures and model_type are those of the text model.
    text["eos_token_id"] = json!([1, 106]);
    assert_eq!(config, text);
    let genai = &read("genai_config.json")["model"];
    assert_eq!((&genai["bos_token_id"], &genai["eos_token_id"]), (&json!(2), &json!([1, 106])));
    assert!(made.join("notes.txt").is_file() && made.join("tokenizer.json").is_file());
    assert!(!made.join("preprocessor_config.json").exists() && !made.join("processor_config.json").exists());
}

#[test]
fn impossible_conversions_are_refused_and_write_nothing() {
    let out = tempfile::tempdir().unwrap();
    let at = |name: &str| out.path().join(name);
    let llama = Family::open("llama3").path(Container::Gguf);
    let shared = Family::open("qwen2moe").path(Container::Folder);
    let states = Family::open("granite4-h").path(Container::Gguf);
    let refused = |words: &[&OsStr], says: &str| {
        let mut all: Vec<&OsStr> = vec!["convert".as_ref()];
        all.extend(words);
        let line = program::run(&all).refusal();
        assert!(line.contains(says), "{line}");
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0, "{line}");
    };
    let (onnx, folder, gguf) = (at("out.onnx"), at("out"), at("out.gguf"));
    let with = |input: &PathBuf, output: &PathBuf, more: &[&str], says: &str| {
        let mut all = vec![input.as_os_str(), output.as_os_str()];
        all.extend(more.iter().map(OsStr::new));
        refused(&all, says);
    };
    with(&shared, &onnx, &[], "shared ones");
    with(&states, &folder, &["--format", "onnx"], "state spaces");
    with(&llama, &onnx, &["--type", "q8_0"], "not stored as Q8_0; use f32, f16, q4_0 or q4_1 (--type)");
    with(&llama, &onnx, &["--force"], "for folders");
    with(&llama, &onnx, &["--imatrix", "none"], "without an importance matrix");
    with(&llama, &onnx, &["--max-shard-size", "1G"], "for safetensors files");
    with(&llama, &gguf, &["--format", "onnx"], "ends like a GGUF file's");
    with(
        &llama,
        &gguf,
        &["--type", "f16", "--external-data"],
        "--external-data, --genai and --lora-inputs are for ONNX models",
    );
    with(
        &llama,
        &folder,
        &["--external-data"],
        "--external-data, --genai and --lora-inputs are for ONNX models",
    );
    let falcon = Family::open("falcon").path(Container::Folder);
    with(&falcon, &onnx, &["--lora-inputs", "all"], "some hold the rows of several in groups");
    // A value that half precision cannot hold.
    let source = tempfile::tempdir().unwrap();
    let large = source.path().join("large.gguf");
    Remade::of(&llama).with("blk.0.attn_v.weight", &[64, 32], &[7e4; 2048]).write(&large);
    with(&large, &onnx, &["--type", "f16"], "model.layers.0.self_attn.v_proj.weight");
    // The same for vectors, and for blocks of four bits.
    let qwen = Family::open("qwen2");
    Remade::of(&qwen.path(Container::Gguf)).with("blk.0.attn_v.bias", &[16], &[7e4; 16]).write(&large);
    with(
        &large,
        &onnx,
        &["--type", "f16"],
        "v_proj.bias', rows from 0: value 0 is 70000, which F16 cannot hold",
    );
    for (name, dims, option, says) in [
        ("attn_norm", &[64][..], "f32", "input_layernorm.weight', rows from 0: value 1 is NaN"),
        ("attn_v", &[64, 32], "q4_1", "v_proj.weight', rows from 0: value 1 is NaN, which Q4_1 cannot hold"),
    ] {
        let mut values = vec![1.0; dims.iter().product::<u64>() as usize];
        values[1] = f32::NAN;
        Remade::of(&llama).with(&format!("blk.0.{name}.weight"), dims, &values).write(&large);
        with(&large, &onnx, &["--type", option], says);
    }
    // Each position needs a row of cosines.
    let long = copied(&qwen, &source.path().join("long"), |config| {
        config["max_position_embeddings"] = json!((1 << 20) + 1);
    });
    with(&long, &folder, &["--format", "onnx", "--genai"], "lower max_position_embeddings of config.json");
}

/// A copy of a family's folder with a changed configuration.
fn copied(family: &Family, to: &Path, change: impl FnOnce(&mut Value)) -> PathBuf {
    copy(&family.path(Container::Folder), to);
    let path = to.join("config.json");
    let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
    to.to_path_buf()
}
