//! Every architecture in llama.cpp: a base, its merged model, and the base with an exported LoRA.

use std::path::{Path, PathBuf};

use curmerge::base::Base;
use curmerge_formats::gguf::{Array, Value};

use crate::support::families::{Container, Family};
use crate::support::gguf_key;
use crate::support::next::{Next, difference, ours, theirs};
use crate::support::venv;

/// Longer than the models' windows, shorter than their contexts.
const PROMPTS: &[&str] = &[
    "The quick brown fox",
    "In the evening, when the wind comes from the west",
    "def add(a, b):\n    return a",
    "Grüße! 世界 12345",
];
/// The adapters' training data: too little to be useful, enough to change the outputs.
const DATA: &str = r#"{"prompt": "The river is", "completion": " red in the morning"}
{"prompt": "The capital of Norway", "completion": " is Oslo."}
"#;

/// The largest accepted difference of log-probabilities, due to another order of arithmetic.
const SAME: f64 = 1e-4;
/// The same if llama.cpp takes GELU from a table in F16.
const GELU_TABLE: f64 = 1e-2;

/// With as many, an adapter is trained less: they amplify what rounding changes.
const MANY_BLOCKS: usize = 16;

struct Made {
    folder: PathBuf,
    family: Family,
}

impl Made {
    /// The base's values in F32.
    fn f32(&self) -> PathBuf {
        self.folder.join("f32.gguf")
    }

    fn adapter(&self) -> PathBuf {
        self.folder.join("adapter.safetensors")
    }
}

/// A file in F32, since llama.cpp rounds activations if weights are BF16, and an adapter of all targets.
fn made(name: &str, at: &str) -> Made {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("architectures").join(at);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let made = Made { folder, family: Family::open(name) };
    let (base, data) = (made.family.path(Container::Gguf), made.folder.join("data.jsonl"));
    venv::ask("to_f32.py", &[base.as_os_str(), made.f32().as_os_str()], &[]);
    std::fs::write(&data, DATA).unwrap();
    let adapter = made.adapter();
    // In one precision, so that every processor trains the same.
    let lr = if Base::open(base.clone()).unwrap().config().layers >= MANY_BLOCKS { "0.01" } else { "0.1" };
    curmerge!(
        "build",
        base,
        "--data",
        data,
        "-o",
        adapter,
        "--targets",
        "all",
        "--rank",
        "4",
        "--protect",
        "none",
        "--precision",
        "f32",
        "--lr",
        lr,
    )
    .done();
    made
}

#[track_caller]
fn assert_same(what: &str, a: &[Next], b: &[Next], tolerance: f64) {
    let difference = difference(a, b);
    println!("{what}: log-probabilities differ by at most {difference:.1e}");
    assert!(difference < tolerance, "{what}: log-probabilities differ by {difference}");
}

fn check(name: &str) {
    let made = made(name, name);
    let llama = if made.family.has_gelu_table() { GELU_TABLE } else { SAME };
    let (f32, adapter) = (made.f32(), made.adapter());
    let (merged, lora) = (made.folder.join("merged.gguf"), made.folder.join("lora.gguf"));
    let base = ours(&f32, None, PROMPTS);
    assert_same("base in llama.cpp", &base, &theirs(&f32, None, PROMPTS), llama);
    curmerge!("merge", f32, adapter, "-o", merged).done();
    curmerge!("export", adapter, "--base", f32, "--format", "gguf", "-o", lora).done();
    let adapted = ours(&f32, Some(&adapter), PROMPTS);
    assert_same("merged", &adapted, &ours(&merged, None, PROMPTS), SAME);
    assert_same("merged in llama.cpp", &adapted, &theirs(&merged, None, PROMPTS), llama);
    assert_same("LoRA in llama.cpp", &adapted, &theirs(&f32, Some(&lora), PROMPTS), llama);
    let moved = difference(&adapted, &base);
    assert!(moved > 0.1, "the adapter changes too little ({moved}) for this test");

    // The same adapter on the folder.
    let (folder, merged) = (made.family.path(Container::Folder), made.folder.join("merged"));
    curmerge!("verify", adapter, "--base", folder).done();
    curmerge!("merge", folder, adapter, "-o", merged, "--type-adapted", "f32").done();
    let adapted = ours(&folder, Some(&adapter), PROMPTS);
    assert_same("merged folder", &adapted, &ours(&merged, None, PROMPTS), SAME);
    if !made.family.gguf_differs() {
        assert_same("folder", &ours(&folder, None, PROMPTS), &base, SAME);
    }
}

