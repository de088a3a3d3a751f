//! Merged models against the definition `W + s C U R` in f64, and what a merge must not change.

use std::fs;
use std::path::Path;

use curmerge::Error;
use curmerge::base::Base;
use curmerge::commands::report::errors;
use curmerge::convert::{FileType, retype};
use curmerge::cur::fingerprint;
use curmerge::merge::{BaseCheck, MergeOptions, MergeReport, Source, Storage, merge};
use curmerge_formats::adapter::Adapter;
use curmerge_formats::dtype::DType;
use curmerge_formats::imatrix::Imatrix;

use crate::support::adapter::{Recipe, random};
use crate::support::tiny;

/// The block types. A merge keeps their scales.
const BLOCK_TYPES: [DType; 18] = {
    use DType::*;
    [
        Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4, NVFP4, Q1_0, Q2_0,
        TQ1_0, TQ2_0,
    ]
};

/// An adapter on q, k and v with random U in `[-size, size)`.
fn adapter(base: &Base, size: f32) -> Adapter {
    Recipe { targets: "q,k,v", rank: 5, seed: 3, ..Default::default() }.adapter(base, random(size, 9))
}

fn run(base: &Base, adapter: &Adapter, dtype: Option<DType>, out: &Path) -> MergeReport {
    let options =
        MergeOptions { storage: dtype.map_or(Storage::AsStored, Storage::Only), ..Default::default() };
    merge(base, &[(Source::Cur(adapter), 2.0)], &options, out, |_, _| {}).unwrap()
}

/// The greatest error of the merged values against `W + 2 * 0.5 * C U R` in f64.
fn greatest_error(base: &Base, adapter: &Adapter, merged: &Base) -> f64 {
    let mut greatest = 0f64;
    for target in &adapter.targets {
        let (w, q) = (base.weight(&target.name).unwrap(), merged.weight(&target.name).unwrap());
        let (n, found) = (w.cols(), q.vector());
        let w = w.vector();
        for i in 0..target.shape[0] as usize {
            for j in 0..n {
                let mut right = f64::from(w[i * n + j]);
                for (k, &col) in target.cols.iter().enumerate() {
                    for (l, &row) in target.rows.iter().enumerate() {
                        right += f64::from(w[i * n + col as usize])
                            * f64::from(target.u[k * target.rows.len() + l])
                            * f64::from(w[row as usize * n + j]);
                    }
                }
                greatest = greatest.max((f64::from(found[i * n + j]) - right).abs());
            }
        }
    }
    greatest
}

#[test]
fn both_containers_hold_the_sum_and_nothing_else_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (gguf, hf) = (folder.path().join("tiny.gguf"), folder.path().join("tiny-hf"));
    tiny::write_gguf(&gguf, DType::F32);
    tiny::write_folder(&hf);
    let (merged_gguf, merged_hf) = (folder.path().join("merged.gguf"), folder.path().join("merged-hf"));
    for (base, out) in [(gguf, merged_gguf), (hf, merged_hf)] {
        let base = Base::open(&base).unwrap();
        let adapter = adapter(&base, 1.0);
        // F32, since BF16 would add its own rounding.
        let report = run(&base, &adapter, Some(DType::F32), &out);
        assert_eq!(report.tensors.len(), 3);
        for t in &report.tensors {
            assert!((t.share - 1.0).abs() < 1e-5 && t.noise < 1e-4 && t.change > 0.01, "{t:?}");
        }
        let merged = Base::open(&out).unwrap();
        assert!(greatest_error(&base, &adapter, &merged) < 1e-7);
        for (name, tensor) in base.tensors() {
            if adapter.targets.iter().all(|t| t.name != *name) {
                assert_eq!(base.bytes(tensor), merged.bytes(&merged.tensors()[name]), "{name}");
            }
        }
    }
}

