//! Adapter files: they read back as written, and all damage is found.

use std::collections::BTreeMap;
use std::path::PathBuf;

use curmerge_formats::{
    Adapter, AdapterTarget, BaseInfo, Error, SafeTensors, TargetFisher, Training, sha256_hex,
};
use half::bf16;
use tempfile::TempDir;

fn target(name: &str, cols: &[u32], rows: &[u32]) -> AdapterTarget {
    AdapterTarget {
        name: name.into(),
        cols: cols.into(),
        rows: rows.into(),
        u: (0..cols.len() * rows.len()).map(|i| i as f32 * 0.25 - 0.1).collect(),
        shape: [8, 6],
        stored_dtype: "Q4_1".into(),
        stored_sha256: sha256_hex(name.as_bytes()),
        values_sha256: sha256_hex(b"values"),
        sketch: Some(vec![0.1, -3.0e-7]),
        fisher: vec![],
    }
}

fn adapter() -> Adapter {
    Adapter {
        base: BaseInfo {
            name: "a \"quoted\" \"sha256\":\"name\"".into(),
            architecture: "llama".into(),
            container: "gguf".into(),
            other_tensors: BTreeMap::from([("output_norm".into(), sha256_hex(b"norm"))]),
        },
        rank: 3,
        scale: 0.1,
        selection: "inverse".into(),
        seed: u64::MAX,
        training: Some(Training {
            data_sha256: sha256_hex(b"data"),
            examples: 12,
            steps: 5,
            planned_steps: 9,
            optimizer: "adamw".into(),
            learning_rate: 2.5e-4,
            batch_size: 4,
            max_seq_len: 512,
            final_loss: 0.1 + 0.2,
            losses: Some(vec![1.0 / 3.0, 0.3]),
            valid_loss: None,
            protection: None,
            recipe: Some("[build]\nlr = 0.5\n".into()),
        }),
        targets: vec![
            target("blk.0.attn_q", &[0, 2, 5], &[1, 7]),
            target("blk.0.attn_qkv[v]", &[4], &[0, 3, 4]),
        ],
    }
}

/// An adapter that keeps the Fisher information of two tasks.
fn with_fisher() -> Adapter {
    let mut adapter = adapter();
    for (number, target) in adapter.targets.iter_mut().enumerate() {
        let [c, r] = [target.cols.len(), target.rows.len()];
        let values = |count: usize| (0..count).map(|i| 0.5 - i as f32).collect::<Vec<_>>();
        let sampled = TargetFisher::Sampled {
            samples: values(2 * c * r).into_iter().map(bf16::from_f32).collect(),
            weight: 0.1,
            left: values(c * c),
            right: values(r * r),
            along: values(c * r),
        };
        target.fisher = vec![TargetFisher::Matrix(values(c * r * c * r)), sampled];
        target.fisher.rotate_left(number);
    }
    adapter
}

fn file(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("adapter.safetensors");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn written_adapters_read_back() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("adapter.safetensors");
    adapter().write(&path, &[]).unwrap();
    assert_eq!(Adapter::read(&path).unwrap(), adapter());
    assert!(Adapter::is_adapter(&path));
    let selected = Adapter { training: None, ..adapter() };
    for adapter in [selected, with_fisher()] {
        assert_eq!(Adapter::read(file(&folder, &adapter.to_bytes().unwrap())).unwrap(), adapter);
    }
}

#[test]
fn equal_adapters_give_equal_files() {
    let mut turned = adapter();
    turned.targets.reverse();
    assert_eq!(turned.to_bytes().unwrap(), adapter().to_bytes().unwrap());
}

