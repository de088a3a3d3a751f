//! GGUF files and Hugging Face folders as ONNX models: names and values by curmerge's own reader, and in the hands of
//! onnx's checker and onnxruntime. Names of tests that ask those begin with `client_`, to be skipped where there is no
//! Python.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use curmerge::base::Base;
use curmerge::cur::{Selection, fingerprint};
use curmerge::model::{Batch, Transformer};
use curmerge_formats::SafeTensors;
use curmerge_formats::adapter::Adapter;
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::GgufModel;
use curmerge_formats::onnx::{ElementType, Onnx};
use serde_json::{Value, json};

use crate::support::families::{Container, Family};
use crate::support::goldens::error;
use crate::support::remade::Remade;
use crate::support::{program, venv};

/// Calls a macro with the fixtures that ONNX models are made of: a name for a module, and the folder's.
macro_rules! each_convertible {
    ($call:ident) => {
        $call! {
            llama2: "llama2",
            llama3: "llama3",
            mistral: "mistral",
            qwen2: "qwen2",
            qwen3: "qwen3",
            gemma2: "gemma2",
            gemma3: "gemma3",
            gemma3_linear: "gemma3-linear",
            phi3: "phi3",
            phi3_long: "phi3-long",
            olmo2: "olmo2",
            granite: "granite",
        }
    };
}

/// The largest difference from curmerge's logits, relative to the largest, in F32.
const SAME: f64 = 1e-4;
/// The same where no frequencies are stretched far.
const CLOSE: f64 = 2e-5;

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The bytes of every weight by name; constants of the graph have names that begin with `/`.
fn weights(path: &Path) -> BTreeMap<String, (Vec<u64>, Vec<u8>)> {
    let onnx = Onnx::open(path).unwrap();
    let weights = onnx.graph().initializers.iter().filter(|tensor| !tensor.name.starts_with('/'));
    weights.map(|t| (t.name.clone(), (t.dims.clone(), onnx.data(t).unwrap().into_owned()))).collect()
}

/// What MatMulNBits makes of a matrix: `scale * (number - zero)`, number 2i in the lower half of byte i; rows `[out, in]`.
fn four_bits(weights: &BTreeMap<String, (Vec<u64>, Vec<u8>)>, name: &str) -> Vec<f32> {
    let (dims, numbers) = &weights[&format!("{name}_Q4")];
    let scales = f32s(&weights[&format!("{name}_scales")].1);
    let zeros = weights.get(&format!("{name}_zero_points")).map(|(_, bytes)| bytes);
    let (rows, blocks) = (dims[0] as usize, dims[1] as usize);
    let half = |byte: u8, odd: usize| if odd == 0 { byte & 15 } else { byte >> 4 };
    let mut values = Vec::new();
    for (row, block) in (0..rows).flat_map(|row| (0..blocks).map(move |block| (row, block))) {
        let zero = zeros.map_or(8, |zeros| half(zeros[row * blocks.div_ceil(2) + block / 2], block % 2));
        for i in 0..32 {
            let number = half(numbers[(row * blocks + block) * 16 + i / 2], i % 2);
            values.push(scales[row * blocks + block] * (f32::from(number) - f32::from(zero)));
        }
    }
    values
}

fn turned<T: Copy>(values: &[T], rows: usize) -> Vec<T> {
    let cols = values.len() / rows;
    (0..cols).flat_map(|c| (0..rows).map(move |r| values[r * cols + c])).collect()
}

/// The numbers of a tensor of a Hugging Face folder.
fn of_folder(family: &Family, name: &str) -> (Vec<u64>, Vec<f32>) {
    let file = SafeTensors::open(&family.path(Container::Folder).join("model.safetensors")).unwrap();
    let tensor = file.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    let mut values = vec![0.0; tensor.shape.iter().product::<u64>() as usize];
    curmerge_formats::quant::decode(tensor.dtype, file.data(tensor), &mut values).unwrap();
    (tensor.shape.clone(), values)
}