#[test]
fn the_same_adapter_fits_both_containers_and_gives_equal_values() {
    let folder = tempfile::tempdir().unwrap();
    let (gguf, hf) = (folder.path().join("tiny.gguf"), folder.path().join("tiny-hf"));
    tiny::write_gguf(&gguf, DType::BF16);
    tiny::write_folder(&hf);
    let (gguf, hf) = (Base::open(&gguf).unwrap(), Base::open(&hf).unwrap());
    let (of_gguf, of_hf) = (adapter(&gguf, 1.0), adapter(&hf, 1.0));
    for (a, b) in of_gguf.targets.iter().zip(&of_hf.targets) {
        assert_eq!(
            (&a.cols, &a.rows, &a.values_sha256, &a.sketch),
            (&b.cols, &b.rows, &b.values_sha256, &b.sketch)
        );
    }
    // The containers store the rows of q and k in different orders, those of v in the same.
    assert_eq!(
        of_gguf
            .targets
            .iter()
            .filter(|t| of_hf.targets.iter().any(|u| u.stored_sha256 == t.stored_sha256))
            .count(),
        1
    );
    fingerprint::check(&hf, &of_gguf, BaseCheck::SameValues).unwrap();
    fingerprint::check(&gguf, &of_hf, BaseCheck::SameValues).unwrap();
    let (a, b) = (folder.path().join("a.gguf"), folder.path().join("b"));
    run(&gguf, &of_hf, None, &a);
    run(&hf, &of_gguf, None, &b);
    let (a, b) = (Base::open(&a).unwrap(), Base::open(&b).unwrap());
    for target in &of_gguf.targets {
        let (a, b) = (a.weight(&target.name).unwrap(), b.weight(&target.name).unwrap());
        assert_eq!(a.values_sha256(), b.values_sha256(), "{}", target.name);
    }
}

#[test]
fn zero_u_gives_a_byte_identical_model() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in [DType::F32, DType::BF16].into_iter().chain(BLOCK_TYPES) {
        let (path, out) = (folder.path().join("tiny.gguf"), folder.path().join("out.gguf"));
        tiny::write_gguf(&path, dtype);
        let base = Base::open(&path).unwrap();
        let report = run(&base, &adapter(&base, 0.0), None, &out);
        assert!(report.tensors.iter().all(|t| t.share == 1.0 && t.change == 0.0 && t.dtype == dtype.name()));
        assert!(fs::read(&path).unwrap() == fs::read(&out).unwrap(), "{dtype}");
    }
    let (path, out) = (folder.path().join("tiny-hf"), folder.path().join("out-hf"));
    tiny::write_folder(&path);
    let base = Base::open(&path).unwrap();
    run(&base, &adapter(&base, 0.0), None, &out);
    for file in [
        "config.json",
        "tokenizer.json",
        "extra/notes.txt",
        "model.safetensors.index.json",
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    ] {
        assert!(fs::read(path.join(file)).unwrap() == fs::read(out.join(file)).unwrap(), "{file}");
    }
}

#[test]
fn quantized_bases_keep_their_type_and_the_adapter() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in BLOCK_TYPES {
        let (path, out) = (folder.path().join("tiny.gguf"), folder.path().join("out.gguf"));
        tiny::write_gguf(&path, dtype);
        let base = Base::open(&path).unwrap();
        // Types with two or three levels have few distinct changes. Equal ones survive or vanish together.
        let size = if matches!(dtype, DType::Q1_0 | DType::TQ1_0 | DType::TQ2_0) { 1.0 } else { 0.1 };
        let report = run(&base, &adapter(&base, size), None, &out);
        for t in &report.tensors {
            assert!((t.share - 1.0).abs() < 0.1 && t.dtype == dtype.name(), "{t:?}");
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), fs::metadata(&out).unwrap().len());
    }
}

