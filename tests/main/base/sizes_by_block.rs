//! Models whose blocks differ in their sizes: every form of saying so is read alike, and what contradicts itself is refused.

use std::path::Path;

use curmerge::base::Base;
use curmerge_formats::gguf::{Array, Value};
use serde_json::{Value as Json, json};

use crate::support::fixture::family;
use crate::support::folder::copy;
use crate::support::remade::Remade;

/// A copy of the fixture's folder with these keys of config.json; null takes a key away.
fn folder(name: &str, keys: &Json) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&family(name, "hf"), &folder.path().join("model"));
    let config = folder.path().join("model/config.json");
    let mut json: Json = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    for (key, value) in keys.as_object().unwrap() {
        match value {
            Json::Null => drop(json.as_object_mut().unwrap().remove(key)),
            value => json[key] = value.clone(),
        }
    }
    std::fs::write(&config, json.to_string()).unwrap();
    folder
}

/// Takes a tensor out of a safetensors file.
fn without(path: &Path, name: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Json = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut data = bytes.split_off(8 + length);
    let taken = header.as_object_mut().unwrap().remove(name).unwrap();
    let [start, end] = [0, 1].map(|i| taken["data_offsets"][i].as_u64().unwrap());
    data.drain(start as usize..end as usize);
    for (_, tensor) in header.as_object_mut().unwrap().iter_mut().filter(|(key, _)| *key != "__metadata__") {
        for i in [0, 1] {
            let at = tensor["data_offsets"][i].as_u64().unwrap();
            tensor["data_offsets"][i] = json!(if at >= end { at - (end - start) } else { at });
        }
    }
    let header = header.to_string().into_bytes();
    let parts = [&(header.len() as u64).to_le_bytes()[..], &header, &data];
    std::fs::write(path, parts.concat()).unwrap();
}

fn refused(path: &Path, words: &[&str]) {
    let error = Base::open(path).unwrap_err().to_string();
    assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
}

/// transformers 5.23 writes the sizes of blocks, by numbers that may begin with zeros, and of all blocks if asked to.
#[test]
fn sizes_of_blocks_take_the_place_of_the_global_ones() {
    let right = Base::open(family("gemma4", "hf")).unwrap();
    let (local, global) = (
        json!({"head_dim": 16, "num_key_value_heads": 2}),
        json!({"head_dim": 32, "num_key_value_heads": 1}),
    );
    for listed in [
        json!({ "3": global }),
        json!({ "03": global }),
        json!({ "0": local, "1": local, "2": local, "3": global }),
    ] {
        let keys =
            json!({"per_layer_config": listed, "global_head_dim": null, "num_global_key_value_heads": null});
        let folder = folder("gemma4", &keys);
        let base = Base::open(folder.path().join("model")).unwrap();
        assert_eq!(base.config(), right.config(), "{listed}");
    }
    let odd = folder("gemma4", &json!({"per_layer_config": {"1": {"head_dim": 32}, "3": global}}));
    refused(&odd.path().join("model"), &["per_layer_config", "block 1 has other heads"]);
}

/// The class ignores the key, which Gemma 3's reads.
#[test]
fn scores_of_gemma_4_are_never_scaled() {
    let folder = folder("gemma4", &json!({"query_pre_attn_scalar": 256}));
    assert_eq!(Base::open(folder.path().join("model")).unwrap().config().attention_scale, 1.0);
}

#[test]
fn folders_that_contradict_themselves_are_refused() {
    for (name, keys, words) in [
        ("gemma4-e", json!({"num_kv_shared_layers": 5}), &["share keys", "5 of 5"][..]),
        ("gemma4-e", json!({"num_kv_shared_layers": 4}), &["share keys", "none before has those of block"]),
        ("gemma4-e", json!({"vocab_size_per_layer_input": 300}), &["inputs of tokens", "300 tokens"]),
        ("gemma4-e", json!({"hidden_size_per_layer_input": 1 << 23}), &["inputs for every block"]),
        ("gemma4", json!({"use_bidirectional_attention": "all"}), &["use_bidirectional_attention"]),
        ("gemma4", json!({"rope_parameters": null}), &["rope_parameters"]),
        ("lfm2", json!({"conv_L_cache": 1 << 20}), &["taps of the convolutions"]),
    ] {
        let folder = folder(name, &keys);
        refused(&folder.path().join("model"), words);
    }
}

