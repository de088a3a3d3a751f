//! Hugging Face folders of every architecture converted to GGUF files and back, against llama.cpp's
//! converter. `fixtures/arch/README.md` describes the folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use curmerge::base::Base;
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{Gguf, Value};
use curmerge_formats::safetensors::{NewSafeTensor, SafeTensor, SafeTensors, SafeTensorsLayout};
use curmerge_formats::sha256_hex;
use serde_json::{Value as Json, json};

use crate::support::families::ALL;
use crate::support::fixture;
use crate::support::folder::copy;
use crate::support::gguf_key;

/// Names of pre-tokenizers that split texts the same way: the one that the fixtures told the converter to
/// use, since no hash of such a small vocabulary is known, and the one that curmerge finds from the pipeline.
const ALIKE: [(&str, &str); 3] = [("dbrx", "smaug-bpe"), ("refact", "smollm"), ("glm4", "llama-bpe")];

fn fixture(name: &str) -> PathBuf {
    fixture::path("arch").join(name)
}

/// A copy of a folder with changed keys of config.json. Its name is the one that the converter saw.
fn changed(name: &str, scratch: &Path, keys: Json) -> PathBuf {
    let folder = scratch.join(name).join("hf");
    let _ = fs::remove_dir_all(&folder);
    copy(&fixture(name).join("hf"), &folder);
    let path = folder.join("config.json");
    let mut json: Json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in keys.as_object().unwrap() {
        json[key] = value.clone();
    }
    fs::write(path, json.to_string()).unwrap();
    folder
}

/// The folder of a fixture, without what a GGUF file cannot express and the converter silently drops.
fn expressible(name: &str, scratch: &Path) -> PathBuf {
    match name {
        "gemma2" => changed(name, scratch, json!({"query_pre_attn_scalar": 32})),
        "gpt-oss" => {
            let config: Json =
                serde_json::from_slice(&fs::read(fixture(name).join("hf/config.json")).unwrap()).unwrap();
            let mut rope = config["rope_parameters"].clone();
            rope["truncate"] = true.into();
            changed(name, scratch, json!({"rope_parameters": rope}))
        }
        _ => fixture(name).join("hf"),
    }
}

#[test]
fn files_equal_those_of_the_converter() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out.gguf");
    for &name in ALL {
        curmerge!("convert", expressible(name, scratch.path()), out, "--type", "bf16").done();
        let (ours, theirs) =
            (Gguf::open(&out).unwrap(), Gguf::open(&fixture(name).join("model.gguf")).unwrap());
        let keys = |gguf: &Gguf| gguf.metadata().to_vec();
        let (mut keys_of_ours, keys_of_theirs) = (keys(&ours), keys(&theirs));
        for ((key, value), (_, other)) in keys_of_ours.iter_mut().zip(&keys_of_theirs) {
            let same =
                |(told, known): &&(&str, &str)| other.as_str() == Some(told) && value.as_str() == Some(known);
            if let Some((told, _)) = ALIKE.iter().find(same).filter(|_| key == "tokenizer.ggml.pre") {
                *value = Value::String((*told).into());
            }
        }
        for (our, their) in keys_of_ours.iter().zip(&keys_of_theirs) {
            assert_eq!(our, their, "{name}");
        }
        assert_eq!(keys_of_ours.len(), keys_of_theirs.len(), "{name}");
        let tensors = |gguf: &Gguf| -> Vec<_> {
            let all = gguf.tensors().iter();
            all.map(|t| (t.name.clone(), t.dtype, t.dims.clone(), gguf.data(t).to_vec())).collect()
        };
        for (our, their) in tensors(&ours).iter().zip(&tensors(&theirs)) {
            assert_eq!((&our.0, our.1, &our.2), (&their.0, their.1, &their.2), "{name}");
            assert!(our.3 == their.3, "{name}: the bytes of {}", our.0);
        }
        assert_eq!(ours.tensors().len(), theirs.tensors().len(), "{name}");
        if keys(&ours) == keys_of_theirs {
            let bytes = |path: &Path| fs::read(path).unwrap();
            assert!(bytes(&out) == bytes(&fixture(name).join("model.gguf")), "{name}: the file's bytes");
        }
    }
}