#[test]
fn another_type_moves_tensors_and_updates_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("tiny.gguf"), folder.path().join("out.gguf"));
    tiny::write_gguf(&path, DType::Q4_1);
    let base = Base::open(&path).unwrap();
    run(&base, &adapter(&base, 0.1), Some(DType::Q8_0), &out);
    let merged = Base::open(&out).unwrap();
    assert_eq!(merged.tensors()["blk.0.attn_q"].dtype, DType::Q8_0);
    assert_eq!(merged.tensors()["blk.0.attn_output"].dtype, DType::Q4_1);

    let (path, out) = (folder.path().join("tiny-hf"), folder.path().join("out-hf"));
    tiny::write_folder(&path);
    let base = Base::open(&path).unwrap();
    run(&base, &adapter(&base, 0.1), Some(DType::F32), &out);
    let total = |folder: &Path| {
        let text = fs::read_to_string(folder.join("model.safetensors.index.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["metadata"]["total_size"].as_u64().unwrap()
    };
    // q, k and v have 2 D^2 numbers together. Each becomes two bytes longer.
    assert_eq!(total(&out), total(&path) + 2 * 2 * tiny::D * tiny::D);
}

#[test]
fn impossible_merges_fail_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (path, hf) = (folder.path().join("tiny.gguf"), folder.path().join("tiny-hf"));
    tiny::write_gguf(&path, DType::Q4_1);
    tiny::write_folder(&hf);
    let (gguf, hf) = (Base::open(&path).unwrap(), Base::open(&hf).unwrap());
    let refused = |base: &Base, dtype: Option<DType>, out: &str| {
        let options =
            MergeOptions { storage: dtype.map_or(Storage::AsStored, Storage::Only), ..Default::default() };
        let out = folder.path().join(out);
        let existed = out.exists();
        let message = merge(base, &[(Source::Cur(&adapter(base, 0.1)), 1.0)], &options, &out, |_, _| {})
            .unwrap_err()
            .to_string();
        assert_eq!(out.exists(), existed, "{message}");
        message
    };
    assert!(refused(&gguf, None, "folder").contains(".gguf"));
    assert!(refused(&hf, None, "out.gguf").contains("folder"));
    assert!(refused(&hf, Some(DType::Q8_0), "out").contains("GGUF"));
    assert!(refused(&gguf, Some(DType::TQ2_0), "out.gguf").contains("TQ2_0"));
    assert!(refused(&gguf, None, "tiny.gguf").contains("another output"));
    assert!(refused(&hf, None, "tiny-hf").contains("another output"));
    let mut other = adapter(&gguf, 0.1);
    other.targets[0].shape[0] += 2;
    let message = fingerprint::check(&gguf, &other, BaseCheck::AllowOtherValues).unwrap_err().to_string();
    assert!(message.contains(&other.targets[0].name), "{message}");
}

#[test]
fn another_quantization_must_be_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.gguf"), folder.path().join("b.gguf"));
    tiny::write_gguf(&a, DType::Q8_0);
    tiny::write_gguf(&b, DType::Q4_1);
    let (a, b) = (Base::open(&a).unwrap(), Base::open(&b).unwrap());
    let adapter = adapter(&a, 0.1);
    let error = fingerprint::check(&b, &adapter, BaseCheck::SameValues).unwrap_err();
    assert!(matches!(error, Error::OtherValues { .. }), "{error:?}");
    let message = errors::line(&error);
    assert!(message.contains("blk.0.attn_k") && message.contains("--allow-other-base"), "{message}");
    fingerprint::check(&b, &adapter, BaseCheck::AllowOtherValues).unwrap();

    let merged = |base_check, out: &str| {
        let options = MergeOptions { base_check, ..Default::default() };
        merge(&b, &[(Source::Cur(&adapter), 1.0)], &options, folder.path().join(out), |_, _| {})
    };
    let error = merged(BaseCheck::default(), "refused.gguf").unwrap_err();
    assert!(matches!(error, Error::OtherValues { .. }), "{error:?}");
    assert!(!folder.path().join("refused.gguf").exists());
    let allowed = merged(BaseCheck::AllowOtherValues, "allowed.gguf").unwrap();
    assert_eq!(
        allowed.deviations,
        [fingerprint::check(&b, &adapter, BaseCheck::AllowOtherValues).unwrap().unwrap()]
    );
    assert!(merged(BaseCheck::Skip, "skipped.gguf").unwrap().deviations.is_empty());
    let bytes = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(bytes("allowed.gguf"), bytes("skipped.gguf"));

    // In another quantization all tensors differ, so those that are no targets are not compared.
    assert_eq!(fingerprint::compare_others(&b, &adapter), None);
    assert_eq!(fingerprint::compare_others(&a, &adapter), Some(vec![]));
}

#[test]
fn a_changed_tensor_that_is_not_a_target_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (path, changed) = (folder.path().join("a.gguf"), folder.path().join("b.gguf"));
    tiny::write_gguf(&path, DType::Q8_0);
    let base = Base::open(&path).unwrap();
    let adapter = adapter(&base, 0.1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[base.tensors()["blk.0.ffn_up"].offset as usize] ^= 1;
    fs::write(&changed, bytes).unwrap();
    let changed = Base::open(&changed).unwrap();
    fingerprint::check(&changed, &adapter, BaseCheck::SameValues).unwrap();
    assert_eq!(fingerprint::compare_others(&changed, &adapter), Some(vec!["blk.0.ffn_up".to_string()]));
}