#[test]
fn files_that_contradict_themselves_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("odd.gguf");
    let key = |family: &str, name: &str| format!("{family}.{name}");
    let numbers = |numbers: Vec<i32>| Value::Array(Array::I32(numbers));
    for (name, family_key, value, words) in [
        ("gemma4", "attention.head_count_kv", numbers(vec![2, 2]), &["head_count_kv", "every block"][..]),
        ("gemma4", "attention.head_count_kv", numbers(vec![2, 2, 0, 1]), &["key/value head count"]),
        ("gemma4", "attention.value_length_swa", Value::U32(8), &["value_length_swa"]),
        ("gemma4-e", "attention.shared_kv_layers", Value::U32(9), &["shared_kv_layers", "block 0"]),
        ("gemma4-e", "attention.shared_kv_layers", Value::U32(4), &["shared_kv_layers"]),
        ("gemma4-e", "embedding_length_per_layer_input", Value::U32(u32::MAX), &["inputs for every block"]),
        ("gemma4-e", "rope.dimension_count_swa", Value::U32(u32::MAX - 1), &["rotary length"]),
        ("lfm2", "attention.head_count_kv", numbers(vec![0, 1]), &["head_count_kv", "every block"]),
        ("lfm2", "attention.head_count_kv", numbers(vec![1, 0, 2, 0]), &["head_count_kv", "differ"]),
        ("lfm2", "shortconv.l_cache", Value::U32(0), &["taps of the convolutions"]),
    ] {
        let file = family(name, "model.gguf");
        let architecture = name.split('-').next().unwrap();
        Remade::of(&file).set(&key(architecture, family_key), Some(value)).write(&path);
        refused(&path, words);
    }
    Remade::of(&family("gemma4", "model.gguf")).without("rope_freqs.weight").write(&path);
    refused(&path, &["rope_freqs", "missing"]);
}

/// llama.cpp's own saver writes the key, which only the dense Granite reads.
#[test]
fn a_granite_moe_always_has_positions() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("made.gguf");
    let file = family("granitemoe", "model.gguf");
    Remade::of(&file).set("granitemoe.rope.scaling.finetuned", Some(Value::Bool(false))).write(&path);
    assert_eq!(Base::open(&path).unwrap().config(), Base::open(&file).unwrap().config());
}

/// One number of heads for all blocks is what a list of equal ones is: the fixture's first block is then attention, whose
/// matrices it lacks.
#[test]
fn kinds_of_blocks_are_read_from_numbers_and_lists() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("made.gguf");
    for heads in [Value::Array(Array::I32(vec![1; 4])), Value::U32(1)] {
        let file = family("lfm2", "model.gguf");
        Remade::of(&file).set("lfm2.attention.head_count_kv", Some(heads)).write(&path);
        refused(&path, &["blk.0.attn_q", "missing"]);
    }
    for (kinds, words) in [
        (json!(["full_attention", "conv", "full_attention", "conv"]), &["blk.0.attn_q", "missing"][..]),
        (json!(["conv", "conv", "sliding_attention", "conv"]), &["layer_types", "block 2 is neither"]),
        (json!(["conv", "conv"]), &["layer_types", "block 2 is neither"]),
    ] {
        let folder = folder("lfm2", &json!({"layer_types": kinds}));
        refused(&folder.path().join("model"), words);
    }
}

#[test]
fn a_head_that_llama_cpp_needs_is_not_left_out() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["olmoe", "qwen2moe"] {
        let folder = folder(name, &json!({}));
        without(&folder.path().join("model/model.safetensors"), "lm_head.weight");
        let line =
            curmerge!("convert", folder.path().join("model"), scratch.path().join("out.gguf")).refusal();
        assert!(line.contains("lm_head"), "{line}");
    }
}

#[test]
fn names_with_many_parts_are_names_of_nothing() {
    let base = Base::open(family("gemma4-moe", "model.gguf")).unwrap();
    assert!(base.place("blk.0.ffn_gate_up_exps[1][up]").is_some());
    for name in
        ["blk.0.ffn_gate_up_exps[1][down]", "blk.0.ffn_gate_up_exps[9][up]", "blk.0.ffn_gate_up_exps[up]"]
    {
        assert!(base.place(name).is_none(), "{name}");
    }
    assert!(base.place(&format!("blk.0.x{}", "[0]".repeat(1 << 20))).is_none());
}
