//! Rewritten ONNX models in onnx's checker and onnxruntime.

use std::path::Path;

use curmerge_formats::OutputFile;
use curmerge_formats::onnx::{ElementType, Onnx, Replacement, RewriteOptions, rewrite};

use crate::support::venv;

/// Writes a fixture with these tensors changed to the numbers 0, 1, 2, ... / 8.
fn write(fixture: &str, names: &[&str], out: &Path, options: &RewriteOptions) {
    let model = Onnx::open(&Path::new("fixtures/onnx").join(fixture)).unwrap();
    let changes: Vec<Replacement> = names
        .iter()
        .map(|name| model.initializer(name).unwrap())
        .map(|tensor| Replacement { tensor, element: ElementType::FLOAT, dims: tensor.dims.clone() })
        .collect();
    for file in rewrite(&model, &changes, options).unwrap() {
        let path = match &file.location {
            Some(location) => out.parent().unwrap().join(location),
            None => out.to_owned(),
        };
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut to = OutputFile::create(&path, &[]).unwrap();
        let values = |index: usize| {
            let count = changes[index].dims.iter().product::<u64>();
            Ok((0..count).flat_map(|i| (i as f32 / 8.0).to_le_bytes()).collect())
        };
        file.pieces.write(&mut to, values).unwrap();
        to.commit().unwrap();
    }
}

#[test]
fn onnxruntime_runs_rewritten_models() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let plain = RewriteOptions::new("new.data");
    write("kinds.onnx", &["w.raw", "b.typed"], &at("kinds.onnx"), &plain);
    write("external.onnx", &["onnx::MatMul_1"], &at("external.onnx"), &plain);
    let outside = RewriteOptions { max_model_bytes: 0, min_external: 0, ..RewriteOptions::new("moved.data") };
    write("kinds.onnx", &["w.raw", "b.typed"], &at("moved.onnx"), &outside);
    assert!(at("moved.data").is_file());
    venv::ask("onnx_rewritten.py", &[folder.path().as_os_str()], &[]);
}