/// Converts a folder to each type and compares the digests with those of the converter's and llama-quantize's
/// files. Returns the number of types.
fn same_in_every_type(name: &str, folder: &Path, out: &Path) -> usize {
    let goldens: Json = serde_json::from_slice(&fs::read(fixture("converted.json")).unwrap()).unwrap();
    let goldens = goldens[name].as_object().unwrap();
    for (file_type, digest) in goldens {
        match file_type.as_str() {
            "auto" => curmerge!("convert", folder, out).done(),
            file_type => curmerge!("convert", folder, out, "--type", file_type).done(),
        };
        let found = sha256_hex(&fs::read(out).unwrap());
        assert_eq!(found, digest.as_str().unwrap(), "{name} as {file_type}");
    }
    goldens.len()
}

#[test]
fn files_of_every_type_equal_those_of_the_converter_and_llama_quantize() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out.gguf");
    for &name in ALL {
        let types = same_in_every_type(name, &expressible(name, scratch.path()), &out);
        assert_eq!(types, 7, "{name}");
    }
}

type Tensors = BTreeMap<String, (DType, Vec<u64>, Vec<u8>)>;

/// Writes the tensors of a folder.
fn write_tensors(folder: &Path, tensors: &Tensors) {
    let new = tensors.iter().map(|(name, (dtype, shape, _))| NewSafeTensor {
        name: name.clone(),
        dtype: *dtype,
        shape: shape.clone(),
    });
    let layout = SafeTensorsLayout::new(&BTreeMap::new(), new.collect()).unwrap();
    let all = tensors.values().map(|(.., bytes)| &bytes[..]);
    let bytes: Vec<&[u8]> = std::iter::once(layout.header()).chain(all).collect();
    fs::write(folder.join("model.safetensors"), bytes.concat()).unwrap();
}

#[test]
fn biases_survive_conversion_there_and_back() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = changed("llama2", scratch.path(), json!({"attention_bias": true, "mlp_bias": true}));
    let mut tensors = tensors_of(&folder);
    let matrices: Vec<(String, u64)> = tensors
        .iter()
        .filter_map(|(name, (_, shape, _))| Some((name.strip_suffix("_proj.weight")?.to_owned(), shape[0])))
        .collect();
    for (name, rows) in matrices {
        // BF16: the upper half of an f32.
        let value = |i: u64| ((((i % 7) as f32 / 4.0 - 0.5).to_bits() >> 16) as u16).to_le_bytes();
        let bytes = (0..rows).flat_map(value).collect();
        tensors.insert(format!("{name}_proj.bias"), (DType::BF16, vec![rows], bytes));
    }
    write_tensors(&folder, &tensors);
    let (out, back) = (scratch.path().join("out.gguf"), scratch.path().join("back"));
    same_in_every_type("biases", &folder, &out);
    curmerge!("convert", folder, out, "--type", "bf16").done();
    curmerge!("convert", out, back).done();
    assert!(tensors_of(&back) == tensors);
    assert_eq!(Base::open(&back).unwrap().config(), Base::open(&folder).unwrap().config());
    // In transformers, either all matrices of attention have biases or none.
    tensors.retain(|name, _| !name.ends_with("o_proj.bias"));
    write_tensors(&folder, &tensors);
    curmerge!("convert", folder, out, "--type", "bf16").done();
    let ran = curmerge!("convert", out, scratch.path().join("none"));
    assert!(ran.status == Some(1) && ran.stderr.contains("attention_bias"), "{}", ran.stderr);
}

