//! Folders that other programs quantized: GPTQ, AWQ, fp8 and compressed-tensors.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use curmerge::Base;
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::Gguf;
use curmerge_formats::{SafeTensors, sha256_hex};
use serde_json::{Value, json};

use crate::support::adapter::{Recipe, random};
use crate::support::fixture;
use crate::support::folder::copy;

/// Copies of all folders of fixtures/quantized with a tokenizer.
fn folders() -> (tempfile::TempDir, Vec<(String, PathBuf)>) {
    let scratch = tempfile::tempdir().unwrap();
    let mut found = Vec::new();
    for name in goldens().into_keys() {
        let folder = scratch.path().join(&name);
        fs::create_dir(&folder).unwrap();
        let (own, tokenizer) = (fixture::path("quantized").join(&name), fixture::path("arch/llama2/hf"));
        for file in ["config.json", "model.safetensors"] {
            fs::copy(own.join(file), folder.join(file)).unwrap();
        }
        for file in ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"] {
            fs::copy(tokenizer.join(file), folder.join(file)).unwrap();
        }
        found.push((name, folder));
    }
    (scratch, found)
}

/// For each folder the digests of the tensors of a GGUF file in F32.
fn goldens() -> BTreeMap<String, BTreeMap<String, String>> {
    serde_json::from_str(&fs::read_to_string(fixture::path("quantized/goldens.json")).unwrap()).unwrap()
}

fn digests(file: &Path) -> BTreeMap<String, String> {
    let gguf = Gguf::open(file).unwrap();
    let digest = |at: u64, bytes: u64| sha256_hex(&gguf.bytes()[at as usize..][..bytes as usize]);
    gguf.tensors().iter().map(|t| (t.name.clone(), digest(t.offset, t.bytes))).collect()
}

#[test]
fn every_form_has_the_numbers_that_other_programs_read() {
    let (_scratch, folders) = folders();
    let goldens = goldens();
    assert_eq!(folders.len(), 10);
    for (name, folder) in folders {
        let out = folder.join("out.gguf");
        curmerge!("convert", &folder, &out, "--type", "f32").done();
        assert_eq!(digests(&out), goldens[&name], "{name}");
        let base = Base::open(&folder).unwrap();
        for matrix in base.targets("all", None).unwrap() {
            let weight = base.weight(&matrix).unwrap();
            let single: Vec<f32> = (0..weight.rows())
                .flat_map(|row| {
                    let mut values = vec![0.0; weight.cols()];
                    weight.decode_row(row, &mut values);
                    values
                })
                .collect();
            assert_eq!(weight.vector(), single, "{name} {matrix}");
            let mut part = vec![0.0; 7 * weight.cols()];
            weight.decode_rows(9..16, &mut part);
            assert_eq!(part, single[9 * weight.cols()..][..7 * weight.cols()], "{name} {matrix}");
        }
    }
}

#[test]
fn they_are_trained_merged_and_inspected() {
    let (_scratch, folders) = folders();
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data.jsonl");
    fs::write(&data, "{\"text\": \"a quick brown fox\"}\n{\"text\": \"jumps over it\"}\n").unwrap();
    for (name, folder) in folders {
        let path = |ending: &str| scratch.path().join(format!("{name}.{ending}"));
        let [trained, adapter, merged, plain, small] =
            ["a", "b", "merged.gguf", "plain.gguf", "small.gguf"].map(path);
        curmerge!("build", &folder, "--data", &data, "-o", &trained, "--rank", "4", "--anchor", "none")
            .done();
        let base = Base::open(&folder).unwrap();
        let made = Recipe { scale: 1.0, ..Recipe::default() }.adapter(&base, random(1.0, 1));
        made.write(&adapter, &[]).unwrap();
        let loss = |model: &Path, adapter: Option<&Path>| {
            let ran = match adapter {
                Some(adapter) => curmerge!("eval", model, "--adapter", adapter, "--data", &data, "--json"),
                None => curmerge!("eval", model, "--data", &data, "--json"),
            };
            ran.json()["loss"].as_f64().unwrap()
        };
        // The numbers themselves, then in F16 with a line that says so.
        curmerge!("merge", &folder, &adapter, "-o", &merged, "--type", "f32").done();
        let beside = loss(&folder, Some(&adapter));
        let error = (loss(&merged, None) - beside).abs();
        assert!(error < 1e-4 && (loss(&folder, None) - beside).abs() > 20.0 * error, "{name} {error}");
        let said = curmerge!("merge", &folder, &adapter, "-o", &plain).done();
        assert!(said.stderr.contains("the merged model is stored in F16"), "{}", said.stderr);
        assert!((loss(&plain, None) - beside).abs() < 1e-2, "{name}");
        curmerge!("convert", &folder, &small, "--type", "q8_0").done();
        // A folder with the numbers in the half precision of the embedding, or in another type, whole or in shards.
        let [half, whole, shards] = ["half", "whole", "shards"].map(path);
        let said = curmerge!("merge", &folder, &adapter, "-o", &half).done();
        assert!(said.stderr.contains("the merged folder has its numbers in F16"), "{}", said.stderr);
        assert!((loss(&half, None) - beside).abs() < 1e-2, "{name}");
        let config = fs::read_to_string(half.join("config.json")).unwrap();
        assert!(!config.contains("quantization_config") && config.contains("\"float16\""), "{config}");
        curmerge!("merge", &folder, &adapter, "-o", &whole, "--type-adapted", "f32").done();
        assert!((loss(&whole, None) - beside).abs() < 1e-4, "{name}");
        curmerge!(
            "merge",
            &folder,
            &adapter,
            "-o",
            &shards,
            "--type-adapted",
            "f32",
            "--max-shard-size",
            "20K"
        )
        .done();
        assert_eq!(loss(&shards, None), loss(&whole, None));
        assert!(shards.join("model.safetensors.index.json").exists());
        assert_eq!(Base::open(&half).unwrap().quantized_by(), None);
        let told = curmerge!("inspect", &folder).done().stdout;
        let method = base.quantized_by().unwrap();
        assert!(told.contains(method), "{told}");
    }
}

