//! Merges into fused matrices, into matrices that a folder stores as `[in, out]`, and into matrices of
//! unknown architectures. The rows of each part must be `W + s C U R`, which the tests compute in f64 from
//! the files.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use curmerge::base::Base;
use curmerge::convert::{FileType, retype};
use curmerge::cur::fingerprint;
use curmerge::export::{Format, export};
use curmerge::lora::Lora;
use curmerge::merge::{BaseCheck, MergeOptions, MergeReport, Source, Storage, merge};
use curmerge_formats::adapter::{Adapter, AdapterTarget};
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{Gguf, Value};
use curmerge_formats::quant::decode;
use curmerge_formats::safetensors::SafeTensors;

use crate::support::families::{self, CONTAINERS, Container, Family};
use crate::support::folder::copy;
use crate::support::remade::Remade;

/// The fixtures of families that store several matrices as one.
fn fused() -> impl Iterator<Item = &'static str> {
    // Experts of a mixture are not adapted.
    let fuses = |name: &&str| {
        Family::open(name).architecture().tensors.fused.iter().any(|(fused, _)| !fused.contains("{}"))
    };
    families::ALL.iter().copied().filter(fuses)
}

/// Those that store q, k and v as one.
fn fused_qkv() -> impl Iterator<Item = &'static str> {
    fused().filter(|name| !Family::open(name).architecture().parts("attn_qkv").is_empty())
}

/// A matrix as `[out, in]`.
#[derive(PartialEq)]
struct Matrix {
    cols: usize,
    values: Vec<f64>,
}

/// Reads a matrix of a fixture, or of a merge into it, directly from the file. The canonical name names no
/// part.
fn read(model: &Path, family: &str, name: &str) -> Matrix {
    if model.is_file() {
        let gguf = Gguf::open(model).unwrap();
        let tensor = gguf.tensor(&format!("{name}.weight")).unwrap();
        return values(tensor.dtype, &tensor.shape(), gguf.data(tensor));
    }
    let (layer, part) = name.strip_prefix("blk.").unwrap().split_once('.').unwrap();
    let stored = match (family, part) {
        ("gptneox", "attn_qkv") => format!("gpt_neox.layers.{layer}.attention.query_key_value.weight"),
        ("gptneox", "attn_output") => format!("gpt_neox.layers.{layer}.attention.dense.weight"),
        ("gptneox", "ffn_up") => format!("gpt_neox.layers.{layer}.mlp.dense_h_to_4h.weight"),
        ("gptneox", "ffn_down") => format!("gpt_neox.layers.{layer}.mlp.dense_4h_to_h.weight"),
        ("falcon" | "falcon-40b" | "falcon-11b", "attn_qkv") => {
            format!("transformer.h.{layer}.self_attention.query_key_value.weight")
        }
        ("falcon" | "falcon-40b" | "falcon-11b", "attn_output") => {
            format!("transformer.h.{layer}.self_attention.dense.weight")
        }
        ("falcon" | "falcon-40b" | "falcon-11b", "ffn_up") => {
            format!("transformer.h.{layer}.mlp.dense_h_to_4h.weight")
        }
        ("falcon" | "falcon-40b" | "falcon-11b", "ffn_down") => {
            format!("transformer.h.{layer}.mlp.dense_4h_to_h.weight")
        }
        ("gpt2", "attn_qkv") => format!("transformer.h.{layer}.attn.c_attn.weight"),
        ("gpt2", "attn_output") => format!("transformer.h.{layer}.attn.c_proj.weight"),
        ("gpt2", "ffn_up") => format!("transformer.h.{layer}.mlp.c_fc.weight"),
        ("gpt2", "ffn_down") => format!("transformer.h.{layer}.mlp.c_proj.weight"),
        (_, "attn_qkv") => format!("model.layers.{layer}.self_attn.qkv_proj.weight"),
        (_, "attn_output") => format!("model.layers.{layer}.self_attn.o_proj.weight"),
        (_, "attn_q" | "attn_k" | "attn_v") => {
            format!("model.layers.{layer}.self_attn.{}_proj.weight", part.trim_start_matches("attn_"))
        }
        (_, "ffn_up") => format!("model.layers.{layer}.mlp.gate_up_proj.weight"),
        (_, "ffn_down") => format!("model.layers.{layer}.mlp.down_proj.weight"),
        other => panic!("{other:?}"),
    };
    let file = SafeTensors::open(&model.join("model.safetensors")).unwrap();
    let tensor = file.tensor(&stored).unwrap();
    let found = values(tensor.dtype, &tensor.shape, file.data(tensor));
    // Key and value heads, and the query heads of each.
    let groups: Option<(usize, usize)> = match (family, part) {
        ("gptneox", "attn_qkv") => Some((2, 1)),
        ("falcon", "attn_qkv") => Some((1, 4)),
        ("falcon-40b" | "falcon-11b", "attn_qkv") => Some((2, 2)),
        _ => None,
    };
    if let Some((groups, queries)) = groups {
        // Of each key and value head, the rows of its queries, the key and the value.
        let heads = queries + 2;
        let width = found.values.len() / found.cols / (groups * heads);
        let row = |group: usize, head: usize, i: usize| ((group * heads + head) * width + i) * found.cols;
        let of = |heads: Range<usize>| {
            (0..groups).flat_map(move |group| heads.clone().map(move |head| (group, head)))
        };
        let rows = of(0..queries).chain(of(queries..queries + 1)).chain(of(queries + 1..queries + 2));
        let rows = rows.flat_map(|(group, head)| (0..width).map(move |i| row(group, head, i)));
        let values = rows.flat_map(|start| &found.values[start..start + found.cols]).copied().collect();
        return Matrix { cols: found.cols, values };
    }
    if family != "gpt2" {
        return found;
    }
    let (rows, cols) = (found.cols, found.values.len() / found.cols);
    let turned = (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j)));
    Matrix { cols, values: turned.map(|(i, j)| found.values[j * rows + i]).collect() }
}

