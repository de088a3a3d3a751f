//! Merges from and into several files: GGUF splits, and shards of a Hugging Face folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use curmerge::base::{Base, Files};
use curmerge::cur::fingerprint::{self, BaseCheck};
use curmerge::merge::{MergeOptions, MergeReport, Source, Storage, merge};
use curmerge::rewrite::Companion;
use curmerge_formats::adapter::Adapter;
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{Gguf, GgufLayout, GgufModel, NewTensor, Value};
use curmerge_formats::safetensors::{SafeTensors, shard_index};
use serde_json::{Value as Json, json};

use crate::support::adapter::{Recipe, constant};
use crate::support::folder::names;
use crate::support::tiny;

/// An adapter on q, k and v. Every element of U is `u`.
fn adapter(base: &Base, u: f32) -> Adapter {
    Recipe { targets: "q,k,v", rank: 5, scale: 1.0, seed: 3, ..Default::default() }.adapter(base, constant(u))
}

fn sized(max_shard_size: Option<u64>) -> MergeOptions<'static> {
    MergeOptions { max_shard_size, ..Default::default() }
}

fn run(base: &Path, u: f32, options: &MergeOptions<'_>, out: &Path) -> MergeReport {
    let base = Base::open(base).unwrap();
    merge(&base, &[(Source::Cur(&adapter(&base, u)), 1.0)], options, out, |_, _| {}).unwrap()
}

/// The type, shape and bytes of every tensor of a model.
fn tensors(model: &Path) -> BTreeMap<String, (DType, Vec<u64>, Vec<u8>)> {
    let base = Base::open(model).unwrap();
    let held = |t| base.bytes(t).to_vec();
    base.tensors().iter().map(|(name, t)| (name.clone(), (t.dtype, t.shape.clone(), held(t)))).collect()
}

/// Rewrites a GGUF file as version 2 with another alignment.
fn realign(from: &Path, to: &Path, alignment: u32) {
    let gguf = Gguf::open(from).unwrap();
    let mut metadata = gguf.metadata().to_vec();
    metadata.push(("general.alignment".into(), Value::U32(alignment)));
    let new = |t: &curmerge_formats::GgufTensor| NewTensor {
        name: t.name.clone(),
        dtype: t.dtype,
        dims: t.dims.clone(),
    };
    let tensors = gguf.tensors().iter().map(new).collect();
    let layout = GgufLayout::new(2, alignment.into(), &metadata, tensors).unwrap();
    let mut bytes = layout.header().to_vec();
    for (old, new) in gguf.tensors().iter().zip(layout.tensors()) {
        bytes.resize(new.offset as usize, 0);
        bytes.extend(gguf.data(old));
    }
    bytes.resize(layout.file_bytes() as usize, 0);
    fs::write(to, bytes).unwrap();
}

#[test]
fn splitting_and_joining_a_gguf_model_restores_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, splits) = (folder.path().join("tiny.gguf"), folder.path().join("cut"));
    for dtype in [DType::F32, DType::Q8_0] {
        tiny::write_gguf(&whole, dtype);
        let report = run(&whole, 0.0, &MergeOptions { force: true, ..sized(Some(300_000)) }, &splits);
        let count = names(&splits).len();
        assert!(count > 2);
        assert_eq!(report.model, splits.join(format!("cut-00001-of-{count:05}.gguf")));
        assert_eq!(tensors(&report.model), tensors(&whole));
        let model = GgufModel::open(&report.model).unwrap();
        assert_eq!(model.files().len(), count);
        for file in model.files() {
            let bytes: u64 = file.tensors().iter().map(|t| t.bytes).sum();
            assert!(bytes <= 300_000 || file.tensors().len() == 1, "{bytes}");
        }
        let joined = folder.path().join("joined.gguf");
        run(&report.model, 0.0, &sized(None), &joined);
        assert!(fs::read(&joined).unwrap() == fs::read(&whole).unwrap(), "{dtype}");
    }
    // A model that fits one file gets no number.
    let one = folder.path().join("one");
    let report = run(&splits.join(&names(&splits)[0]), 0.0, &sized(Some(1 << 40)), &one);
    assert_eq!((names(&one), report.model), (vec!["one.gguf".to_string()], one.join("one.gguf")));
    assert!(fs::read(one.join("one.gguf")).unwrap() == fs::read(&whole).unwrap());
}