/// As Qwen publishes them, and transformers does not write them.
#[test]
fn experts_may_be_in_one_tensor() {
    let scratch = tempfile::tempdir().unwrap();
    let name = "qwen3_5-moe";
    let plain = fixture(name).join("hf");
    let folder = changed(name, scratch.path(), json!({}));
    let mut tensors = tensors_of(&folder);
    let (experts, width) = (4, 32);
    for layer in 0..2 {
        let start = format!("model.layers.{layer}.mlp.experts.");
        let mut part = |part: &str, expert: usize| {
            tensors.remove(&format!("{start}{expert}.{part}_proj.weight")).unwrap().2
        };
        let (mut gate_up, mut down) = (Vec::new(), Vec::new());
        for expert in 0..experts {
            gate_up.extend([part("gate", expert), part("up", expert)].concat());
            down.extend(part("down", expert));
        }
        let shape = |outputs: u64| vec![experts as u64, outputs, width];
        tensors.insert(format!("{start}gate_up_proj"), (DType::BF16, shape(2 * width), gate_up));
        tensors.insert(format!("{start}down_proj"), (DType::BF16, shape(width), down));
    }
    write_tensors(&folder, &tensors);
    let [own, joined] = [&plain, &folder].map(|path| Base::open(path).unwrap());
    for canonical in own.tensors().keys() {
        let values = |base: &Base| base.weight(canonical).unwrap().vector();
        assert!(values(&own) == values(&joined), "{canonical}");
    }
    assert_eq!(own.tensors().len(), joined.tensors().len());
    assert_eq!(same_in_every_type("joined", &folder, &scratch.path().join("out.gguf")), 7);
}

#[test]
fn the_vision_part_is_left_out_with_a_warning() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = changed("gemma3", scratch.path(), json!({}));
    let config: Json = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    let vision = json!({"model_type": "siglip_vision_model", "hidden_size": 32});
    let config = json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": config,
        "vision_config": vision,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let inner = tensors_of(&folder);
    let ones = (DType::BF16, vec![32], [0x80, 0x3f].repeat(32));
    let vision_tensors =
        ["vision_tower.vision_model.post_layernorm.weight", "multi_modal_projector.mm_soft_emb_norm.weight"];
    for names in [
        |name: &str| format!("language_model.{name}"),
        |name: &str| name.replacen("model.", "model.language_model.", 1),
    ] {
        let mut tensors: Tensors = inner.iter().map(|(name, tensor)| (names(name), tensor.clone())).collect();
        tensors.extend(vision_tensors.map(|name| (name.to_owned(), ones.clone())));
        write_tensors(&folder, &tensors);
        let out = scratch.path().join("out.gguf");
        same_in_every_type("seeing", &folder, &out);
        let ran = curmerge!("convert", folder, out, "--type", "bf16").done();
        assert!(ran.stderr.contains("2 tensors of the vision part"), "{}", ran.stderr);
    }
}

/// Of a vision model whose own type is not known, the `text_config` tells what its language model is.
#[test]
fn the_language_model_of_a_vision_model_is_found() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    for name in ["ministral3", "mistral"] {
        let folder = changed(name, scratch.path(), json!({}));
        let (plain, seeing) = (path("plain.gguf"), path("seeing.gguf"));
        curmerge!("convert", folder, plain, "--type", "bf16").done();
        let config: Json = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
        let config = json!({
            "architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
            "text_config": config, "vision_config": {"model_type": "pixtral"},
        });
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
        let mut tensors: Tensors = Tensors::new();
        for (name, tensor) in tensors_of(&folder) {
            tensors.insert(format!("language_model.{name}"), tensor);
        }
        let ones = (DType::BF16, vec![32], [0x80, 0x3f].repeat(32));
        tensors.insert("vision_tower.ln_pre.weight".to_owned(), ones);
        write_tensors(&folder, &tensors);
        let ran = curmerge!("convert", folder, seeing, "--type", "bf16").done();
        assert!(ran.stderr.contains("1 tensors of the vision part"), "{}", ran.stderr);
        let values = |path: &Path| {
            let file = Gguf::open(path).unwrap();
            let bytes = |t: &_| file.data(t).to_vec();
            file.tensors().iter().map(|t| (t.name.clone(), bytes(t))).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(values(&plain), values(&seeing));
        fs::remove_file(&plain).unwrap();
        fs::remove_file(&seeing).unwrap();
    }
}