fn values(dtype: DType, shape: &[u64], bytes: &[u8]) -> Matrix {
    let mut values = vec![0.0; shape.iter().product::<u64>() as usize];
    decode(dtype, bytes, &mut values).unwrap();
    Matrix { cols: shape[1] as usize, values: values.into_iter().map(f64::from).collect() }
}

/// The tensor that holds a target, and the target's first row in it, from the fixture's config.json.
fn place(family: &Family, target: &str) -> (String, usize) {
    let Some((whole, part)) = target.split_once('[') else { return (target.into(), 0) };
    let text = fs::read(family.folder.join("hf/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let size = |key: &str| config[key].as_u64().map(|n| n as usize);
    let width = size("hidden_size").or(size("n_embd")).unwrap();
    let kv = size("num_key_value_heads").or(size("num_kv_heads"));
    let kv = kv.map_or(width, |kv| width / size("num_attention_heads").unwrap() * kv);
    let first = match part {
        "q]" | "gate]" => 0,
        "k]" => width,
        "v]" => width + kv,
        "up]" => size("intermediate_size").unwrap(),
        other => panic!("{other}"),
    };
    (whole.into(), first)
}

/// Adds `s C U R` of a target whose first row is `first`.
fn add(w: &Matrix, to: &mut Matrix, first: usize, target: &AdapterTarget, scale: f64) {
    let n = w.cols;
    for i in first..first + target.shape[0] as usize {
        for j in 0..n {
            for (k, &col) in target.cols.iter().enumerate() {
                for (l, &row) in target.rows.iter().enumerate() {
                    to.values[i * n + j] += scale
                        * w.values[i * n + col as usize]
                        * f64::from(target.u[k * target.rows.len() + l])
                        * w.values[(first + row as usize) * n + j];
                }
            }
        }
    }
}

fn run(base: &Base, sources: &[(Source<'_>, f32)], storage: Storage, out: &Path) -> MergeReport {
    let options = MergeOptions { storage, force: true, ..Default::default() };
    merge(base, sources, &options, out, |_, _| {}).unwrap_or_else(|e| panic!("{e}"))
}

fn out(folder: &Path, container: Container, name: &str) -> PathBuf {
    folder.join(if container == Container::Gguf { format!("{name}.gguf") } else { name.into() })
}

#[track_caller]
fn assert_near(what: &str, found: &Matrix, right: &Matrix, tolerance: f64) {
    assert_eq!((found.cols, found.values.len()), (right.cols, right.values.len()), "{what}");
    let greatest = found.values.iter().zip(&right.values).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
    assert!(greatest <= tolerance, "{what}: {greatest:e}");
}

/// The canonical names of the tensors that hold the targets.
fn tensors(family: &Family, adapter: &Adapter) -> Vec<String> {
    let mut names: Vec<String> = adapter.targets.iter().map(|t| place(family, &t.name).0).collect();
    names.dedup();
    names
}

#[test]
fn only_the_rows_of_targeted_parts_change() {
    let folder = tempfile::tempdir().unwrap();
    for (name, words) in fused().flat_map(|name| [(name, "all"), (name, "q,v,up,o")]) {
        let family = Family::open(name);
        let mut merged_of = Vec::new();
        for container in CONTAINERS {
            let (path, out) = (family.path(container), out(folder.path(), container, "merged"));
            let base = Base::open(&path).unwrap();
            let adapter = family.adapter(&base, words);
            let report = run(&base, &[(Source::Cur(&adapter), 0.5)], Storage::Only(DType::F32), &out);
            let tensors = tensors(&family, &adapter);
            assert_eq!(report.tensors.len(), tensors.len());
            for tensor in &tensors {
                let w = read(&path, name, tensor);
                let mut right = Matrix { cols: w.cols, values: w.values.clone() };
                for target in &adapter.targets {
                    let (whole, first) = place(&family, &target.name);
                    if whole == *tensor {
                        add(&w, &mut right, first, target, f64::from(adapter.scale) * 0.5);
                    }
                }
                assert!(right != w, "{name} {tensor}");
                let found = read(&out, name, tensor);
                assert_near(&format!("{name} {container:?} {tensor}"), &found, &right, 1e-6);
                // Rows of parts that are not targets stay unchanged.
                for (i, (w, right)) in w.values.iter().zip(&right.values).enumerate() {
                    assert!(w != right || found.values[i] == *w, "{name} {tensor} {i}");
                }
                let reported = report.tensors.iter().find(|t| t.name == *tensor).unwrap();
                let parts = match (tensor.ends_with("qkv"), words) {
                    (true, "all") => "[q,k,v]",
                    (true, _) => "[q,v]",
                    _ if !(name.starts_with("phi3") || name == "glm4") || !tensor.ends_with("ffn_up") => "",
                    (_, "all") => "[gate,up]",
                    _ => "[up]",
                };
                assert_eq!(reported.label(), format!("{tensor}{parts}"));
                assert!((reported.share - 1.0).abs() < 1e-4 && reported.change > 0.0, "{reported:?}");
            }
            let merged = Base::open(&out).unwrap();
            for (other, stored) in base.tensors().iter().filter(|(name, _)| !tensors.contains(name)) {
                assert!(base.bytes(stored) == merged.bytes(&merged.tensors()[other]), "{name} {other}");
            }
            merged_of.push(tensors.iter().map(|t| read(&out, name, t).values).collect::<Vec<_>>());
        }
        // Transposed matrices give the same numbers too.
        assert!(merged_of[0] == merged_of[1], "{name}: folder and GGUF file merge to different values");
    }
}

#[test]
fn stored_types_are_kept_and_rows_of_other_parts_are_not_rounded_again() {
    let folder = tempfile::tempdir().unwrap();
    for name in fused_qkv() {
        let family = Family::open(name);
        for container in CONTAINERS {
            let (path, out) = (family.path(container), out(folder.path(), container, "merged"));
            let base = Base::open(&path).unwrap();
            let adapter = family.adapter(&base, "all");
            let report = run(&base, &[(Source::Cur(&adapter), 0.1)], Storage::AsStored, &out);
            for tensor in &report.tensors {
                assert!((tensor.share - 1.0).abs() < 0.02 && tensor.dtype == "BF16", "{name} {tensor:?}");
            }
            Base::open(&out).unwrap();
        }
        let base = Base::open(family.path(Container::Gguf)).unwrap();
        let curmerge::base::Files::Gguf(model) = base.files() else { unreachable!() };
        let quantized = folder.path().join("q8_0.gguf");
        retype(model, FileType::Q8_0, None, &quantized, &[], None, |_, _| ()).unwrap();
        let (base, out) = (Base::open(&quantized).unwrap(), folder.path().join("merged.gguf"));
        let adapter = family.adapter(&base, "v");
        let report = run(&base, &[(Source::Cur(&adapter), 1.0)], Storage::AsStored, &out);
        assert!(report.tensors.iter().all(|t| (t.share - 1.0).abs() < 0.1 && t.dtype == "Q8_0"));
        let merged = Base::open(&out).unwrap();
        for part in ["q", "k", "v"] {
            let [before, after] = [&base, &merged].map(|base| {
                let weight = base.weight(&format!("blk.0.attn_qkv[{part}]")).unwrap();
                weight.stored_bytes().to_vec()
            });
            assert_eq!(before == after, part != "v", "{name} {part}");
        }
    }
}

#[test]
fn fused_tensors_merge_into_file_types_and_the_narrowest_type() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in fused() {
        let family = Family::open(name);
        let base = Base::open(family.path(Container::Gguf)).unwrap();
        let adapter = family.adapter(&base, "q,v,down");
        let sources = [(Source::Cur(&adapter), 1.0)];
        let options = MergeOptions { file_type: Some(FileType::Q4_K_M), ..Default::default() };
        let report = merge(&base, &sources, &options, path("mixture.gguf"), |_, _| {}).unwrap();
        let merged = Base::open(path("mixture.gguf")).unwrap();
        for tensor in &report.tensors {
            assert!((tensor.share - 1.0).abs() < 0.15, "{name} {tensor:?}");
            assert_eq!(merged.tensors()[&tensor.name].dtype.name(), tensor.dtype);
            assert!(tensor.dtype.starts_with('Q'), "{tensor:?}");
        }
        let narrowest = |fidelity| {
            // The adapter was made on the values before quantization.
            let (base_check, storage) = (BaseCheck::AllowOtherValues, Storage::Narrowest { fidelity });
            let options = MergeOptions { base_check, storage, ..Default::default() };
            merge(&merged, &sources, &options, path("narrowest.gguf"), |_, _| {}).unwrap().tensors
        };
        assert!(narrowest(0.99).iter().all(|t| t.fidelity >= 0.99));
        assert!(narrowest(0.0).iter().zip(&report.tensors).all(|(t, was)| t.dtype == was.dtype));
    }
}

#[test]
fn exported_loras_and_several_adapters_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in fused() {
        let family = Family::open(name);
        for container in CONTAINERS {
            let base = Base::open(family.path(container)).unwrap();
            let (all, some) = (family.adapter(&base, "all"), family.adapter(&base, "k,o"));
            export(&base, &all, Format::Peft, path("peft"), &[], true).unwrap();
            export(&base, &all, Format::Gguf, path("lora.gguf"), &[], true).unwrap();
            let merged = |file: &str, sources: &[(Source<'_>, f32)]| {
                let out = out(folder.path(), container, file);
                run(&base, sources, Storage::Only(DType::F32), &out);
                let read = |tensor: &String| read(&out, name, tensor);
                tensors(&family, &all).iter().map(read).collect::<Vec<Matrix>>()
            };
            let near = |what: &str, a: &[Matrix], b: &[Matrix]| {
                a.iter()
                    .zip(b)
                    .for_each(|(a, b)| assert_near(&format!("{name} {container:?} {what}"), a, b, 1e-6));
            };
            let own = merged("own", &[(Source::Cur(&all), 0.5)]);
            let loras = ["peft", "lora.gguf"].map(|lora| Lora::open(path(lora), &base).unwrap());
            for (lora, what) in loras.iter().zip(["PEFT", "GGUF"]) {
                assert_eq!(lora.targets().collect::<Vec<_>>().len(), tensors(&family, &all).len());
                near(what, &merged("lora", &[(Source::Lora(lora), 0.5)]), &own);
            }
            let both = merged("both", &[(Source::Cur(&some), 1.0), (Source::Lora(&loras[0]), 0.5)]);
            let (some, none) = (merged("some", &[(Source::Cur(&some), 1.0)]), merged("none", &[]));
            for (((both, own), some), none) in both.iter().zip(&own).zip(&some).zip(&none) {
                let sum = own.values.iter().zip(&some.values).zip(&none.values).map(|((a, b), w)| a + b - w);
                let right = Matrix { cols: own.cols, values: sum.collect() };
                assert_near(&format!("{name} {container:?} both"), both, &right, 1e-6);
            }
            assert!(both[0] != own[0]);
        }
    }
}

#[test]
fn a_flipped_bit_in_any_part_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in fused_qkv() {
        let family = Family::open(name);
        for container in CONTAINERS {
            let base = Base::open(family.path(container)).unwrap();
            let adapter = family.adapter(&base, "q,v,down");
            let others: Vec<&String> =
                adapter.base.other_tensors.keys().filter(|name| name.contains("attn_qkv")).collect();
            assert!(others.iter().any(|name| *name == "blk.0.attn_qkv[k]"), "{others:?}");
            assert!(!others.iter().any(|name| name.contains("[q]") || name.ends_with("qkv")), "{others:?}");
            assert_eq!(fingerprint::compare_others(&base, &adapter), Some(Vec::new()));
            assert!(
                fingerprint::compare_targets(&base, &adapter)
                    .iter()
                    .all(|l| *l == fingerprint::Likeness::Bytes)
            );
            fingerprint::check(&base, &adapter, BaseCheck::SameValues).unwrap();

            // The first byte of k's first row, or of its first column in gpt2's folder, which stores `[in,
            // out]`.
            let tensor = &base.tensors()["blk.0.attn_qkv"];
            let first = match (name, container) {
                // The first k follows the queries that share it.
                ("gptneox" | "falcon-40b" | "falcon-11b", Container::Folder) => 16,
                _ => place(&family, "blk.0.attn_qkv[k]").1 as u64,
            };
            let per_row = if tensor.transposed { 2 } else { 2 * tensor.shape[1] };
            let model = folder.path().join(format!("{name}-{container:?}.gguf"));
            let file = match container {
                Container::Gguf => model.clone(),
                Container::Folder => {
                    copy(&family.path(container), &model);
                    model.join("model.safetensors")
                }
            };
            let original = match container {
                Container::Gguf => family.path(container),
                Container::Folder => family.path(container).join("model.safetensors"),
            };
            let mut bytes = fs::read(original).unwrap();
            let at = (tensor.offset + first * per_row) as usize;
            bytes[at] ^= 1;
            fs::write(&file, &bytes).unwrap();
            let changed = Base::open(&model).unwrap();
            fingerprint::check(&changed, &adapter, BaseCheck::SameValues).unwrap();
            let named = Some(vec!["blk.0.attn_qkv[k]".to_string()]);
            assert_eq!(fingerprint::compare_others(&changed, &adapter), named);
            drop(changed);
            // One row or column earlier, the byte belongs to q.
            bytes[at] ^= 1;
            bytes[at - per_row as usize] ^= 1;
            fs::write(&file, &bytes).unwrap();
            let error = fingerprint::check(&Base::open(&model).unwrap(), &adapter, BaseCheck::SameValues)
                .unwrap_err()
                .to_string();
            assert!(error.contains("blk.0.attn_qkv[q]"), "{error}");
        }
        let [folder, gguf] = CONTAINERS.map(|container| Base::open(family.path(container)).unwrap());
        fingerprint::check(&gguf, &family.adapter(&folder, "all"), BaseCheck::SameValues).unwrap();
        fingerprint::check(&folder, &family.adapter(&gguf, "all"), BaseCheck::SameValues).unwrap();
        assert_eq!(fingerprint::compare_others(&gguf, &family.adapter(&folder, "q")), None);
    }
}

/// phi3 under the name of an unknown architecture, as a GGUF file and as a folder, each with the names of one
/// matrix of attention and one of the feed-forward part.
fn unknown(folder: &Path) -> [(PathBuf, [&'static str; 2]); 2] {
    let family = Family::open("phi3");
    let (gguf, hf) = (folder.join("phi9.gguf"), folder.join("phi9"));
    let name = Some(Value::String("phi9".into()));
    Remade::of(&family.path(Container::Gguf)).set("general.architecture", name).write(&gguf);
    families::renamed("phi3", "phi9", &hf);
    [
        (gguf, ["blk.0.attn_qkv", "blk.1.ffn_down"]),
        (hf, ["model.layers.0.self_attn.qkv_proj", "model.layers.1.mlp.down_proj"]),
    ]
}

#[test]
fn matrices_of_unknown_architectures_are_selected_and_merged_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (base, names) in unknown(folder.path()) {
        let [adapter_file, data, lora] = ["adapter.st", "data.jsonl", "lora.gguf"].map(&path);
        let words = names.join(",");
        curmerge!("select", base, "-o", adapter_file, "--targets", words, "--rank", "4").done();
        let mut adapter = Adapter::read(&adapter_file).unwrap();
        assert_eq!(adapter.base.architecture, "phi9");
        for target in &mut adapter.targets {
            (0..16).for_each(|i| target.u[i] = (i as f32 - 7.0) / 8.0);
        }
        adapter.write(&adapter_file, &[]).unwrap();
        assert_eq!(curmerge!("verify", adapter_file, "--base", base, "--json").json()["sound"], true);
        curmerge!("inspect", base).done();
        let out = path(if base.is_file() { "merged.gguf" } else { "merged" });
        curmerge!("merge", base, adapter_file, "-o", out, "--type-adapted", "f32").done();
        for (target, canonical) in adapter.targets.iter().zip(["blk.0.attn_qkv", "blk.1.ffn_down"]) {
            let w = read(&base, "phi3", canonical);
            let mut right = Matrix { cols: w.cols, values: w.values.clone() };
            add(&w, &mut right, 0, target, 1.0);
            assert!(right != w);
            assert_near(canonical, &read(&out, "phi3", canonical), &right, 1e-6);
        }
        let merged = curmerge!("merge", base, lora, "-o", path("none.gguf"));
        assert_ne!(merged.status, Some(0));
        let exported = curmerge!("export", adapter_file, "--base", base, "--format", "gguf", "-o", lora);
        if base.is_file() {
            exported.done();
            curmerge!("merge", base, lora, "-o", path("with-lora.gguf"), "--type-adapted", "f32").done();
            let [a, b] = [&out, &path("with-lora.gguf")].map(|file| read(file, "phi3", "blk.0.attn_qkv"));
            assert_near("LoRA", &b, &a, 1e-6);
        } else {
            assert!(exported.stderr.contains("'phi9' is not known"), "{}", exported.stderr);
        }
        fs::remove_file(&lora).ok();

        fs::write(&data, "{\"text\": \"a\"}\n").unwrap();
        for refused in [
            curmerge!("build", base, "--data", data, "-o", path("trained.st")),
            curmerge!("eval", base, "--data", data),
            curmerge!("run", base, "-p", "a"),
            curmerge!("export", adapter_file, "--base", base, "--format", "peft", "-o", path("peft")),
        ] {
            assert_eq!(refused.status, Some(1));
            for known in ["'phi9' is not known", "gemma3", "gpt2", "phi3", "qwen3_moe"] {
                assert!(refused.stderr.contains(known), "{}", refused.stderr);
            }
        }
        let refused = curmerge!("select", base, "-o", adapter_file, "--targets", "q,v");
        assert!(refused.stderr.contains("'q' is not a target"), "{}", refused.stderr);
        assert!(refused.stderr.contains("name its matrices"), "{}", refused.stderr);
        // Its adapters do not fit the known model with the same weights.
        let own = Family::open("phi3").path(if base.is_file() { Container::Gguf } else { Container::Folder });
        let refused = curmerge!("merge", own, adapter_file, "-o", out);
        let problem = match base.is_file() {
            true => "'phi3', and the adapter was made on 'phi9'",
            false => "the model has no such tensor",
        };
        assert!(refused.stderr.contains(problem), "{}", refused.stderr);
    }
}