#[test]
fn a_merge_is_the_same_however_its_files_are_split() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    tiny::write_gguf(&at("base.gguf"), DType::Q4_1);
    let first = run(&at("base.gguf"), 0.0, &sized(Some(400_000)), &at("base")).model;
    let (whole, split) = (Base::open(at("base.gguf")).unwrap(), Base::open(&first).unwrap());
    // Adapters of the whole file and of its splits are equal.
    let (a, b) = (adapter(&whole, 0.2), adapter(&split, 0.2));
    a.write(at("a"), &[]).unwrap();
    b.write(at("b"), &[]).unwrap();
    assert!(fs::read(at("a")).unwrap() == fs::read(at("b")).unwrap());
    fingerprint::check(&split, &a, BaseCheck::SameValues).unwrap();
    assert_eq!(fingerprint::compare_others(&split, &a), Some(vec![]));

    for dtype in [None, Some(DType::Q8_0)] {
        let options = |size| MergeOptions {
            storage: dtype.map_or(Storage::AsStored, Storage::Only),
            force: true,
            ..sized(size)
        };
        let plain = run(&at("base.gguf"), 0.2, &options(None), &at("plain.gguf"));
        let joined = run(&first, 0.2, &options(None), &at("joined.gguf"));
        let cut = run(&first, 0.2, &options(Some(250_000)), &at("cut"));
        assert_eq!((&plain.tensors, &plain.tensors), (&joined.tensors, &cut.tensors));
        assert!(fs::read(at("plain.gguf")).unwrap() == fs::read(at("joined.gguf")).unwrap());
        assert_eq!(tensors(&plain.model), tensors(&cut.model));
        assert!(tensors(&plain.model) != tensors(&at("base.gguf")));
    }
}

#[test]
fn alignment_and_version_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    tiny::write_gguf(&at("32.gguf"), DType::Q4_1);
    for alignment in [8, 128, 4096] {
        let path = at("base.gguf");
        realign(&at("32.gguf"), &path, alignment);
        let kept = |dtype: Option<DType>, size, out: &str| {
            let options = MergeOptions {
                storage: dtype.map_or(Storage::AsStored, Storage::Only),
                force: true,
                ..sized(size)
            };
            let model = GgufModel::open(&run(&path, 0.1, &options, &at(out)).model).unwrap();
            for file in model.files() {
                assert_eq!((file.alignment(), file.version()), (alignment.into(), 2));
                assert!(file.tensors().iter().all(|t| t.offset.is_multiple_of(alignment.into())));
            }
            assert_eq!(model.whole_metadata(), Gguf::open(&path).unwrap().metadata());
            model.files().len()
        };
        assert_eq!(kept(None, None, "same.gguf"), 1);
        assert_eq!(kept(Some(DType::Q8_0), None, "moved.gguf"), 1);
        assert!(kept(None, Some(300_000), "cut") > 2);
    }
}

fn index_of(folder: &Path) -> Json {
    serde_json::from_slice(&fs::read(folder.join("model.safetensors.index.json")).unwrap()).unwrap()
}