/// The language model of a Qwen-VL is a Qwen whose heads have parts with positions of their own in images alone.
#[test]
fn the_language_model_of_a_qwen_vl_is_a_qwen() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    for (name, outer, gguf) in [("qwen2", "qwen2_5_vl", "qwen2vl"), ("qwen3", "qwen3_vl", "qwen3vl")] {
        let (plain, seeing, back) = (fixture(name).join("hf"), path("seeing"), path("back"));
        copy(&plain, &seeing);
        let mut text: Json = serde_json::from_slice(&fs::read(plain.join("config.json")).unwrap()).unwrap();
        text["model_type"] = format!("{outer}_text").into();
        text["rope_scaling"] = json!({"type": "mrope", "mrope_section": [3, 3, 2], "rope_type": "default"});
        let config = json!({
            "architectures": ["VL"], "model_type": outer, "text_config": text,
            "vision_config": {"model_type": outer, "deepstack_visual_indexes": [0]},
        });
        fs::write(seeing.join("config.json"), config.to_string()).unwrap();
        let within = |name: &str| name.replacen("model.", "model.language_model.", 1);
        let inner = tensors_of(&plain);
        let mut tensors: Tensors =
            inner.iter().map(|(name, tensor)| (within(name), tensor.clone())).collect();
        let ones = (DType::BF16, vec![32], [0x80, 0x3f].repeat(32));
        tensors.insert("model.visual.merger.norm.weight".to_owned(), ones);
        write_tensors(&seeing, &tensors);

        let likeliest = |model: &Path| {
            let found =
                curmerge!("run", model, "-p", "a cat is", "-n", "3", "--logprobs", "4", "--json").json();
            found["logprobs"].clone()
        };
        let own = likeliest(&plain);
        assert_eq!(likeliest(&seeing), own, "{name}");
        let out = path(&format!("{gguf}.gguf"));
        let ran = curmerge!("convert", seeing, out, "--type", "bf16").done();
        assert!(ran.stderr.contains("1 tensors of the vision part"), "{}", ran.stderr);
        let file = Gguf::open(&out).unwrap();
        assert_eq!(file.get("general.architecture").and_then(Value::as_str), Some(gguf));
        let sections = file.get(&format!("{gguf}.rope.dimension_sections")).unwrap();
        assert_eq!(sections.as_i32s(), Some(vec![3, 3, 2, 0]));
        assert_eq!(likeliest(&out), own, "{name}");
        curmerge!("convert", out, back, "--force").done();
        let written: Json = serde_json::from_slice(&fs::read(back.join("config.json")).unwrap()).unwrap();
        assert_eq!(written["model_type"], name);
        assert_eq!(tensors_of(&back), inner);
        fs::remove_dir_all(&seeing).unwrap();
    }
}

/// Converts a folder, which must be refused with a line that contains `parts`, and write nothing.
#[track_caller]
fn refused(folder: &Path, parts: &[&str]) {
    let out = folder.with_extension("gguf");
    let line = curmerge!("convert", folder, out, "--type", "f32").refusal();
    assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    assert!(!out.exists());
}