/// A key of GGUF alone, so that no golden of transformers has it.
#[test]
fn a_granite_without_positions_is_that_of_llama_cpp() {
    let made = made("granite", "granite-unrotated");
    let unrotated = made.folder.join("unrotated.gguf");
    gguf_key::set(&made.f32(), "rope.scaling.finetuned", Value::Bool(false), &unrotated);
    let own = ours(&unrotated, None, PROMPTS);
    assert_same("no positions in llama.cpp", &own, &theirs(&unrotated, None, PROMPTS), SAME);
    assert!(difference(&own, &ours(&made.f32(), None, PROMPTS)) > 0.1, "the key changes too little");
}

/// Files of the dense models of Granite 4: keys of the state spaces that they lack, and a number of heads a block.
#[test]
fn a_dense_granite_4_is_that_of_llama_cpp() {
    let made = made("granite", "granite-4");
    let [a, b] = ["a.gguf", "b.gguf"].map(|name| made.folder.join(name));
    let heads = Value::Array(Array::I32(vec![2, 2]));
    gguf_key::set(&made.f32(), "ssm.conv_kernel", Value::U32(4), &a);
    gguf_key::set(&a, "attention.head_count_kv", heads, &b);
    let own = ours(&b, None, PROMPTS);
    assert_same("Granite 4 in llama.cpp", &own, &theirs(&b, None, PROMPTS), SAME);
    assert_same("the same numbers", &own, &ours(&made.f32(), None, PROMPTS), SAME);
    gguf_key::set(&a, "attention.head_count_kv", Value::Array(Array::I32(vec![2, 1])), &b);
    let line = curmerge!("run", b, "-p", "a", "-n", "1").refusal();
    assert!(line.contains("granite.attention.head_count_kv: it is not one positive number"), "{line}");
}

/// The language models of Qwen-VL: a Qwen under another name, with the sections that llama.cpp needs.
#[test]
fn the_text_half_of_a_qwen_vl_is_that_of_llama_cpp() {
    for (name, gguf) in [("qwen2", "qwen2vl"), ("qwen3", "qwen3vl")] {
        let made = made(name, gguf);
        let [plain, renamed, seeing] =
            ["plain", "renamed", "seeing"].map(|name| made.folder.join(format!("{name}.gguf")));
        // llama.cpp's qwen2vl does not read the epsilon, and adds none.
        gguf_key::set(&made.f32(), "attention.layer_norm_rms_epsilon", Value::F32(1e-7), &plain);
        gguf_key::renamed(&plain, gguf, &renamed);
        let sections = Value::Array(Array::I32(vec![3, 3, 2, 0]));
        gguf_key::set(&renamed, "rope.dimension_sections", sections, &seeing);
        let own = ours(&seeing, None, PROMPTS);
        assert_same("text half in llama.cpp", &own, &theirs(&seeing, None, PROMPTS), SAME);
        assert_same("the same numbers", &own, &ours(&plain, None, PROMPTS), SAME);
    }
}

macro_rules! tests {
    ($($module:ident: $name:literal),* $(,)?) => {
        $(mod $module {
            #[test]
            fn llama_cpp_gives_the_same_probabilities() {
                super::check($name);
            }
        })*
    };
}

each_family!(tests);