fn check_values(name: &str) {
    let (family, out) = (Family::open(name), tempfile::tempdir().unwrap());
    let [of_folder_, of_gguf] = ["folder.onnx", "gguf.onnx"].map(|name| out.path().join(name));
    curmerge!("convert", family.path(Container::Folder), of_folder_).done();
    curmerge!("convert", family.path(Container::Gguf), of_gguf).done();
    let found = weights(&of_folder_);
    assert_eq!(found, weights(&of_gguf), "of a GGUF file the same as of the folder");

    let mut matrices = 0;
    for (name, (dims, bytes)) in &found {
        let (mut shape, mut values) = of_folder(&family, name);
        if shape.len() == 2 && name != "model.embed_tokens.weight" {
            values = turned(&values, shape[0] as usize);
            shape.reverse();
        }
        if shape.len() == 1 && family.folder.ends_with(Path::new(name_of_gemma(&family))) {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
        matrices += usize::from(shape.len() == 2);
        assert_eq!(dims, &shape, "{name}");
        assert_eq!(&f32s(bytes), &values, "{name}");
    }
    assert!(matrices > 8, "{matrices} matrices");
}

/// The folder's own name if its norms are stored less one.
fn name_of_gemma(family: &Family) -> &str {
    let name = family.folder.file_name().and_then(OsStr::to_str).unwrap();
    if name.starts_with("gemma") { name } else { "none" }
}

fn sequences(family: &Family) -> Vec<Vec<u32>> {
    family.sequences().into_iter().map(|sequence| sequence.ids).collect()
}

/// curmerge's logits after every token of every sequence.
fn ours(model: &Path, sequences: &[Vec<u32>]) -> Vec<Vec<Vec<f64>>> {
    adapted(model, None, sequences)
}

/// The same with an adapter.
fn adapted(model: &Path, adapter: Option<&Adapter>, sequences: &[Vec<u32>]) -> Vec<Vec<Vec<f64>>> {
    let base = Base::open(model).unwrap_or_else(|e| panic!("{e}"));
    let mut transformer = Transformer::<f32>::new(&base).unwrap();
    if let Some(adapter) = adapter {
        transformer.attach(&adapter.targets, adapter.scale).unwrap();
    }
    let logits = |ids: &Vec<u32>| {
        transformer.for_context(ids.len()).unwrap();
        let mut batch = Batch::default();
        batch.push_sequence(ids);
        (0..ids.len()).for_each(|place| batch.predict(place, 0));
        let logits = transformer.logits(&batch);
        logits.rows().into_iter().map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect()
    };
    sequences.iter().map(logits).collect()
}

/// What onnxruntime says of a model that onnx's checker takes.
fn theirs(model: &Path, sequences: &[Vec<u32>]) -> Value {
    let words = [model.as_os_str(), OsStr::new("OUT")];
    venv::answer("onnx_decoder.py", &words, json!(sequences).to_string().as_bytes())
}

/// The largest difference of the logits.
fn apart(answer: &Value, right: &[Vec<Vec<f64>>]) -> f64 {
    rows_apart(&answer["logits"], right)
}

fn rows_apart(found: &Value, right: &[Vec<Vec<f64>>]) -> f64 {
    let found: Vec<Vec<Vec<f64>>> = serde_json::from_value(found.clone()).unwrap();
    assert_eq!(found.len(), right.len());
    let rows = found.into_iter().zip(right).flat_map(|(found, right)| {
        assert_eq!(found.len(), right.len());
        found.into_iter().zip(right)
    });
    rows.map(|(found, right)| error(found, right)).fold(0.0, f64::max)
}

fn check_logits(name: &str) {
    let (family, out) = (Family::open(name), tempfile::tempdir().unwrap());
    let sequences = sequences(&family);
    for container in [Container::Folder, Container::Gguf] {
        let (model, onnx) = (family.path(container), out.path().join(format!("{container:?}.onnx")));
        curmerge!("convert", model, onnx).done();
        let (answer, right) = (theirs(&onnx, &sequences), ours(&model, &sequences));
        let [cached, padded] = ["cached", "padded"].map(|key| answer[key].as_f64().unwrap());
        let apart = apart(&answer, &right);
        println!("{name}, {container:?}: {apart:.1e}, through the cache {cached:.1e}, padded {padded:.1e}");
        assert!(apart < SAME, "{name}: logits differ by {apart:e}");
        assert!(cached < 1e-5 && padded < 1e-5, "{name}: cached {cached:e}, padded {padded:e}");
    }
}

macro_rules! tests {
    ($($module:ident: $name:literal),* $(,)?) => {
        $(mod $module {
            #[test]
            fn weights_have_hugging_faces_names_and_values() {
                super::check_values($name);
            }

            #[test]
            fn client_onnxruntime_gives_the_same_logits() {
                super::check_logits($name);
            }
        })*
    };
}

each_convertible!(tests);

/// A fixture's GGUF file with all matrices in another type.
fn stored_as(name: &str, dtype: DType, folder: &Path) -> PathBuf {
    let path = folder.join(format!("{name}-{dtype}.gguf"));
    Remade::of(&Family::open(name).path(Container::Gguf)).stored_as(dtype).write(&path);
    path
}

#[test]
fn blocks_of_q4_0_are_kept_bit_for_bit() {
    let out = tempfile::tempdir().unwrap();
    for name in ["llama2", "qwen3", "phi3"] {
        let (model, four) = (stored_as(name, DType::Q4_0, out.path()), out.path().join("four.onnx"));
        let exact = out.path().join("exact.onnx");
        let answer = curmerge!("convert", model, four, "--type", "q4", "--json").json();
        assert_eq!(answer["notes"], json!([]), "nothing is rounded");
        curmerge!("convert", model, exact).done();
        let (found, right) = (weights(&four), weights(&exact));
        let mut matrices = 0;
        for (name, (dims, bytes)) in &right {
            if dims.len() == 1 || name == "model.embed_tokens.weight" {
                assert_eq!(&found[name].1, bytes, "{name}");
                continue;
            }
            let values = turned(&f32s(bytes), dims[0] as usize);
            let same = four_bits(&found, name).iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{name}");
            matrices += 1;
        }
        assert!(matrices > 8 && found.len() == right.len() + matrices);
    }
}

#[test]
fn client_onnxruntime_runs_models_of_four_bits() {
    let out = tempfile::tempdir().unwrap();
    let at = |name: &str| out.path().join(name);
    let family = Family::open("qwen2");
    let sequences = sequences(&family);
    let model = stored_as("qwen2", DType::Q4_0, out.path());
    curmerge!("convert", model, at("q4_0.onnx"), "--type", "q4_0").done();
    let apart_0 = apart(&theirs(&at("q4_0.onnx"), &sequences), &ours(&model, &sequences));

    // The values of a model that is rounded on the way, in a GGUF file again.
    let source = family.path(Container::Gguf);
    let ran = curmerge!("convert", source, at("q4_1.onnx"), "--type", "q4_1", "--json").json();
    assert!(ran["notes"][0].as_str().unwrap().contains("were rounded to Q4_1"), "{ran}");
    let found = weights(&at("q4_1.onnx"));
    let mut decoded = Remade::of(&source);
    let gguf = GgufModel::open(&source).unwrap();
    let mut matrices = 0;
    for (_, tensor) in gguf.tensors().filter(|(_, t)| t.dims.len() == 2 && t.name.starts_with("blk.")) {
        let stem = tensor.name.strip_suffix(".weight").unwrap();
        let architecture = curmerge::arch::by_gguf_name("qwen2", false).unwrap();
        let (module, _) = architecture.to_hugging_face(stem).unwrap();
        let values = four_bits(&found, &format!("{module}.weight"));
        decoded = decoded.with(&tensor.name, &tensor.dims, &values);
        matrices += 1;
    }
    assert_eq!(matrices, 14);
    decoded.write(&at("decoded.gguf"));
    let right = ours(&at("decoded.gguf"), &sequences);
    let apart_1 = apart(&theirs(&at("q4_1.onnx"), &sequences), &right);
    println!("Q4_0: {apart_0:.1e}, Q4_1: {apart_1:.1e}");
    assert!(apart_0 < CLOSE && apart_1 < CLOSE, "Q4_0: {apart_0:e}, Q4_1: {apart_1:e}");
    let rounded = error(right[0][9].clone(), &ours(&source, &sequences)[0][9]);
    assert!(rounded > 1e-3, "rounding that moves logits by {rounded:e} shows nothing");
}

#[test]
fn client_onnxruntime_runs_models_in_half_precision() {
    let out = tempfile::tempdir().unwrap();
    for name in ["llama3", "gemma3", "phi3"] {
        let (family, model) = (Family::open(name), out.path().join(name).with_extension("onnx"));
        let (source, sequences) = (family.path(Container::Folder), sequences(&family));
        curmerge!("convert", source, model, "--type", "f16").done();
        let onnx = Onnx::open(&model).unwrap();
        let halves = onnx.graph().initializers.iter().filter(|t| t.element == ElementType::FLOAT16);
        assert!(halves.filter(|tensor| tensor.dims.len() == 2).count() > 8);
        let answer = theirs(&model, &sequences);
        let apart = apart(&answer, &ours(&source, &sequences));
        println!("{name}: {apart:.1e}");
        // The fixtures' attention is sharp: rounding scores to eleven bits is seen.
        assert!(apart < 2e-2, "{name}: {apart:e}");
    }
}

/// An adapter of these matrices whose U is not small, written.
fn adapter(base: &Path, targets: &str, out: &Path) -> Adapter {
    let base = Base::open(base).unwrap();
    let names = base.targets(targets, None).unwrap();
    let mut targets = fingerprint::prepare(&base, &names, 3, Selection::Reference, 1).unwrap();
    for (i, u) in targets.iter_mut().flat_map(|target| &mut target.u).enumerate() {
        *u = ((i * 7 % 11) as f32 - 5.0) * 0.1;
    }
    let adapter = Adapter {
        base: fingerprint::base_info(&base, &targets),
        rank: 3,
        scale: 0.5,
        selection: "reference".into(),
        seed: 1,
        training: None,
        targets,
    };
    adapter.write(out, &[]).unwrap();
    adapter
}

#[test]
fn client_onnxruntime_applies_adapters_to_models_with_inputs_for_them() {
    let out = tempfile::tempdir().unwrap();
    let [file, model, exported] =
        ["adapter", "model.onnx", "a.onnx_adapter"].map(|name| out.path().join(name));
    for (name, targets, options, tolerance) in [
        ("llama3", "all", &[][..], CLOSE),
        ("qwen3", "all", &[], CLOSE),
        ("gemma3", "all", &[], CLOSE),
        ("phi3", "all", &[], CLOSE),
        ("llama2", "all", &["--type", "f16"], 2e-2),
        // The other modules keep inputs of rank 0.
        ("llama3", "v", &[], CLOSE),
        ("llama3", "down", &[], CLOSE),
        ("qwen3", "v", &[], CLOSE),
    ] {
        let (family, source) = (Family::open(name), Family::open(name).path(Container::Gguf));
        let adapter = adapter(&source, targets, &file);
        let format = "onnx-adapter";
        curmerge!("export", file, "--base", source, "--format", format, "-o", exported).done();
        let mut words = vec![OsStr::new("convert"), source.as_os_str(), model.as_os_str()];
        words.extend(["--lora-inputs", "all"].iter().chain(options).map(OsStr::new));
        program::run(&words).done();
        let sequences = sequences(&family);
        let words = [model.as_os_str(), OsStr::new("OUT"), exported.as_os_str()];
        let answer = venv::answer("onnx_decoder.py", &words, json!(sequences).to_string().as_bytes());
        let base = ours(&source, &sequences);
        let right = adapted(&source, Some(&adapter), &sequences);
        let (without, with) = (apart(&answer, &base), rows_apart(&answer["adapted"], &right));
        let moved = rows_apart(&answer["adapted"], &base);
        println!(
            "{name}: {without:.1e} without, {with:.1e} with the adapter of {targets}, which moves logits by {moved:.1e}"
        );
        assert!(without < tolerance && with < tolerance, "{name}: {without:e} without, {with:e} with it");
        // Each rank may differ from all others.
        let onnx = Onnx::open(&model).unwrap();
        let inputs = onnx.graph().inputs.iter().filter(|input| input.name.ends_with("lora_A.weight"));
        let ranks: Vec<String> = inputs.map(|input| format!("{:?}", input.value_type)).collect();
        assert_eq!(ranks.iter().collect::<BTreeSet<_>>().len(), ranks.len(), "{ranks:?}");
        assert!(moved > 0.1, "{name}: an adapter that moves logits by {moved:e} shows nothing");
    }
}

#[test]
fn weights_beside_the_model_are_the_same() {
    let out = tempfile::tempdir().unwrap();
    let source = Family::open("llama3").path(Container::Gguf);
    let [whole, apart] = ["whole.onnx", "apart.onnx"].map(|name| out.path().join(name));
    curmerge!("convert", source, whole).done();
    curmerge!("convert", source, apart, "--external-data").done();
    assert!(out.path().join("apart.onnx_data").is_file() && !out.path().join("whole.onnx_data").exists());
    assert_eq!(weights(&whole), weights(&apart));
    let onnx = Onnx::open(&apart).unwrap();
    assert_eq!(onnx.external_files()[0].location, "apart.onnx_data");
    curmerge!("convert", source, apart, "--external-data", "--type", "f16").done();
    let halves = Onnx::open(&apart).unwrap();
    assert_eq!(
        halves.initializer("model.layers.0.mlp.up_proj.weight").unwrap().element,
        ElementType::FLOAT16
    );
    // With one thread the same bytes.
    let again = out.path().join("again.onnx");
    curmerge!("convert", source, again, "--threads", "1").done();
    assert!(std::fs::read(&again).unwrap() == std::fs::read(&whole).unwrap());
}

#[test]
fn parts_of_rows_are_those_of_whole_rows() {
    // GPT-2's folder stores matrices as [in, out], the other has blocks.
    let out = tempfile::tempdir().unwrap();
    let models = [
        Family::open("gpt2").path(Container::Folder),
        stored_as("llama3", DType::Q4_0, out.path()),
        Family::open("phi3").path(Container::Gguf),
    ];
    for (model, name) in models.iter().zip(["blk.0.attn_qkv[k]", "blk.1.attn_q", "blk.1.attn_qkv[v]"]) {
        let base = Base::open(model).unwrap();
        let weight = base.weight(name).unwrap();
        let (mut row, cols) = (vec![0.0; weight.cols()], weight.cols());
        for r in 0..weight.rows() {
            weight.decode_row(r, &mut row);
            for part in [0..cols, 0..cols / 2, cols / 2..cols, 3..7] {
                let mut found = vec![0.0; part.len()];
                weight.decode_part(r, part.clone(), &mut found);
                assert_eq!(found, row[part]);
            }
        }
    }
}
