//! LoRAs with all experts of a layer in one tensor: PEFT's `target_parameters`, and llama.cpp's third
//! dimension. They merge as the same matrices do one by one.

use std::fs;
use std::path::Path;

use curmerge::base::Base;
use curmerge::lora::{Lora, peft};
use curmerge::merge::{MergeOptions, Source, merge};
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{GgufLayout, NewTensor, Value};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::json;

use super::lora::write;
use crate::support::{fixture, tiny};

const RANK: usize = 3;
/// The model's width and that of an expert, which are equal in the fixture.
const WIDTH: usize = 32;

type Tensors = Vec<(String, [u64; 2], Vec<f32>)>;

/// Random numbers.
fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut stream = ChaCha20Rng::seed_from_u64(seed);
    (0..count).map(|_| 0.1 * tiny::uniform(&mut stream)).collect()
}

/// A and B of one expert of `gate_up_proj` (B of both halves) or `down_proj`.
struct Expert {
    a: Vec<f32>,
    b: Vec<f32>,
}

/// So many experts of a parameter with this many rows.
fn experts(count: usize, seed: u64, rows: usize) -> Vec<Expert> {
    let one = |e: usize| Expert {
        a: random(seed + 2 * e as u64, RANK * WIDTH),
        b: random(seed + 2 * e as u64 + 1, rows * RANK),
    };
    (0..count).map(one).collect()
}

/// PEFT's tensors of all experts of a parameter.
fn stacked(module: &str, experts: &[Expert], rows: usize) -> Tensors {
    let a = experts.iter().flat_map(|expert| expert.a.clone()).collect();
    let count = experts.len();
    let column = |row: usize| (0..RANK).flat_map(move |k| (0..count).map(move |e| (row, k, e)));
    let b = (0..rows).flat_map(column).map(|(row, k, e)| experts[e].b[row * RANK + k]).collect();
    let wide = (count * RANK) as u64;
    vec![
        (format!("{module}.lora_A.weight"), [wide, WIDTH as u64], a),
        (format!("{module}.lora_B.weight"), [rows as u64, wide], b),
    ]
}

fn configure(folder: &Path, parameters: &[&str]) {
    fs::create_dir_all(folder).unwrap();
    let config =
        json!({ "peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_parameters": parameters });
    fs::write(folder.join(peft::CONFIG), config.to_string()).unwrap();
}

/// The merged weights.
fn merged(base: &Base, adapter: &Path, out: &Path) -> Vec<u8> {
    let lora = Lora::open(adapter, base).unwrap();
    let options = MergeOptions { force: true, ..Default::default() };
    merge(base, &[(Source::Lora(&lora), 1.0)], &options, out, |_, _| {}).unwrap();
    let file = if out.is_dir() { out.join("model.safetensors") } else { out.into() };
    fs::read(file).unwrap()
}

#[test]
fn stacked_experts_merge_as_single_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let base = Base::open(fixture::family("qwen3moe", "hf")).unwrap();
    let (up, down) = (experts(8, 1, 2 * WIDTH), experts(8, 101, WIDTH));
    let layer = "base_model.model.model.layers.1.mlp.experts";
    // One by one.
    let single = |(e, name, a, b): (usize, &str, &[f32], &[f32])| {
        let module = format!("{layer}.{e}.{name}_proj");
        [
            (format!("{module}.lora_A.weight"), [RANK as u64, WIDTH as u64], a.to_vec()),
            (format!("{module}.lora_B.weight"), [WIDTH as u64, RANK as u64], b.to_vec()),
        ]
    };
    let of = |e: usize| {
        let (gate, rest) = up[e].b.split_at(WIDTH * RANK);
        let all =
            [(e, "gate", &up[e].a, gate), (e, "up", &up[e].a, rest), (e, "down", &down[e].a, &down[e].b)];
        all.map(|(e, name, a, b)| single((e, name, &a[..], b)))
    };
    let tensors: Tensors = (0..up.len()).flat_map(of).flatten().collect();
    configure(&path("single"), &[]);
    write(&path("single").join(peft::WEIGHTS), &tensors);
    let right = merged(&base, &path("single"), &path("out"));

    let both = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"];
    configure(&path("stacked"), &both);
    let inner = stacked(&format!("{layer}.base_layer"), &up, 2 * WIDTH);
    let tensors = [inner, stacked(layer, &down, WIDTH)].concat();
    write(&path("stacked").join(peft::WEIGHTS), &tensors);
    assert!(merged(&base, &path("stacked"), &path("out")) == right);

    // llama.cpp's, into the model as GGUF, beside the single ones.
    let gguf = Base::open(fixture::family("qwen3moe", "model.gguf")).unwrap();
    let right = merged(&gguf, &path("single"), &path("out.gguf"));
    write_gguf("qwen3moe", &path("lora.gguf"), &up, &down);
    assert!(merged(&gguf, &path("lora.gguf"), &path("out.gguf")) == right);

    // A parameter that is not there, and other experts.
    configure(&path("stacked"), &[both[0], both[1], "mlp.gate.weight"]);
    let error = Lora::open(path("stacked"), &base).unwrap_err().to_string();
    assert!(error.contains("target_parameters") && error.contains("'mlp.gate.weight'"), "{error}");
    configure(&path("stacked"), &both[..1]);
    let error = Lora::open(path("stacked"), &base).unwrap_err().to_string();
    assert!(error.contains("base_layer"), "{error}");
    let dense = Base::open(fixture::family("qwen3", "hf")).unwrap();
    configure(&path("stacked"), &both);
    let error = Lora::open(path("stacked"), &dense).unwrap_err().to_string();
    assert!(error.contains("which the base does not have"), "{error}");
}

