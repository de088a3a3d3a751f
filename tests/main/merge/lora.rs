//! Merges of LoRA adapters. An exported adapter must merge to the same bytes as the adapter itself.
//! tests/real/peft.rs compares with PEFT.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use curmerge::base::Base;
use curmerge::cur::Selection;
use curmerge::export::{Format, export};
use curmerge::lora::{Lora, peft};
use curmerge::merge::{MergeOptions, Source, Storage, merge};
use curmerge_formats::adapter::Adapter;
use curmerge_formats::dtype::DType;
use curmerge_formats::safetensors::{NewSafeTensor, SafeTensors, SafeTensorsLayout};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value as Json, json};

use crate::support::adapter::Recipe;
use crate::support::families::{Container, Family};
use crate::support::{families, tiny};

/// A random adapter of rank 5. If `uneven`, every second target has only 4 columns.
fn adapter(base: &Base, targets: &str, uneven: bool) -> Adapter {
    let mut stream = ChaCha20Rng::seed_from_u64(9);
    let recipe = Recipe { targets, rank: 5, selection: Selection::Reference, seed: 3, ..Default::default() };
    recipe.adapter(base, |(i, target)| {
        target.cols.truncate(5 - usize::from(uneven) * (i % 2));
        target.u = (0..target.cols.len() * 5).map(|_| 0.3 * tiny::uniform(&mut stream)).collect();
    })
}