#[test]
fn configurations_that_gguf_cannot_express_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let refuse =
        |name: &str, keys: Json, parts: &[&str]| refused(&changed(name, scratch.path(), keys), parts);
    refuse("gemma2", json!({}), &["config.json", "query_pre_attn_scalar", "gemma2"]);
    let scale = json!(32);
    let gemma2 = |key: &str, value: Json| json!({"query_pre_attn_scalar": scale, key: value});
    refuse("gemma2", gemma2("rope_theta", json!(20000.0)), &["rope_theta", "20000"]);
    refuse("gemma2", gemma2("attn_logit_softcapping", Json::Null), &["attn_logit_softcapping", "null"]);
    refuse("gemma2", gemma2("layer_types", json!(vec!["full_attention"; 4])), &["layer_types", "no block"]);
    refuse(
        "gemma2",
        gemma2("layer_types", json!(vec!["sliding_attention"; 4])),
        &["layer_types", "not all but every 2"],
    );
    refuse("gemma3", json!({"attn_logit_softcapping": 5.0}), &["attn_logit_softcapping", "5"]);
    refuse("gemma3", json!({"sliding_window_pattern": 3}), &["layer_types", "every 6th"]);
    let linear = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 300.0});
    let both = json!({"full_attention": linear, "sliding_attention": linear});
    refuse("gemma3-linear", json!({"rope_parameters": both}), &["rope_parameters", "window"]);
    let llama3 = json!({
        "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    });
    refuse("qwen2", json!({"rope_scaling": llama3}), &["rope_parameters", "'llama3'"]);
    refuse(
        "phi3",
        json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        &["rope_parameters", "'linear'"],
    );
    let mut long: Json =
        serde_json::from_slice(&fs::read(fixture("phi3-long").join("hf/config.json")).unwrap()).unwrap();
    long["rope_scaling"]["attention_factor"] = json!(2.0);
    refuse("phi3-long", json!({"rope_scaling": long["rope_scaling"]}), &["attention_factor", "2"]);
    refuse("qwen3moe", json!({"norm_topk_prob": false}), &["norm_topk_prob"]);
    refuse("llama2", json!({"residual_multiplier": 0.5}), &["residual_multiplier", "0.5"]);
    let other = json!({"no_rope_layers": [1, 1, 0, 1, 1]});
    refuse("smollm3", other, &["no_rope_layers", "block 2 has no rotary embedding"]);
    // Without a window in any block, no block is rotated.
    refuse("exaone4", json!({"sliding_window": 4096}), &["block 0 has no rotary embedding"]);
    let default = json!({
        "rope_type": "default", "rope_theta": 5000.0, "llama_4_scaling_beta": 0.1,
        "original_max_position_embeddings": 12,
    });
    refuse("ministral3", json!({"rope_parameters": default}), &["llama_4_scaling_beta", "without YaRN"]);
}

#[test]
fn configurations_that_no_program_reads_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out.safetensors");
    let refuse = |name: &str, keys: Json, parts: &[&str]| {
        let folder = changed(name, scratch.path(), keys);
        let line = curmerge!("run", folder, "-p", "a", "-n", "1").refusal();
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    };
    refuse("cohere2", json!({"sliding_window": null}), &["sliding_window: missing"]);
    let swapped = json!({"rope_type": "yarn", "factor": 4.0, "beta_fast": 1.0, "beta_slow": 2.0});
    refuse("qwen3-yarn", json!({"rope_scaling": swapped}), &["beta_fast: smaller than beta_slow"]);
    refuse("ministral3", json!({"rope_parameters": null}), &["llama_4_scaling_beta: missing"]);
    let file = scratch.path().join("cohere2.gguf");
    gguf_key::set(&fixture("cohere2").join("model.gguf"), "attention.sliding_window", Value::U32(0), &file);
    let line = curmerge!("run", file, "-p", "a", "-n", "1").refusal();
    assert!(line.contains("cohere2.attention.sliding_window: missing or 0"), "{line}");
    // Of the vision models of other makers, matrices are found by their names.
    let folder = changed(
        "llama2",
        scratch.path(),
        json!({"model_type": "llava", "text_config": {"model_type": "llama"}}),
    );
    assert_eq!(curmerge!("inspect", folder, "--json").json()["support"]["level"], "by name");
    curmerge!("select", folder, "-o", out, "--targets", "model.layers.0.self_attn.q_proj", "--rank", "4")
        .done();
}

#[test]
fn windows_that_llama_cpp_ignores_are_noted() {
    let scratch = tempfile::tempdir().unwrap();
    for (name, window) in [("mistral", "7 tokens"), ("phi3", "9 tokens")] {
        let ran = curmerge!("convert", fixture(name).join("hf"), scratch.path().join("out.gguf")).done();
        assert!(ran.stderr.contains(window), "{name}: {}", ran.stderr);
    }
}

/// The type, shape and bytes of every tensor of a folder, by name.
fn tensors_of(folder: &Path) -> Tensors {
    let file = SafeTensors::open(&folder.join("model.safetensors")).unwrap();
    let tensor = |t: &SafeTensor| {
        let bytes = file.bytes()[t.offset as usize..(t.offset + t.bytes) as usize].to_vec();
        (t.name.clone(), (t.dtype, t.shape.clone(), bytes))
    };
    file.tensors().iter().map(tensor).collect()
}

/// Keys of a GGUF file that are lost or changed in a folder made from it: one of several names of a
/// pre-tokenizer, and keys that no model reads.
const LOST: [&str; 3] =
    ["tokenizer.ggml.pre", "tokenizer.ggml.add_sep_token", "tokenizer.ggml.seperator_token_id"];

