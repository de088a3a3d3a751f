//! Which files a name stands for.

use std::path::Path;

use super::choice::{Choice, Chooser, Wanted};
use super::missing_part;
use super::name::Name;

fn choose(name: &str, wanted: Wanted, files: &[&str]) -> Result<Choice, String> {
    let files: Vec<String> = files.iter().map(|&file| file.into()).collect();
    let name = Name::parse(name).unwrap();
    Chooser { name: &name, files: &files }.choose(wanted).map_err(|error| error.to_string())
}

#[track_caller]
fn opens(name: &str, wanted: Wanted, files: &[&str], opened: &[&str], downloaded: &[&str]) {
    let choice = choose(name, wanted, files).unwrap();
    assert_eq!(
        (choice.opened.as_slice(), choice.files.as_slice()),
        (&owned(opened)[..], &owned(downloaded)[..])
    );
}

fn owned(files: &[&str]) -> Vec<String> {
    files.iter().map(|&file| file.into()).collect()
}

#[track_caller]
fn asks(name: &str, wanted: Wanted, files: &[&str], problem: &str, listed: &[&str]) {
    let error = choose(name, wanted, files).unwrap_err();
    assert!(error.contains(problem), "{error}");
    listed.iter().for_each(|file| assert!(error.contains(file), "{error}"));
}

const GGUF: [&str; 8] = [
    ".gitattributes",
    "README.md",
    "config.json",
    "m-IQ4_XS.gguf",
    "m-Q4_K_M.gguf",
    "m-Q8_0-00001-of-00002.gguf",
    "m-Q8_0-00002-of-00002.gguf",
    "mmproj-F16.gguf",
];

#[test]
fn a_quantization_names_its_gguf_files() {
    let base = Wanted::Base;
    opens("hf:a/b", base, &GGUF, &["m-Q4_K_M.gguf"], &["m-Q4_K_M.gguf"]);
    opens("hf:a/b:iq4_xs", base, &GGUF, &["m-IQ4_XS.gguf"], &["m-IQ4_XS.gguf"]);
    let splits = ["m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"];
    opens("hf:a/b:Q8_0", base, &GGUF, &splits[..1], &splits);
    opens("hf:a/b:m-q8_0-00002-of-00002.gguf", base, &GGUF, &splits[..1], &splits);
    opens("hf:a/b", base, &["x.gguf", "y.gguf"], &["x.gguf"], &["x.gguf"]);
    opens("hf:a/b", base, &["a-BF16.gguf", "b-Q8_0.gguf"], &["b-Q8_0.gguf"], &["b-Q8_0.gguf"]);
    opens("hf:a/b:BF16", base, &["BF16/m.gguf", "Q2_K/m.gguf"], &["BF16/m.gguf"], &["BF16/m.gguf"]);
    asks(
        "hf:a/b:Q2_K",
        base,
        &GGUF,
        "no file, folder or quantization 'Q2_K'",
        &["m-IQ4_XS.gguf", "m-Q8_0-00001"],
    );
    let two = ["x-Q4_K_M.gguf", "y-Q4_K_M.gguf"];
    asks("hf:a/b:Q4_K_M", base, &two, "several models are 'Q4_K_M'", &two);
    asks("hf:a/b", base, &two, "several models are Q4_K_M", &two);
    asks("hf:a/b:Q8_0", base, &GGUF[..6], "splits of the model are missing", &["m-Q8_0-00001-of-00002.gguf"]);
    asks("hf:a/b:mmproj-F16.gguf", base, &GGUF, "belongs to a model and is none itself", &[]);
    asks(
        "hf:a/b",
        base,
        &["README.md", "pytorch_model.bin"],
        "no GGUF file, no folder",
        &["pytorch_model.bin"],
    );
    asks("hf:a/b", base, &[], "no GGUF file", &["no files that could be meant"]);
}

const FOLDER: [&str; 17] = [
    ".gitattributes",
    "LICENSE.txt",
    "README.md",
    "additional_chat_templates/tool_use.jinja",
    "chat_template.jinja",
    "config.json",
    "figures/a.png",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "modeling_b.py",
    "onnx/model.onnx",
    "original/consolidated.00.pth",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tokenizer.json",
    "tokenizer.model",
];

#[test]
fn a_folder_of_safetensors_comes_without_what_is_twice() {
    let small = [
        "LICENSE.txt",
        "README.md",
        "additional_chat_templates/tool_use.jinja",
        "chat_template.jinja",
        "config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer.model",
    ];
    opens("hf:a/b", Wanted::Base, &FOLDER, &[""], &small);
    assert_eq!(
        choose("hf:a/b", Wanted::Base, &FOLDER).unwrap().index.as_deref(),
        Some("model.safetensors.index.json")
    );
    let files = ["config.json", "m.gguf", "model.safetensors"];
    opens("hf:a/b", Wanted::Base, &files, &[""], &["config.json", "model.safetensors"]);
    let files = ["sub/config.json", "sub/model.safetensors", "tokenizer.json"];
    opens("hf:a/b:sub", Wanted::Base, &files, &["sub/"], &files[..2]);
    asks("hf:a/b:model-00001-of-00002.safetensors", Wanted::Base, &FOLDER, "leave it out", &[]);
}