/// The tiny model in both containers, in a folder for one test's files.
pub struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        tiny::write_gguf(&folder.path().join("tiny.gguf"), DType::F32);
        tiny::write_folder(&folder.path().join("tiny-hf"));
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn base(&self, name: &str) -> Base {
        Base::open(self.path(name)).unwrap()
    }

    /// Merges, and returns the bytes of the tensor files.
    fn merged(&self, base: &Base, sources: &[(Source<'_>, f32)]) -> Vec<u8> {
        let gguf = base.container() == "gguf";
        let out = self.path(if gguf { "out.gguf" } else { "out-hf" });
        let options = MergeOptions { force: true, storage: Storage::Only(DType::F32), ..Default::default() };
        merge(base, sources, &options, &out, |_, _| {}).unwrap();
        if gguf {
            return fs::read(out).unwrap();
        }
        let files = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
        let mut shards: Vec<_> =
            files.filter(|f| f.extension().is_some_and(|e| e == "safetensors")).collect();
        shards.sort();
        shards.iter().flat_map(|shard| fs::read(shard).unwrap()).collect()
    }

    /// Exports an adapter of the tiny GGUF file as a PEFT folder.
    pub fn peft(&self, uneven: bool) -> PathBuf {
        let (base, out) = (self.base("tiny.gguf"), self.path("peft"));
        export(&base, &adapter(&base, "q,v", uneven), Format::Peft, &out, &[], true).unwrap();
        out
    }
}

#[test]
fn exported_adapters_merge_to_the_same_bytes() {
    let fixture = Fixture::new();
    for base in ["tiny.gguf", "tiny-hf"] {
        let base = fixture.base(base);
        // An export orders the rows of q and k as PEFT or GGUF does, whichever container the base has.
        for exporting in ["tiny.gguf", "tiny-hf"] {
            let exporting = fixture.base(exporting);
            // GGUF has one alpha for all targets. With uneven ranks, scaling by it rounds, so bytes would
            // differ.
            for (format, out, uneven) in [(Format::Gguf, "lora.gguf", false), (Format::Peft, "peft", true)] {
                let (adapter, out) = (adapter(&base, "all", uneven), fixture.path(out));
                let right = fixture.merged(&base, &[(Source::Cur(&adapter), 2.0)]);
                export(&exporting, &adapter, format, &out, &[], true).unwrap();
                assert!(Lora::is_lora(&out));
                let lora = Lora::open(&out, &base).unwrap();
                assert!(fixture.merged(&base, &[(Source::Lora(&lora), 2.0)]) == right, "{}", out.display());
            }
        }
    }
}

#[test]
fn several_adapters_add_up() {
    let fixture = Fixture::new();
    let base = fixture.base("tiny.gguf");
    let (some, all) = (adapter(&base, "q,v", true), adapter(&base, "all", true));
    let lora = Lora::open(fixture.peft(true), &base).unwrap();
    let values = |bytes: Vec<u8>| -> Vec<f32> {
        fs::write(fixture.path("read.gguf"), bytes).unwrap();
        let merged = fixture.base("read.gguf");
        base.targets("all", None)
            .unwrap()
            .iter()
            .flat_map(|name| merged.weight(name).unwrap().vector())
            .collect()
    };
    let of = |sources: &[(Source<'_>, f32)]| values(fixture.merged(&base, sources));
    let greatest = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    let plain = of(&[]);
    let both = of(&[(Source::Cur(&all), 1.0), (Source::Lora(&lora), 0.5)]);
    let (first, second) = (of(&[(Source::Cur(&all), 1.0)]), of(&[(Source::Cur(&some), 0.5)]));
    let sum: Vec<f32> = plain.iter().zip(&first).zip(&second).map(|((p, a), b)| a + b - p).collect();
    assert!(greatest(&both, &sum) < 1e-6, "{}", greatest(&both, &sum));
    assert!(greatest(&both, &first) > 1e-3 && greatest(&both, &second) > 1e-3);
    let undone = of(&[(Source::Cur(&some), 0.5), (Source::Lora(&lora), -0.5)]);
    assert!(greatest(&undone, &plain) < 1e-6);
}

/// Writes a safetensors file with these tensors in F32.
pub fn write(path: &Path, tensors: &[(String, [u64; 2], Vec<f32>)]) {
    let headers = tensors.iter().map(|(name, shape, _)| NewSafeTensor {
        name: name.clone(),
        dtype: DType::F32,
        shape: shape.to_vec(),
    });
    let layout = SafeTensorsLayout::new(&BTreeMap::new(), headers.collect()).unwrap();
    let mut bytes = layout.header().to_vec();
    bytes.resize(layout.file_bytes() as usize, 0);
    for ((_, _, values), place) in tensors.iter().zip(layout.tensors()) {
        let data: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        bytes[place.offset as usize..][..data.len()].copy_from_slice(&data);
    }
    fs::write(path, bytes).unwrap();
}

/// The matrices of a PEFT folder.
pub fn matrices(folder: &Path) -> Vec<(String, [u64; 2], Vec<f32>)> {
    let file = SafeTensors::open(&folder.join(peft::WEIGHTS)).unwrap();
    let floats = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
    let tensors = file.tensors().iter();
    tensors.map(|t| (t.name.clone(), [t.shape[0], t.shape[1]], floats(file.data(t)))).collect()
}

#[test]
fn names_with_what_wrapped_the_model_are_understood() {
    let fixture = Fixture::new();
    let base = fixture.base("tiny-hf");
    let folder = fixture.peft(false);
    let merged = |lora: &Lora| fixture.merged(&base, &[(Source::Lora(lora), 1.0)]);
    let right = merged(&Lora::open(&folder, &base).unwrap());
    let own = matrices(&folder);
    for (from, to) in [
        // AutoModel instead of AutoModelForCausalLM.
        ("base_model.model.model.", "base_model.model."),
        // A raw state dict.
        (".weight", ".default.weight"),
        ("base_model.model.model.", "model."),
        // torch.compile, DistributedDataParallel, FSDP.
        ("base_model.model.", "base_model.model._orig_mod."),
        ("base_model.model.", "module.base_model.model."),
        ("base_model.model.", "_fsdp_wrapped_module.base_model.model."),
        (".self_attn.", "._fsdp_wrapped_module.self_attn."),
        // The language model of a vision model.
        ("base_model.model.model.", "base_model.model.model.language_model."),
        ("base_model.model.model.", "base_model.model.language_model.model."),
    ] {
        let renamed =
            own.iter().map(|(name, shape, values)| (name.replace(from, to), *shape, values.clone()));
        write(&folder.join(peft::WEIGHTS), &renamed.collect::<Vec<_>>());
        let lora = Lora::open(&folder, &base).unwrap_or_else(|error| panic!("{to}: {error}"));
        assert!(merged(&lora) == right, "{to}");
    }
}

#[test]
fn an_adapter_of_mlx_lm_is_merged() {
    let fixture = Fixture::new();
    let base = fixture.base("tiny-hf");
    let folder = fixture.peft(false);
    let merged = |lora: &Lora| fixture.merged(&base, &[(Source::Lora(lora), 1.0)]);
    // PEFT's scale is 1 here.
    let right = merged(&Lora::open(&folder, &base).unwrap());
    let tensors: Vec<_> = matrices(&folder)
        .into_iter()
        .map(|(name, [rows, cols], values)| {
            let name = name.strip_prefix("base_model.model.").unwrap().strip_suffix(".weight").unwrap();
            let name = name.replace("lora_A", "lora_a").replace("lora_B", "lora_b");
            let at = |col: u64| (0..rows).map(move |row| (row * cols + col) as usize);
            let transposed = (0..cols).flat_map(at).map(|place| values[place]).collect();
            (name, [cols, rows], transposed)
        })
        .collect();
    fs::remove_file(folder.join(peft::WEIGHTS)).unwrap();
    write(&folder.join("adapters.safetensors"), &tensors);
    let configure = |kind: &str, scale: f32| {
        let parameters = json!({ "rank": 5, "scale": scale, "dropout": 0.0 });
        let config = json!({ "fine_tune_type": kind, "num_layers": 2, "lora_parameters": parameters });
        fs::write(folder.join(peft::CONFIG), config.to_string()).unwrap();
        Lora::open(&folder, &base).map_err(|error| error.to_string())
    };
    assert!(Lora::is_lora(&folder));
    assert!(merged(&configure("lora", 1.0).unwrap()) == right);
    assert!(merged(&configure("lora", 2.0).unwrap()) != right);
    let error = configure("dora", 1.0).unwrap_err();
    assert!(error.contains("fine_tune_type") && error.contains("mlx_lm.fuse"), "{error}");
}

#[test]
fn pickled_matrices_are_named() {
    let fixture = Fixture::new();
    let folder = fixture.peft(false);
    fs::rename(folder.join(peft::WEIGHTS), folder.join("adapter_model.bin")).unwrap();
    let error = Lora::open(&folder, &fixture.base("tiny.gguf")).unwrap_err().to_string();
    assert!(
        error.contains("adapter_model.bin: is a pickled .bin file") && error.contains("safe_serialization"),
        "{error}"
    );
}

/// PEFT saves the head's own weight beside its LoRA.
#[test]
fn a_lora_of_the_head_is_merged() {
    let fixture = Fixture::new();
    let folder = fixture.path("head");
    fs::create_dir(&folder).unwrap();
    let config = json!({ "peft_type": "LORA", "r": 4, "lora_alpha": 4 });
    fs::write(folder.join(peft::CONFIG), config.to_string()).unwrap();
    let head = |[vocab, width]: [u64; 2], own: Option<Vec<f32>>| {
        let name = |part: &str| format!("base_model.model.lm_head.{part}.weight");
        let filled = |part: &str, shape: [u64; 2], value: f32| {
            (name(part), shape, vec![value; (shape[0] * shape[1]) as usize])
        };
        let mut tensors = vec![filled("lora_A", [4, width], 0.01), filled("lora_B", [vocab, 4], 0.02)];
        tensors.extend(own.map(|own| (name("base_layer"), [vocab, width], own)));
        write(&folder.join(peft::WEIGHTS), &tensors);
    };
    let family = Family::open("llama2");
    for container in [Container::Gguf, Container::Folder] {
        let base = Base::open(family.path(container)).unwrap();
        let old = base.weight("output").unwrap();
        let shape = [old.rows() as u64, old.cols() as u64];
        let merged = [None, Some(old.vector())].map(|own| {
            head(shape, own);
            fixture.merged(&base, &[(Source::Lora(&Lora::open(&folder, &base).unwrap()), 1.0)])
        });
        assert!(merged[0] == merged[1]);
        let out = fixture.path(if container == Container::Gguf { "out.gguf" } else { "out-hf" });
        let merged = Base::open(out).unwrap();
        let new = merged.weight("output").unwrap().vector();
        // W + B A, whose elements are all 4 * 0.01 * 0.02.
        assert!(old.vector().iter().zip(&new).all(|(old, new)| (new - old - 0.0008).abs() < 1e-6));
    }
    head([8, 256], None);
    let error = Lora::open(&folder, &fixture.base("tiny.gguf")).unwrap_err().to_string();
    assert!(error.contains("shares with its embeddings"), "{error}");
}

/// Exports the PEFT folder, changes its configuration, and opens it.
fn with_config(fixture: &Fixture, change: impl Fn(&mut Json)) -> Result<Lora, String> {
    let folder = fixture.peft(true);
    let path = folder.join(peft::CONFIG);
    let mut config: Json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(&path, config.to_string()).unwrap();
    Lora::open(&folder, &fixture.base("tiny.gguf")).map_err(|e| e.to_string())
}

#[test]
fn scales_are_as_peft_defines_them() {
    let fixture = Fixture::new();
    let base = fixture.base("tiny.gguf");
    let factor = |change: fn(&mut Json), name: &str| {
        let weight = base.weight(name).unwrap();
        let p = |lora: Lora| lora.factors(name, &weight, 1.0).unwrap().p;
        let (changed, plain) =
            (with_config(&fixture, change).unwrap(), with_config(&fixture, |_| ()).unwrap());
        let (changed, plain) = (p(changed), p(plain));
        let index = (0..plain.len()).max_by(|&a, &b| plain[a].abs().total_cmp(&plain[b].abs())).unwrap();
        changed[index] / plain[index]
    };
    // q has rank 5. v has rank and alpha 4, by rank_pattern and alpha_pattern.
    let near = |found: f32, right: f32| assert!((found - right).abs() < 1e-5 * right, "{found} {right}");
    let rslora = |config: &mut Json| config["use_rslora"] = json!(true);
    near(factor(rslora, "blk.0.attn_q"), 5f32.sqrt());
    near(factor(rslora, "blk.0.attn_v"), 4f32.sqrt());
    let alpha = |config: &mut Json| config["lora_alpha"] = json!(15.0);
    near(factor(alpha, "blk.0.attn_q"), 3.0);
    near(factor(alpha, "blk.0.attn_v"), 1.0);
    let pattern = |config: &mut Json| config["alpha_pattern"] = json!({ "self_attn.[qv]_proj": 40 });
    near(factor(pattern, "blk.0.attn_q"), 8.0);
    near(factor(pattern, "blk.0.attn_v"), 10.0);
    // Only whole parts of a name match.
    let part = |config: &mut Json| config["alpha_pattern"] = json!({ "_proj": 40, "q_proj": 10 });
    near(factor(part, "blk.0.attn_q"), 2.0);
    // The first matching pattern of the file counts. serde_json would sort them, so this changes the text.
    let folder = fixture.peft(true);
    let path = folder.join(peft::CONFIG);
    let text = fs::read_to_string(&path).unwrap();
    let first = r#""alpha_pattern": { "v_proj": 40, "self_attn.v_proj": 10 }, "auto_mapping": {"#;
    fs::write(&path, text.replacen(r#""alpha_pattern": {"#, first, 1)).unwrap();
    let weight = base.weight("blk.0.attn_v").unwrap();
    let p = |lora: Lora| lora.factors("blk.0.attn_v", &weight, 1.0).unwrap().p[0];
    let changed = p(Lora::open(&folder, &base).unwrap());
    near(changed / p(with_config(&fixture, |_| ()).unwrap()), 10.0);
}

#[test]
fn unsupported_peft_settings_are_refused_by_name() {
    let fixture = Fixture::new();
    let refused = |key: &str, value: Json| {
        let error = with_config(&fixture, |config| config[key] = value.clone()).unwrap_err();
        assert!(error.contains("adapter_config.json") && error.contains(key), "{error}");
    };
    refused("use_dora", json!(true));
    refused("bias", json!("lora_only"));
    refused("lora_bias", json!(true));
    refused("modules_to_save", json!(["lm_head"]));
    refused("trainable_token_indices", json!([1, 2]));
    refused("target_parameters", json!(["experts.gate_up_proj"]));
    refused("alora_invocation_tokens", json!([5]));
    for changing in ["pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "of_next_year"] {
        refused("init_lora_weights", json!(changing));
    }
    for keeping in [json!(true), json!(false), json!("gaussian"), json!("eva"), json!("orthogonal")] {
        assert!(with_config(&fixture, |config| config["init_lora_weights"] = keeping.clone()).is_ok());
    }
    refused("use_qalora", json!(true));
    refused("kasa_config", json!({ "beta": 0.1 }));
    refused("use_what_is_not_known", json!(true));
    refused("peft_type", json!("IA3"));
    refused("lora_alpha", json!("many"));
    refused("r", json!(0));
    refused("rank_pattern", json!({ "(": 4 }));
    refused("alpha_pattern", json!([3]));
    let error = with_config(&fixture, |config| config["rank_pattern"] = json!({})).unwrap_err();
    assert!(error.contains("rank 5") && error.contains("v_proj"), "{error}");
    assert!(with_config(&fixture, |config| config["bias"] = Json::Null).is_ok());
    // fan_in_fan_out describes the base's matrices. Those of the LoRA are the same.
    assert!(with_config(&fixture, |config| config["fan_in_fan_out"] = json!(true)).is_ok());
}

#[test]
fn damaged_loras_are_refused() {
    let fixture = Fixture::new();
    let base = fixture.base("tiny.gguf");
    let folder = fixture.peft(false);
    let open = || Lora::open(&folder, &base).map_err(|e| e.to_string());
    fs::write(folder.join(peft::CONFIG), "{").unwrap();
    assert!(open().unwrap_err().contains("adapter_config.json: line 1"));
    fixture.peft(false);
    let weights = folder.join(peft::WEIGHTS);
    let sound = fs::read(&weights).unwrap();
    let header = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let text = from.as_bytes();
        let mut bytes = sound.clone();
        for at in 0..sound.len() - text.len() {
            if &sound[at..][..text.len()] == text {
                bytes[at..][..text.len()].copy_from_slice(to.as_bytes());
            }
        }
        fs::write(&weights, bytes).unwrap();
        open().unwrap_err()
    };
    assert!(header("q_proj.lora_A", "q_proj.lora_X").contains("lora_X"));
    assert!(header("q_proj.lora_A", "k_proj.lora_A").contains("one of its two"));
    assert!(header("layers.0", "layers.7").contains("blk.7.attn_q"));
    let error = header("[5,256]", "[256,5]");
    assert!(error.contains("rank 5, but its matrices have 256"), "{error}");
    let error = header("v_proj", "o_proj");
    assert!(error.contains("for a matrix of [256, 256]"), "{error}");
    assert!(header("base_model", "fast_model").contains("belongs to no linear layer"));
    let gguf = |path: &Path| Lora::open(path, &base).unwrap_err().to_string();
    assert!(gguf(&fixture.path("tiny.gguf")).contains("general.type"));
}

/// An unknown model may store a square matrix either way round. fan_in_fan_out cannot tell, since it holds
/// for all modules at once.
#[test]
fn loras_of_transposed_modules_need_a_known_architecture() {
    let folder = tempfile::tempdir().unwrap();
    let [unknown, lora, out] = ["gpt9", "peft", "merged"].map(|name| folder.path().join(name));
    families::renamed("gpt2", "gpt9", &unknown);
    let known = families::Family::open("gpt2").path(families::Container::Folder);
    let known = Base::open(&known).unwrap();
    let mut adapter = adapter(&known, "o", false);
    adapter.targets.truncate(1);
    assert_eq!(adapter.targets[0].shape[0], adapter.targets[0].shape[1]);
    export(&known, &adapter, Format::Peft, &lora, &[], true).unwrap();
    let unknown = Base::open_any(&unknown).unwrap();
    let error = Lora::open(&lora, &unknown).unwrap_err().to_string();
    for part in ["adapter_config.json", "fan_in_fan_out", "'gpt9' is not known"] {
        assert!(error.contains(part), "{error}");
    }

    let config = lora.join(peft::CONFIG);
    let mut json: Json = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    assert_eq!(json["fan_in_fan_out"], true);
    json["fan_in_fan_out"] = false.into();
    fs::write(&config, json.to_string()).unwrap();
    let lora = Lora::open(&lora, &unknown).unwrap();
    merge(&unknown, &[(Source::Lora(&lora), 1.0)], &MergeOptions::default(), &out, |_, _| {}).unwrap();
}