/// PEFT's B has the rows in the order of the parameter: those of gate and up alternate.
#[test]
fn rows_of_gpt_oss_alternate() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (up, down) = (experts(4, 1, 2 * WIDTH), experts(4, 101, WIDTH));
    let gguf = Base::open(fixture::family("gpt-oss", "model.gguf")).unwrap();
    write_gguf("gpt-oss", &path("lora.gguf"), &up, &down);
    let right = merged(&gguf, &path("lora.gguf"), &path("out.gguf"));

    let alternate = |expert: &Expert| {
        let (gate, up) = expert.b.split_at(WIDTH * RANK);
        let rows = gate.chunks(RANK).zip(up.chunks(RANK)).flat_map(|(gate, up)| [gate, up].concat());
        Expert { a: expert.a.clone(), b: rows.collect() }
    };
    let alternating: Vec<Expert> = up.iter().map(alternate).collect();
    configure(&path("stacked"), &["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]);
    let layer = "base_model.model.model.layers.1.mlp.experts";
    let inner = stacked(&format!("{layer}.base_layer"), &alternating, 2 * WIDTH);
    write(&path("stacked").join(peft::WEIGHTS), &[inner, stacked(layer, &down, WIDTH)].concat());
    assert!(merged(&gguf, &path("stacked"), &path("out.gguf")) == right);

    // A folder has them in one tensor, which is not taken apart.
    let base = Base::open(fixture::family("gpt-oss", "hf")).unwrap();
    let lora = Lora::open(path("stacked"), &base).unwrap();
    let sources = [(Source::Lora(&lora), 1.0)];
    let error = merge(&base, &sources, &MergeOptions::default(), path("out"), |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("down_proj") && error.to_string().contains(".gguf"), "{error}");
}

/// The same adapter as convert_lora_to_gguf.py writes it.
fn write_gguf(architecture: &str, path: &Path, up: &[Expert], down: &[Expert]) {
    let text = |key: &str, value: &str| (key.to_owned(), Value::String(value.into()));
    let metadata = [
        text("general.architecture", architecture),
        text("general.type", "adapter"),
        text("adapter.type", "lora"),
        ("adapter.lora.alpha".to_owned(), Value::F32(RANK as f32)),
    ];
    let half = WIDTH * RANK;
    let parts: [(&str, &[Expert], std::ops::Range<usize>); 3] = [
        ("ffn_gate_exps", up, 0..half),
        ("ffn_up_exps", up, half..2 * half),
        ("ffn_down_exps", down, 0..half),
    ];
    let (mut tensors, mut values) = (Vec::new(), Vec::new());
    for (name, experts, rows) in parts {
        let dims = |one: usize, two: usize| vec![one as u64, two as u64, up.len() as u64];
        let tensor = |part, dims| NewTensor {
            name: format!("blk.1.{name}.weight.lora_{part}"),
            dtype: DType::F32,
            dims,
        };
        tensors.extend([tensor("a", dims(WIDTH, RANK)), tensor("b", dims(RANK, WIDTH))]);
        values.push(experts.iter().flat_map(|expert| expert.a.clone()).collect::<Vec<_>>());
        values.push(experts.iter().flat_map(|expert| expert.b[rows.clone()].to_vec()).collect());
    }
    let layout = GgufLayout::new(3, 32, &metadata, tensors).unwrap();
    let mut file = layout.header().to_vec();
    for (place, values) in layout.tensors().iter().zip(values) {
        file.resize(place.offset as usize, 0);
        file.extend(values.iter().flat_map(|x: &f32| x.to_le_bytes()));
    }
    file.resize(layout.file_bytes() as usize, 0);
    fs::write(path, file).unwrap();
}
