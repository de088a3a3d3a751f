//! ONNX models in onnxruntime-genai's form, in plain onnxruntime: attention in one operator agrees with
//! curmerge, also past the windows. tests/real/onnx_written.rs runs onnxruntime-genai itself.

use std::ffi::OsStr;

use curmerge::base::Base;
use curmerge::model::Transformer;
use serde_json::{Value, json};

use crate::support::decoder::{logits, written};
use crate::support::families::{Container, Family, genai};
use crate::support::goldens::{error, numbers};
use crate::support::venv;

#[test]
fn onnxruntime_gives_the_same_logits_and_tokens() {
    const WRITTEN: usize = 6;
    let scratch = tempfile::tempdir().unwrap();
    let (mut jobs, mut right) = (Vec::new(), Vec::new());
    for name in genai() {
        let (model, folder) = (Family::open(name).path(Container::Folder), scratch.path().join(name));
        curmerge!("convert", model, folder, "--format", "onnx", "--genai").done();
        let base = Base::open(&model).unwrap();
        let ids: Vec<u32> = (0..24).map(|i| (i * 37 + 5) % base.config().vocab as u32).collect();
        assert!(
            base.config().window.is_none_or(|window| window < ids.len()),
            "{name}: the window hides no token"
        );
        let head = base.config().head_dim;
        jobs.push(json!({ "model": folder.join("model.onnx"), "ids": ids, "head": head, "decode": WRITTEN }));
        let mut transformer = Transformer::<f32>::new(&base).unwrap();
        transformer.for_context(ids.len() + WRITTEN).unwrap();
        right.push((name, logits(&transformer, &ids), written(&transformer, &ids, WRITTEN)));
    }
    let answers = venv::answer("onnx_logits.py", &[OsStr::new("OUT")], json!(jobs).to_string().as_bytes());
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), right.len());
    for (answer, (name, (last, greatest), tokens)) in answers.iter().zip(right) {
        assert_eq!(answer["error"], Value::Null, "{name}");
        let apart = error(numbers(&answer["logits"]), &last).max(error(numbers(&answer["last"]), &greatest));
        println!("{name}: {apart:.1e}");
        assert!(apart < 2e-5, "{name}: {apart:e}");
        assert_eq!(answer["written"], json!(tokens), "{name}");
    }
}