#[test]
fn other_safetensors_readers_read_the_tensors() {
    let bytes = adapter().to_bytes().unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let u = file.tensor("blk.0.attn_q.u").unwrap();
    assert_eq!((u.shape(), u.dtype()), (&[3, 2][..], safetensors::Dtype::F32));
    assert_eq!(file.tensor("blk.0.attn_qkv[v].rows").unwrap().data(), [0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
}

#[test]
fn every_flipped_byte_is_found_and_damage_to_a_tensor_is_named() {
    [adapter(), with_fisher()].iter().for_each(every_flipped_byte_is_found);
}

fn every_flipped_byte_is_found(adapter: &Adapter) {
    let folder = TempDir::new().unwrap();
    let bytes = adapter.to_bytes().unwrap();
    let tensors = SafeTensors::open(&file(&folder, &bytes)).unwrap().tensors().to_vec();
    for at in 0..bytes.len() {
        for mask in [0x01, 0x20, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= mask;
            let error = Adapter::read(file(&folder, &damaged)).expect_err(&format!("byte {at} ^ {mask:#x}"));
            assert!(!error.to_string().contains('\n'), "{error}");
            let place = at as u64;
            if let Some(tensor) = tensors.iter().find(|t| (t.offset..t.offset + t.bytes).contains(&place)) {
                assert!(
                    matches!(&error, Error::Checksum { place, .. } if place.contains(&tensor.name)),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn every_prefix_is_refused() {
    let folder = TempDir::new().unwrap();
    let bytes = adapter().to_bytes().unwrap();
    for length in 0..bytes.len() {
        assert!(Adapter::read(file(&folder, &bytes[..length])).is_err(), "{length} bytes");
    }
}

#[test]
fn inconsistent_adapters_are_not_written() {
    let refused = |change: &dyn Fn(&mut Adapter), expected: &str| {
        let mut changed = adapter();
        change(&mut changed);
        let error = changed.to_bytes().expect_err(expected);
        assert!(matches!(error, Error::Encode { .. }) && error.to_string().contains(expected), "{error}");
    };
    refused(&|a| a.scale = f32::NAN, "not finite");
    refused(&|a| a.rank = 0, "zero");
    refused(&|a| a.targets.clear(), "none");
    refused(&|a| a.targets[0].cols = vec![2, 2, 5], "not ascending");
    refused(&|a| a.targets[0].cols = vec![2, 5, 6], "the matrix has 6");
    refused(&|a| a.targets[0].rows = vec![1, 8], "the matrix has 8");
    refused(&|a| a.targets[0].rows = vec![], "0 indices");
    refused(&|a| a.targets[0].rows = vec![0, 1, 2, 3], "4 indices");
    refused(&|a| a.targets[0].u[3] = f32::INFINITY, "value 3 of U is inf");
    refused(&|a| a.targets[0].u.truncate(5), "U has 5 values");
    refused(&|a| a.targets[0].values_sha256 = "X".repeat(64), "values_sha256");
    refused(&|a| a.targets[1].fisher = with_fisher().targets[1].fisher.clone(), "of more tasks than others");
    refused(&|a| a.targets[1].name = "blk.0.attn_q".into(), "taken");
    refused(&|a| a.base.other_tensors.values_mut().for_each(|digest| *digest = "?".into()), "SHA-256");
    refused(&|a| a.training.as_mut().unwrap().final_loss = f64::NAN, "not finite");
}

#[test]
fn fisher_information_that_does_not_fit_is_not_written() {
    let refused = |change: &dyn Fn(&mut TargetFisher), expected: &str| {
        let mut changed = with_fisher();
        changed.targets[0].fisher.iter_mut().for_each(change);
        let error = changed.to_bytes().expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    let matrix = |change: fn(&mut Vec<f32>)| {
        move |fisher: &mut TargetFisher| {
            if let TargetFisher::Matrix(values) = fisher {
                change(values);
            }
        }
    };
    refused(&matrix(|values| values.truncate(35)), "matrix of its Fisher information has 35 values");
    refused(&matrix(|values| values[0] = f32::NAN), "a value of matrix");
    let sampled = |change: fn(&mut Vec<bf16>, &mut f32, &mut Vec<f32>)| {
        move |fisher: &mut TargetFisher| {
            if let TargetFisher::Sampled { samples, weight, along, .. } = fisher {
                change(samples, weight, along);
            }
        }
    };
    refused(&sampled(|samples, _, _| samples.truncate(7)), "samples of its Fisher information has 7 values");
    refused(&sampled(|samples, _, _| samples[1] = bf16::INFINITY), "a sample");
    refused(&sampled(|_, weight, _| *weight = f32::NAN), "a sample");
    refused(&sampled(|_, _, along| along.push(1.0)), "along of its Fisher information has 7 values");
}

/// The file of a forger: a text of its header is replaced by another of equal length, and every digest is
/// corrected.
fn forged(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = adapter().to_bytes().unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect(from);
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    let before = b"\"sha256\":\"";
    let digits = bytes.windows(before.len()).position(|window| window == before).unwrap() + before.len();
    bytes[digits..digits + 64].fill(b'0');
    let digest = sha256_hex(&bytes);
    bytes[digits..digits + 64].copy_from_slice(digest.as_bytes());
    bytes
}

#[test]
fn forged_headers_with_right_digests_are_refused() {
    let folder = TempDir::new().unwrap();
    for (from, to, expected) in [
        ("\"version\":\"1\"", "\"version\":\"3\"", "version \"3\""),
        ("curmerge-adapter", "curmerge-adopter", "not a curmerge adapter"),
        ("\"rank\":\"3\"", "\"rank\":\"2\"", "3 indices"),
        ("\"rank\":\"3\"", "\"rank\":\"x\"", "rank"),
        ("\"scale\":\"0.1\"", "\"scale\":\"nan\"", "not finite"),
        ("\\\"shape\\\":[8,6]", "\\\"shape\\\":[7,6]", "the matrix has 7"),
        ("\\\"shape\\\":[8,6]", "\\\"shape\\\":[8,5]", "the matrix has 5"),
        ("\\\"u_sha256\\\":", "\\\"v_sha256\\\":", "targets"),
        ("\"blk.0.attn_q.u\"", "\"blk.0.attn_z.u\"", "missing"),
        ("\"shape\":[3,2]", "\"shape\":[2,3]", "does not fit its target"),
        ("\"base_name\"", "\"bass_name\"", "base_name"),
        ("\\\"steps\\\":5", "\\\"steps\\\":x", "training"),
    ] {
        let error = Adapter::read(file(&folder, &forged(from, to))).expect_err(expected).to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "expected {expected:?} in {error:?}");
    }
}

#[test]
fn other_files_are_not_adapters() {
    let folder = TempDir::new().unwrap();
    let other = file(&folder, b"\x02\0\0\0\0\0\0\0{}");
    assert!(!Adapter::is_adapter(&other));
    assert!(Adapter::read(&other).unwrap_err().to_string().contains("not a curmerge adapter"));
    assert!(!Adapter::is_adapter(&folder.path().join("missing")));
    for (bytes, expected) in [
        (&b"GGUF\x03\0\0\0 and so on"[..], "is not an adapter: it is a GGUF file"),
        (b"\x08\x07\x12\x07pytorch and so on", "is not an adapter: it is an ONNX file"),
        (b"PK\x03\x04 and so on", "is not an adapter: it is a zip archive"),
        (b"{\"text\": \"a\"}", "is not an adapter: it is a JSON file"),
        (b"some other text", "is not an adapter, or is damaged"),
        (b"short", "is not an adapter, or is damaged"),
    ] {
        let error = Adapter::read(file(&folder, bytes)).expect_err(expected).to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "expected {expected:?} in {error:?}");
    }
}