#[test]
fn an_onnx_file_comes_with_what_is_beside_and_above_it() {
    let files = [
        "config.json",
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "onnx/model.onnx_data_1",
        "onnx/model_q4.onnx",
        "onnx/model_q4.onnx_data",
        "tokenizer.json",
    ];
    let downloaded = [
        "config.json",
        "tokenizer.json",
        "onnx/model.onnx_data",
        "onnx/model.onnx_data_1",
        "onnx/model.onnx",
    ];
    opens("hf:a/b:onnx/model.onnx", Wanted::Base, &files, &["onnx/model.onnx"], &downloaded);
    let q4 = ["config.json", "tokenizer.json", "onnx/model_q4.onnx_data", "onnx/model_q4.onnx"];
    opens("hf:a/b:onnx/model_q4.onnx", Wanted::Base, &files, &["onnx/model_q4.onnx"], &q4);
    asks("hf:a/b", Wanted::Base, &files, "several ONNX files", &["onnx/model.onnx", "onnx/model_q4.onnx"]);
    let one = ["genai_config.json", "model.onnx", "model.onnx.data"];
    opens(
        "hf:a/b",
        Wanted::Base,
        &one,
        &["model.onnx"],
        &["genai_config.json", "model.onnx.data", "model.onnx"],
    );
}

#[test]
fn adapters_are_folders_or_files() {
    let adapter = Wanted::Adapter;
    let peft = ["README.md", "adapter_config.json", "adapter_model.safetensors", "optimizer.pt"];
    opens("hf:a/b", adapter, &peft, &[""], &peft[..3]);
    opens("hf:a/b:adapter_model.safetensors", adapter, &peft, &[""], &peft[..3]);
    opens("hf:a/b", adapter, &["lora.gguf", "x.txt"], &["lora.gguf"], &["lora.gguf"]);
    opens("hf:a/b", adapter, &["sst2.safetensors"], &["sst2.safetensors"], &["sst2.safetensors"]);
    let steps = ["s/1/adapter_config.json", "s/1/adapters.safetensors", "s/2/adapter_config.json"];
    opens("hf:a/b:s/1", adapter, &steps, &["s/1/"], &steps[..2]);
    asks("hf:a/b:s/2", adapter, &steps, "not in a safetensors file", &["s/2/adapter_config.json"]);
    asks("hf:a/b", adapter, &["a.gguf", "b.gguf"], "several files", &["a.gguf", "b.gguf"]);
    asks("hf:a/b", adapter, &["README.md"], "no such adapter", &["README.md"]);
}

#[test]
fn data_are_files_folders_or_splits() {
    let data = Wanted::Data(|path: &Path| {
        path.extension().is_some_and(|ending| ending == "jsonl" || ending == "json" || ending == "parquet")
    });
    let files = [
        "README.md",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "dataset_infos.json",
        "trained/x.jsonl",
    ];
    opens("hf:a/b:train", data, &files, &files[2..4], &files[2..4]);
    opens("hf:a/b:data", data, &files, &files[1..4], &files[1..4]);
    opens("hf:a/b:trained/x.jsonl", data, &files, &files[5..], &files[5..]);
    opens("hf:a/b", data, &["README.md", "x.jsonl"], &["x.jsonl"], &["x.jsonl"]);
    asks("hf:a/b", data, &files, "several files of data", &files[1..4]);
    asks("hf:a/b:valid", data, &files, "no file or split 'valid'", &files[1..4]);
    asks("hf:a/b", data, &["README.md"], "no file of data", &["README.md"]);
}

#[test]
fn an_importance_matrix_has_the_word_in_its_name() {
    let files = ["m-Q4_K_M.gguf", "m.imatrix", "calibration.txt"];
    opens("hf:a/b", Wanted::ImportanceMatrix, &files, &["m.imatrix"], &["m.imatrix"]);
    opens("hf:a/b:m.imatrix", Wanted::ImportanceMatrix, &files, &["m.imatrix"], &["m.imatrix"]);
    asks("hf:a/b:x", Wanted::ImportanceMatrix, &files, "no such file", &["m.imatrix"]);
}

#[test]
fn parts_that_are_not_there_are_missed() {
    let files = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let data = files(&["data/train-00000-of-00002.parquet", "data/test-00000-of-00001.parquet"]);
    assert_eq!(missing_part(&data[0], &data).as_deref(), Some("data/train-00001-of-00002.parquet"));
    assert_eq!(missing_part(&data[1], &data), None);
    let gguf = files(&["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]);
    assert_eq!(missing_part(&gguf[0], &gguf), None);
    assert_eq!(missing_part(&gguf[1], &gguf[1..]).as_deref(), Some("m-00001-of-00002.gguf"));
    for name in ["one-of-many.jsonl", "a-of-2.gguf", "-of-", "x-1-of-00002", "é-of-1"] {
        assert_eq!(missing_part(name, &files(&[name])), None, "{name}");
    }
}