#[test]
fn a_folder_is_split_into_shards_of_a_given_size() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    tiny::write_folder(&at("hf"));
    // The index does not list this file, so it is no shard of the model.
    fs::write(at("hf").join("model-00002-of-00006.safetensors"), "old").unwrap();
    let own = run(&at("hf"), 0.2, &sized(None), &at("own"));
    let cut = run(&at("hf"), 0.2, &sized(Some(200_000)), &at("cut"));
    assert_eq!((&cut.model, &own.tensors), (&at("cut"), &cut.tensors));
    assert_eq!(tensors(&at("own")), tensors(&at("cut")));
    assert_eq!(index_of(&at("own")), index_of(&at("hf")));
    let old = Companion::OldWeights("model-00002-of-00006.safetensors".into());
    assert!(cut.companions.contains(&old), "{:?}", cut.companions);

    let index = shard_index(&at("cut")).unwrap().unwrap();
    let (mut total, mut files) = (0, 0);
    for file in names(&at("cut")).into_iter().filter(|name| name.ends_with(".safetensors")) {
        files += 1;
        let shard = SafeTensors::open(&at("cut").join(&file)).unwrap();
        assert_eq!(file, format!("model-{files:05}-of-00006.safetensors"));
        assert_eq!(shard.metadata()["format"], "pt");
        assert!(shard.tensors().iter().all(|t| index[&t.name] == file));
        total += shard.tensors().iter().map(|t| t.bytes).sum::<u64>();
    }
    assert_eq!(files, 6);
    assert_eq!(index_of(&at("cut"))["metadata"], json!({ "total_size": total }));
    assert_eq!(fs::read_to_string(at("cut/extra/notes.txt")).unwrap(), "carried along");

    let (one, f32) = (at("one"), Storage::Only(DType::F32));
    let report = run(&at("cut"), 0.0, &MergeOptions { storage: f32, ..sized(Some(1 << 40)) }, &one);
    let card = vec![Companion::BaseCard("README.md".into())];
    assert_eq!((report.notes, report.companions), (Vec::new(), card));
    let names = names(&one);
    let right =
        ["README.base.md", "README.md", "config.json", "extra", "model.safetensors", "tokenizer.json"];
    assert_eq!(names, right);
    // Tensors with the widest elements come first: the changed matrices in F32, then the others in BF16.
    let shard = SafeTensors::open(&one.join("model.safetensors")).unwrap();
    let types: Vec<_> = shard.tensors().iter().map(|t| t.dtype).collect();
    assert!(types.contains(&DType::F32) && types.contains(&DType::BF16) && types.is_sorted(), "{types:?}");
}

#[test]
fn an_index_that_is_wrong_about_its_files_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let hf = folder.path().join("hf");
    tiny::write_folder(&hf);
    let (path, mut index) = (hf.join("model.safetensors.index.json"), index_of(&hf));
    index["weight_map"]["model.norm.weight"] = json!("model-00003-of-00003.safetensors");
    fs::write(&path, index.to_string()).unwrap();
    let message = Base::open(&hf).unwrap_err().to_string();
    assert!(message.contains("00003.safetensors: tensor 'model.norm.weight'"), "{message}");
    index["weight_map"]["model.norm.weight"] = json!("missing.safetensors");
    fs::write(&path, index.to_string()).unwrap();
    let message = Base::open(&hf).unwrap_err().to_string();
    assert!(message.contains("missing.safetensors: cannot open"), "{message}");
}

#[test]
fn splits_of_the_base_are_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    tiny::write_gguf(&at("tiny.gguf"), DType::Q8_0);
    let first = run(&at("tiny.gguf"), 0.0, &sized(Some(300_000)), &at("cut")).model;
    let base = Base::open(&first).unwrap();
    let Files::Gguf(model) = base.files() else { panic!() };
    let splits: Vec<PathBuf> = model.files().iter().map(|file| file.path().into()).collect();
    assert!(splits.iter().all(|path| base.inputs().contains(&path.as_path())));
    let refused = |size, out: &Path| {
        let options = MergeOptions { force: true, ..sized(size) };
        merge(&base, &[(Source::Cur(&adapter(&base, 0.1)), 1.0)], &options, out, |_, _| {})
            .unwrap_err()
            .to_string()
    };
    for split in &splits {
        assert!(refused(None, split).contains("another output"));
    }
    assert!(refused(Some(300_000), &at("cut")).contains("another output"));
    assert!(refused(Some(300_000), &at("out.gguf")).contains("folder"));
    assert!(refused(Some(300_000), Path::new("..")).contains("folder"));
    assert!(!at("out.gguf").exists());
}