#[test]
fn other_forms_and_damage_are_named() {
    let (_scratch, folders) = folders();
    let folder = &folders.iter().find(|(name, _)| name == "gptq4").unwrap().1;
    let config = folder.join("config.json");
    let own: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let with = |settings: Value| {
        let mut changed = own.clone();
        changed["quantization_config"] = settings;
        fs::write(&config, changed.to_string()).unwrap();
        Base::open(folder).map(|_| ()).map_err(|error| error.to_string())
    };
    let group = |weights: Value| json!({"group_0": {"weights": weights}});
    let compressed = |format: &str, weights: Value| json!({"quant_method": "compressed-tensors", "format": format, "config_groups": group(weights)});
    for (settings, wanted) in [
        (json!({"quant_method": "bitsandbytes", "load_in_4bit": true}), "by bitsandbytes, which is not read"),
        (json!({"quant_method": "gptq", "bits": 5}), "by GPTQ with other than 2, 3, 4 or 8 bits"),
        (
            json!({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}),
            "by GPTQ in the format marlin",
        ),
        (
            json!({"quant_method": "gptq", "bits": 4, "dynamic": {"a": {"bits": 8}}}),
            "settings for single matrices",
        ),
        (json!({"quant_method": "awq", "bits": 4, "version": "gemv"}), "by AWQ in the version gemv"),
        (json!({"quant_method": "fp8", "fmt": "e5m2"}), "by fp8 in the format e5m2"),
        (
            compressed("nvfp4-pack-quantized", json!({"num_bits": 4, "type": "float"})),
            "in the format nvfp4-pack",
        ),
        (compressed("pack-quantized", json!({"num_bits": 4, "actorder": "group"})), "reordered inputs"),
    ] {
        let error = with(settings).unwrap_err();
        let mend = "use the model that it was made from, or a GGUF file of it";
        assert!(error.contains(wanted) && error.contains(mend), "{error}");
    }
    // Settings that do not fit the tensors.
    for settings in [json!({"quant_method": "gptq", "bits": 8}), json!({"quant_method": "awq", "bits": 4})] {
        let error = with(settings).unwrap_err();
        assert!(error.contains("qweight': the tensors beside it are missing, or of another"), "{error}");
    }
    let (_, awq) = folders.iter().find(|(name, _)| name == "awq").unwrap();
    let text = fs::read_to_string(awq.join("config.json")).unwrap();
    fs::write(awq.join("config.json"), text.replace("\"group_size\": 16", "\"group_size\": 24")).unwrap();
    let error = Base::open(awq).unwrap_err().to_string();
    assert!(error.contains("qweight': the tensors beside it are missing, or of another"), "{error}");
    assert_eq!(with(own["quantization_config"].clone()), Ok(()));
    // Older folders keep the settings apart.
    fs::write(folder.join("quantize_config.json"), own["quantization_config"].to_string()).unwrap();
    let mut plain = own.clone();
    plain.as_object_mut().unwrap().remove("quantization_config");
    fs::write(&config, plain.to_string()).unwrap();
    assert_eq!(Base::open(folder).unwrap().quantized_by(), Some("GPTQ"));
}