#[test]
fn tensors_are_widened_only_as_far_as_the_change_needs() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("tiny.gguf"), folder.path().join("out.gguf"));
    tiny::write_gguf(&path, DType::Q4_1);
    let base = Base::open(&path).unwrap();
    let types = |size: f32, fidelity: f64| {
        let options = MergeOptions { storage: Storage::Narrowest { fidelity }, ..Default::default() };
        let report =
            merge(&base, &[(Source::Cur(&adapter(&base, size)), 1.0)], &options, &out, |_, _| {}).unwrap();
        for tensor in &report.tensors {
            assert!(tensor.fidelity >= fidelity, "{tensor:?}");
        }
        let merged = Base::open(&out).unwrap();
        report.tensors.iter().for_each(|t| assert_eq!(merged.tensors()[&t.name].dtype.name(), t.dtype));
        report.tensors.iter().map(|t| t.dtype.clone()).collect::<Vec<_>>()
    };
    // A fidelity of 0 widens no type. A change of zero loses nothing, so it widens none either.
    assert!(types(0.1, 0.0).iter().all(|t| t == "Q4_1"));
    assert!(types(0.0, 1.0).iter().all(|t| t == "Q4_1"));
    let bits = |types: &[String]| {
        let bits = |t: &String| DType::parse(t).map(|d| d.block_bytes() * 1000 / d.block_elements()).unwrap();
        types.iter().map(bits).sum::<usize>()
    };
    let (loose, strict, exact) = (types(0.1, 0.6), types(0.1, 0.99), types(0.1, 0.999_999));
    assert!(bits(&loose) < bits(&strict) && bits(&strict) < bits(&exact), "{loose:?} {strict:?} {exact:?}");
    assert!(exact.iter().all(|t| t == "F32"), "{exact:?}");
    // A larger change needs fewer bits.
    assert!(bits(&types(1.0, 0.99)) < bits(&strict));
}

#[test]
fn merging_applies_importance_weights_as_converting_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    tiny::write_gguf(&path("tiny.gguf"), DType::F32);
    // The older format of an importance matrix: attn_q and ffn_up, one call, weights of at least 0.5.
    let mut matrix = 2i32.to_le_bytes().to_vec();
    for name in ["blk.0.attn_q.weight", "blk.0.ffn_up.weight"] {
        matrix.extend((name.len() as i32).to_le_bytes());
        matrix.extend(name.as_bytes());
        for number in [1, tiny::D as i32] {
            matrix.extend(number.to_le_bytes());
        }
        (0..tiny::D).for_each(|i| matrix.extend((0.5 + (i * i % 37) as f32).to_le_bytes()));
    }
    fs::write(path("imatrix.dat"), matrix).unwrap();
    let (base, imatrix) =
        (Base::open(path("tiny.gguf")).unwrap(), Imatrix::open(path("imatrix.dat")).unwrap());
    let curmerge::base::Files::Gguf(model) = base.files() else { unreachable!() };
    for with in [None, Some(&imatrix)] {
        let (file_type, out) = (FileType::Q4_K_S, path("merged.gguf"));
        retype(model, file_type, with, path("converted.gguf"), &[], None, |_, _| ()).unwrap();
        let options = MergeOptions { file_type: Some(file_type), imatrix: with, ..Default::default() };
        let sources = |size| adapter(&base, size);
        merge(&base, &[(Source::Cur(&sources(0.0)), 1.0)], &options, &out, |_, _| {}).unwrap();
        assert!(fs::read(&out).unwrap() == fs::read(path("converted.gguf")).unwrap());
        let report = merge(&base, &[(Source::Cur(&sources(0.3)), 1.0)], &options, &out, |_, _| {}).unwrap();
        assert!(report.tensors.iter().all(|t| (t.share - 1.0).abs() < 0.1), "{:?}", report.tensors);
        let weighted = fs::read(&out).unwrap();
        merge(
            &base,
            &[(Source::Cur(&sources(0.3)), 1.0)],
            &MergeOptions { imatrix: None, ..options },
            &out,
            |_, _| {},
        )
        .unwrap();
        assert_eq!(fs::read(&out).unwrap() == weighted, with.is_none());
    }
}
