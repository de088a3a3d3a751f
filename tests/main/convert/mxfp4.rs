//! Experts in MXFP4, as gpt-oss is published: they keep their codes where the output can hold them, and else their
//! numbers.

use std::fs;
use std::path::{Path, PathBuf};

use curmerge::base::Base;
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::Gguf;
use curmerge_formats::safetensors::SafeTensors;

use crate::support::adapter::{Recipe, random};
use crate::support::families::{Container, Family};

const FIXTURE: &str = "gpt-oss-mxfp4";

fn paths() -> [PathBuf; 2] {
    let family = Family::open(FIXTURE);
    [Container::Folder, Container::Gguf].map(|container| family.path(container))
}

/// Every number of an expert.
fn experts(base: &Path) -> Vec<f32> {
    let base = Base::open(base).unwrap();
    let parts = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];
    let names = parts.iter().flat_map(|part| (0..3).map(move |expert| format!("blk.0.{part}[{expert}]")));
    names.flat_map(|name| base.weight(&name).unwrap().vector()).collect()
}

#[test]
fn a_folder_made_of_a_file_has_the_numbers_of_the_codes() {
    let scratch = tempfile::tempdir().unwrap();
    let [folder, gguf] = paths();
    let out = scratch.path().join("out");
    curmerge!("convert", gguf, out).done();
    assert_eq!(experts(&out), experts(&folder));
    let made = SafeTensors::open(&out.join("model.safetensors")).unwrap();
    let name = "model.layers.0.mlp.experts.gate_up_proj";
    let (joined, biases) = (made.tensor(name).unwrap(), made.tensor(&format!("{name}_bias")).unwrap());
    assert_eq!(
        (joined.dtype, &joined.shape[..], &biases.shape[..]),
        (DType::BF16, &[3, 32, 64][..], &[3, 64][..])
    );
    assert!(!fs::read_to_string(out.join("config.json")).unwrap().contains("quantization_config"));
}

/// Biases in F32 are not copied as they lie: those of gate and up alternate.
#[test]
fn a_folder_in_f32_becomes_the_file_again() {
    let scratch = tempfile::tempdir().unwrap();
    let gguf = Family::open("gpt-oss").path(Container::Gguf);
    let [folder, out] = ["out", "out.gguf"].map(|name| scratch.path().join(name));
    curmerge!("convert", gguf, folder, "--type", "f32").done();
    curmerge!("convert", folder, out, "--type", "bf16").done();
    let (before, after) = (Gguf::open(&gguf).unwrap(), Gguf::open(&out).unwrap());
    for tensor in before.tensors() {
        let own = after.tensor(&tensor.name).unwrap();
        assert!(before.data(tensor) == after.data(own), "{}", tensor.name);
    }
}

#[test]
fn a_merge_keeps_the_codes() {
    let scratch = tempfile::tempdir().unwrap();
    let [folder, gguf] = paths();
    let [adapter, out, file] = ["adapter.st", "out", "out.gguf"].map(|name| scratch.path().join(name));
    let base = Base::open(&folder).unwrap();
    Recipe { scale: 1.0, ..Recipe::default() }.adapter(&base, random(1.0, 1)).write(&adapter, &[]).unwrap();
    for merged in [&out, &file] {
        curmerge!("merge", folder, adapter, "-o", merged).done();
        let changed = |path: &Path| Base::open(path).unwrap().weight("blk.0.attn_q").unwrap().vector();
        assert_ne!(changed(merged), changed(&folder));
    }
    let (before, after) = (folder.join("model.safetensors"), out.join("model.safetensors"));
    let (before, after) = (SafeTensors::open(&before).unwrap(), SafeTensors::open(&after).unwrap());
    for tensor in before.tensors().iter().filter(|tensor| tensor.name.contains("experts")) {
        let own = after.tensor(&tensor.name).unwrap();
        assert!(before.data(tensor) == after.data(own), "{}", tensor.name);
    }
    assert!(fs::read_to_string(out.join("config.json")).unwrap().contains("\"mxfp4\""));
    let (before, after) = (Gguf::open(&gguf).unwrap(), Gguf::open(&file).unwrap());
    let codes = |gguf: &Gguf| -> Vec<Vec<u8>> {
        let all = gguf.tensors().iter().filter(|tensor| tensor.dtype == DType::MXFP4);
        all.map(|tensor| gguf.data(tensor).to_vec()).collect()
    };
    assert!(codes(&after) == codes(&before) && codes(&after).len() == 3);
}

#[test]
fn experts_of_another_shape_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let [folder, _] = paths();
    let copy = scratch.path().join("hf");
    crate::support::folder::copy(&folder, &copy);
    let config = copy.join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    for (from, to, problem) in [
        ("\"num_local_experts\": 3", "\"num_local_experts\": 4", "where the configuration says [4, 32]"),
        ("\"intermediate_size\": 32", "\"intermediate_size\": 96", "where the configuration says [3, 192]"),
        ("\"mxfp4\"", "\"gptq\"", "GPTQ"),
        ("\"swiglu_limit\": 7.0", "\"swiglu_limit\": 6.0", "it is not 7"),
        ("\"rope_parameters\"", "\"other\"", "rope_parameters: missing"),
    ] {
        assert!(text.contains(from), "{text}");
        fs::write(&config, text.replace(from, to)).unwrap();
        let error = Base::open(&copy).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}
