//! ONNX models with changed tensors: everything else keeps its bytes, and the result reads back as intended.
//! tests/scripts/onnx_rewritten.py checks such files with onnx's checker and onnxruntime.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use curmerge_formats::OutputFile;
use curmerge_formats::onnx::{ElementType, Onnx, Replacement, RewriteOptions, Storage, rewrite};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/onnx").join(name)
}

/// Writes `model` with these tensors changed as `out.onnx` in a folder.
fn write(
    model: &Onnx,
    changes: &[(Replacement, Vec<u8>)],
    options: &RewriteOptions,
    folder: &TempDir,
) -> PathBuf {
    let (what, values): (Vec<_>, Vec<_>) = changes.iter().cloned().unzip();
    for file in rewrite(model, &what, options).unwrap() {
        let path = folder.path().join(file.location.as_deref().unwrap_or("out.onnx"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut out = OutputFile::create(&path, &[]).unwrap();
        file.pieces.write(&mut out, |index| Ok(values[index].clone())).unwrap();
        out.commit().unwrap();
        assert_eq!(fs::metadata(path).unwrap().len(), file.pieces.bytes());
    }
    folder.path().join("out.onnx")
}

fn f32s(count: usize, first: f32) -> Vec<u8> {
    (0..count).flat_map(|i| (first + i as f32).to_le_bytes()).collect()
}

/// A tensor's element type, lengths and values; no values for texts.
type Held = (ElementType, Vec<u64>, Option<Vec<u8>>);

/// The content of every tensor that is not in `but`.
fn others(model: &Onnx, but: &[&str]) -> BTreeMap<String, Held> {
    let tensors = model.tensors().into_iter().filter(|tensor| !but.contains(&tensor.name.as_str()));
    tensors
        .map(|t| {
            let data = model.data(t).ok().map(|data| data.into_owned());
            (format!("{} {}", t.name, t.bytes), (t.element, t.dims.clone(), data))
        })
        .collect()
}

fn change<'a>(
    model: &'a Onnx,
    name: &str,
    element: ElementType,
    values: Vec<u8>,
) -> (Replacement<'a>, Vec<u8>) {
    let tensor = model.tensors().into_iter().find(|tensor| tensor.name == name).unwrap();
    (Replacement { tensor, element, dims: tensor.dims.clone() }, values)
}

#[test]
fn without_changes_every_file_is_the_same() {
    for name in ["kinds.onnx", "external.onnx", "unpacked.onnx"] {
        let folder = TempDir::new().unwrap();
        let model = Onnx::open(&fixture(name)).unwrap();
        let out = write(&model, &[], &RewriteOptions::new("new.data"), &folder);
        assert!(fs::read(out).unwrap() == model.bytes(), "{name}");
        for file in model.external_files() {
            assert!(fs::read(folder.path().join(&file.location)).unwrap() == file.file.bytes());
        }
        assert!(!folder.path().join("new.data").exists());
    }
}

#[test]
fn a_tensor_of_the_same_size_is_replaced_in_place() {
    let model = Onnx::open(&fixture("kinds.onnx")).unwrap();
    let folder = TempDir::new().unwrap();
    let new = f32s(12, 1.0);
    let changes = [change(&model, "w.raw", ElementType::FLOAT, new.clone())];
    let out = write(&model, &changes, &RewriteOptions::new("new.data"), &folder);
    let Storage::Raw { offset } = changes[0].0.tensor.storage else { panic!("not raw") };
    let mut expected = model.bytes().to_vec();
    expected[offset as usize..offset as usize + 48].copy_from_slice(&new);
    assert!(fs::read(out).unwrap() == expected);
}

#[test]
fn other_sizes_types_and_places_read_back() {
    let model = Onnx::open(&fixture("kinds.onnx")).unwrap();
    let folder = TempDir::new().unwrap();
    // Raw to a narrower type, typed to raw, typed to a wider type, a Constant's tensor, and one in a nested
    // graph.
    let changes = [
        change(&model, "w.raw", ElementType::FLOAT16, vec![0x11; 24]),
        change(&model, "b.typed", ElementType::FLOAT, f32s(3, 5.0)),
        change(&model, "f16.typed", ElementType::DOUBLE, vec![0x22; 32]),
        change(&model, "half_value", ElementType::DOUBLE, 2.5f64.to_le_bytes().to_vec()),
        change(&model, "inner", ElementType::FLOAT, f32s(3, 7.0)),
    ];
    let out = Onnx::open(&write(&model, &changes, &RewriteOptions::new("new.data"), &folder)).unwrap();
    let names: Vec<_> = changes.iter().map(|(change, _)| change.tensor.name.as_str()).collect();
    assert_eq!(others(&model, &names), others(&out, &names));
    for (change, values) in &changes {
        let new = out.tensors().into_iter().find(|tensor| tensor.name == change.tensor.name).unwrap();
        assert_eq!((new.element, &new.dims), (change.element, &change.dims));
        assert_eq!(&*out.data(new).unwrap(), &values[..], "{}", new.name);
    }
    assert_eq!(model.metadata(), out.metadata());
    assert_eq!(model.graph().inputs, out.graph().inputs);
    assert_eq!(out.decode(out.constant("half").unwrap()).unwrap(), [2.5]);
}

#[test]
fn external_files_change_in_place_or_get_a_new_layout() {
    let model = Onnx::open(&fixture("external.onnx")).unwrap();
    let folder = TempDir::new().unwrap();
    let new = f32s(24, 1.0);
    let same = [change(&model, "onnx::MatMul_1", ElementType::FLOAT, new.clone())];
    let out = write(&model, &same, &RewriteOptions::new("new.data"), &folder);
    // The model names the same places, so its own file is unchanged.
    assert!(fs::read(out).unwrap() == model.bytes());
    let weights = model.external_files()[0].file.bytes();
    assert!(fs::read(folder.path().join("weights.data")).unwrap() == [&new[..], &weights[96..]].concat());

    // Half the size moves the next tensor. One of two tensors that share their bytes gets its own.
    let folder = TempDir::new().unwrap();
    let changes = [
        change(&model, "onnx::MatMul_1", ElementType::FLOAT16, vec![0x33; 48]),
        change(&model, "c", ElementType::FLOAT, f32s(3, 9.0)),
    ];
    let mut options = RewriteOptions::new("new.data");
    options.locations.insert("weights.data".into(), "out.data".into());
    let out = Onnx::open(&write(&model, &changes, &options, &folder)).unwrap();
    assert_eq!(out.external_files()[0].location, "out.data");
    assert_eq!(others(&model, &["onnx::MatMul_1", "c"]), others(&out, &["onnx::MatMul_1", "c"]));
    for (change, values) in &changes {
        let new = out.initializer(&change.tensor.name).unwrap();
        assert_eq!((new.element, &*out.data(new).unwrap()), (change.element, &values[..]));
    }
    let Storage::External { offset, .. } = out.initializer("down.weight").unwrap().storage else { panic!() };
    assert_eq!(offset % 128, 0);
}

#[test]
fn a_model_beyond_its_limit_moves_its_weights_out() {
    let model = Onnx::open(&fixture("kinds.onnx")).unwrap();
    let (folder, tensor) = (TempDir::new().unwrap(), model.initializer("w.raw").unwrap());
    let large = Replacement { tensor, element: ElementType::FLOAT, dims: vec![4, 100] };
    let values = f32s(400, 0.0);
    let options = RewriteOptions { max_model_bytes: 2000, ..RewriteOptions::new("out.data") };
    let out = write(&model, &[(large, values.clone())], &options, &folder);
    assert!(fs::metadata(&out).unwrap().len() < 2000);
    let out = Onnx::open(&out).unwrap();
    let new = out.initializer("w.raw").unwrap();
    assert_eq!((&new.dims[..], &new.storage), (&[4, 100][..], &Storage::External { file: 0, offset: 0 }));
    assert_eq!(&*out.data(new).unwrap(), &values[..]);
    assert_eq!(others(&model, &["w.raw"]), others(&out, &["w.raw"]));
}

#[test]
fn invalid_changes_are_refused() {
    let model = Onnx::open(&fixture("external.onnx")).unwrap();
    let other = Onnx::open(&fixture("kinds.onnx")).unwrap();
    let (good, _) = change(&model, "c", ElementType::FLOAT, Vec::new());
    let (foreign, _) = change(&other, "w.raw", ElementType::FLOAT, Vec::new());
    let (text, _) = change(&other, "text", ElementType::FLOAT, Vec::new());
    let mut options = RewriteOptions::new("new.data");
    let refused = |model: &Onnx, changes: &[Replacement], options: &RewriteOptions| {
        rewrite(model, changes, options).unwrap_err().to_string()
    };
    assert!(refused(&model, &[foreign], &options).contains("not of this model"));
    assert!(refused(&model, &[good.clone(), good.clone()], &options).contains("changed twice"));
    assert!(refused(&other, &[text], &options).contains("holds texts"));
    let huge = Replacement { dims: vec![u64::MAX, 2], ..good };
    assert!(refused(&model, &[huge], &options).contains("too large"));
    options.locations.insert("weights.data".into(), "../x".into());
    assert!(refused(&model, &[], &options).contains("leads out of it"));
    options.locations.insert("weights.data".into(), "part/bias.data".into());
    assert!(refused(&model, &[], &options).contains("taken"));
}