#[test]
fn a_lone_shard_with_an_index_merges_into_a_folder_that_opens() {
    let (_scratch, folders) = folders();
    let folder = &folders.iter().find(|(name, _)| name == "fp8").unwrap().1;
    let shard = "model-00001-of-00001.safetensors";
    fs::rename(folder.join("model.safetensors"), folder.join(shard)).unwrap();
    let file = curmerge_formats::SafeTensors::open(&folder.join(shard)).unwrap();
    let map: BTreeMap<&str, &str> =
        file.tensors().iter().map(|tensor| (tensor.name.as_str(), shard)).collect();
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    let base = Base::open(folder).unwrap();
    let [adapter, out] = ["a", "out"].map(|name| folder.with_file_name(name));
    Recipe::default().adapter(&base, random(1.0, 1)).write(&adapter, &[]).unwrap();
    curmerge!("merge", folder, &adapter, "-o", &out).done();
    let merged = Base::open(&out).unwrap();
    assert_eq!(merged.tensors().keys().collect::<Vec<_>>(), base.tensors().keys().collect::<Vec<_>>());
    assert!(!out.join("model.safetensors.index.json").exists());
}

/// Copies a fixture's folder and replaces tensors by codes of fp8 with the scales of blocks of 8 x 16 numbers.
fn in_fp8(family: &str, part: &str, to: &Path) {
    copy(&fixture::family(family, "hf"), to);
    let file = to.join("model.safetensors");
    let mut tensors: Vec<(String, &str, Vec<u64>, Vec<u8>)> = Vec::new();
    let stored = SafeTensors::open(&file).unwrap();
    for tensor in stored.tensors() {
        if !tensor.name.contains(part) || tensor.shape.len() != 2 {
            let dtype = if tensor.dtype == DType::BF16 { "BF16" } else { "F32" };
            tensors.push((tensor.name.clone(), dtype, tensor.shape.clone(), stored.data(tensor).to_vec()));
            continue;
        }
        let &[rows, columns] = &tensor.shape[..] else { panic!("{:?}", tensor.shape) };
        // All finite codes.
        let codes = (0..rows * columns).map(|i| (i * 89 % 0x7f) as u8 | ((i % 2) as u8) << 7);
        let scales = [rows.div_ceil(8), columns.div_ceil(16)];
        let scale = (0..scales[0] * scales[1]).flat_map(|i| (2e-4 * (1 + i) as f32).to_le_bytes());
        tensors.push((tensor.name.clone(), "F8_E4M3", tensor.shape.clone(), codes.collect()));
        tensors.push((format!("{}_scale_inv", tensor.name), "F32", scales.to_vec(), scale.collect()));
    }
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend(bytes);
        header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::from(header).to_string();
    drop(stored);
    fs::write(&file, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()).unwrap();
    let config = to.join("config.json");
    let mut settings: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    settings["quantization_config"] = json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [8, 16], "activation_scheme": "dynamic"});
    fs::write(&config, settings.to_string()).unwrap();
}

#[test]
fn matrices_that_share_a_tensor_keep_all_their_rows() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data.jsonl");
    fs::write(&data, "{\"text\": \"a quick brown fox\"}\n{\"text\": \"jumps over it\"}\n").unwrap();
    for (family, part) in [
        ("qwen3next", "in_proj_qkvz"),
        ("qwen3next", "out_proj"),
        ("granite4", "shared_mlp.input_linear"),
        ("granite4", "q_proj"),
        ("gptneox", "query_key_value"),
        ("phi3-long", "qkv_proj"),
    ] {
        let folder = scratch.path().join(format!("{family}-{part}"));
        in_fp8(family, part, &folder);
        let base = Base::open(&folder).unwrap();
        // The adapter is on the joined matrices, and on none of them.
        for targets in ["all", "o"] {
            let path = |ending: &str| scratch.path().join(format!("{family}-{part}-{targets}.{ending}"));
            let [adapter, merged, file] = ["a", "merged", "gguf"].map(path);
            let made = Recipe { scale: 1.0, targets, ..Recipe::default() }.adapter(&base, random(0.3, 1));
            made.write(&adapter, &[]).unwrap();
            let loss = |model: &Path, adapter: Option<&Path>| {
                let ran = match adapter {
                    Some(adapter) => {
                        curmerge!("eval", model, "--adapter", adapter, "--data", &data, "--json")
                    }
                    None => curmerge!("eval", model, "--data", &data, "--json"),
                };
                ran.json()["loss"].as_f64().unwrap()
            };
            let beside = loss(&folder, Some(&adapter));
            curmerge!("merge", &folder, &adapter, "-o", &merged, "--type-adapted", "f32").done();
            curmerge!("merge", &folder, &adapter, "-o", &file, "--type", "f32").done();
            let [in_folder, in_file] = [&merged, &file].map(|model| loss(model, None));
            let error = (in_folder - beside).abs().max((in_file - beside).abs());
            let change = (loss(&folder, None) - beside).abs();
            assert!(
                error < 1e-4 && change > 20.0 * error,
                "{family} {part} {targets} {beside} {in_folder} {in_file} {change}"
            );
        }
        let digests =
            || base.tensors().keys().filter_map(|name| Some(base.weight(name).ok()?.stored_sha256()));
        assert!(digests().all(|digest| digest != sha256_hex(b"")), "{family} {part}");
    }
}