#[test]
fn folders_made_from_the_files_equal_the_original_folders() {
    let scratch = tempfile::tempdir().unwrap();
    let (folder, out) = (scratch.path().join("made"), scratch.path().join("out.gguf"));
    // A folder made of MXFP4 has numbers in place of the codes.
    // The file of a dense Granite 4 becomes a folder of Granite's class.
    for &name in ALL.iter().filter(|name| !["gpt-oss-mxfp4", "granite4"].contains(name)) {
        let model = fixture(name).join("model.gguf");
        let answer = curmerge!("convert", model, folder, "--force", "--json").done().json();
        assert_eq!(answer["type"], "BF16", "{name}");
        let (ours, theirs) = (tensors_of(&folder), tensors_of(&fixture(name).join("hf")));
        assert!(ours.keys().eq(theirs.keys()), "{name}: {:?}", ours.keys());
        for (tensor, (dtype, shape, bytes)) in &ours {
            let mut other = theirs[tensor].clone();
            // What chooses experts stays in F32, as transformers keeps it.
            if *dtype == DType::F32 {
                assert!(
                    tensor.ends_with("expert_bias") || tensor.ends_with("correction_bias"),
                    "{name}: {tensor}"
                );
                other.0 = DType::F32;
                other.2 = other.2.chunks_exact(2).flat_map(|half| [0, 0, half[0], half[1]]).collect();
            }
            assert_eq!((dtype, shape), (&other.0, &other.1), "{name}: {tensor}");
            assert!(*bytes == other.2, "{name}: the bytes of {tensor}");
        }
        // The folder made from the file lacks what the file cannot express.
        let mut wanted = Base::open(expressible(name, scratch.path())).unwrap().config().clone();
        if ["mistral", "starcoder2"].contains(&name) {
            (wanted.window, wanted.windowed) = (None, Vec::new());
        }
        // The converter writes contexts of its own, and rounds the raised base.
        match name {
            "hunyuan" => {
                wanted.context = 1 << 18;
                wanted.rope.iter_mut().for_each(|rope| rope.base = f64::from(rope.base as f32));
            }
            "granite4-h" | "granite4-h-moe" | "nemotron_h" | "nemotron_h_moe" | "nemotron_h_moe-super" => {
                wanted.context = 1 << 20;
                // Of a model with experts alone, files have no width of an MLP.
                wanted.ff =
                    wanted.experts.filter(|_| name.starts_with("nemotron")).map_or(wanted.ff, |own| own.ff);
            }
            "internlm2" => wanted.rope.iter_mut().for_each(|rope| rope.longest = None),
            _ => {}
        }
        assert_eq!(*Base::open(&folder).unwrap().config(), wanted, "{name}");
        let words = [&model, &folder].map(|path| Base::open(path).unwrap().tokenizer().unwrap());
        for text in [
            "Some words, 12345 of them.\n\n\tGrüße  日本 🙂 <|im_end|>",
            " it's  the end</s><end_of_turn>",
            "",
        ] {
            let [of_file, of_folder] =
                words.each_ref().map(|tokenizer| tokenizer.encode(text, true).unwrap());
            assert_eq!(of_file, of_folder, "{name}: {text:?}");
        }
        curmerge!("convert", folder, out, "--type", "bf16").done();
        let (again, model) = (Gguf::open(&out).unwrap(), Gguf::open(&model).unwrap());
        let said = |gguf: &Gguf| -> BTreeMap<String, String> {
            // The folder has the raised base itself.
            let lost = |key: &str| LOST.contains(&key) || key.starts_with("hunyuan-dense.rope.scaling.");
            let all = gguf.metadata().iter().filter(|(key, _)| key != "general.name" && !lost(key));
            let text = |value: &Value| match value.as_i32s() {
                // A folder does not mark tokens as unused.
                Some(kinds) => {
                    format!(
                        "{:?}",
                        kinds.iter().map(|&kind| if kind == 5 { 1 } else { kind }).collect::<Vec<_>>()
                    )
                }
                None => format!("{value:?}"),
            };
            all.map(|(key, value)| (key.clone(), text(value))).collect()
        };
        let (keys, wanted) = (said(&again), said(&model));
        assert!(keys.keys().eq(wanted.keys()), "{name}: {:?}", keys.keys());
        for (key, value) in &keys {
            assert_eq!(*value, wanted[key], "{name}: {key}");
        }
        assert_eq!(again.tensors().len(), model.tensors().len(), "{name}");
        for tensor in again.tensors() {
            let other = model.tensor(&tensor.name).unwrap();
            assert!(
                tensor.dtype == other.dtype && again.data(tensor) == model.data(other),
                "{name}: {}",
                tensor.name
            );
        }
    }
}
