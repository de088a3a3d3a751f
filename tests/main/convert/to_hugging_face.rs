//! GGUF models converted to Hugging Face folders: tokens, values and settings stay the same in curmerge's own
//! readers. tests/real/smollm2.rs and tests/clients/demo.rs load such folders with transformers and
//! `tokenizers`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use curmerge::base::{Base, RopeScaling};
use curmerge::chat::Message;
use curmerge::commands::report::errors;
use curmerge::convert::{ConvertReport, FolderOptions, to_hugging_face};
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::Value;
use serde_json::Value as Json;

use crate::support::remade::{PRE_TOKENIZERS, Remade};
use crate::support::{fixture, remade};

/// A model and the folder made from it.
struct Converted {
    folder: tempfile::TempDir,
    report: ConvertReport,
}

impl Converted {
    fn model(&self) -> PathBuf {
        self.folder.path().join("model.gguf")
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn json(&self, name: &str) -> Json {
        serde_json::from_slice(&fs::read(self.out().join(name)).unwrap()).unwrap()
    }
}

fn try_convert(model: &Remade, options: &FolderOptions) -> Result<Converted, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    model.write(&path);
    let base = Base::open(&path).map_err(|e| e.to_string())?;
    let out = folder.path().join("out");
    match to_hugging_face(&base, &out, options, |_, _| ()) {
        Ok(report) => Ok(Converted { report, folder }),
        Err(error) => {
            assert!(!out.exists());
            Err(errors::line(&error))
        }
    }
}

fn convert(model: &Remade, dtype: Option<DType>) -> Converted {
    try_convert(model, &FolderOptions { dtype, ..Default::default() }).unwrap()
}

fn refusal(model: &Remade, dtype: Option<DType>) -> String {
    let refused = try_convert(model, &FolderOptions { dtype, ..Default::default() });
    refused.err().expect("the conversion must be refused")
}

/// Checks that the folder's tokenizer gives the same tokens, texts and settings as the file's.
#[track_caller]
fn same_tokens(made: &Converted, what: &str) {
    let [gguf, folder] =
        [made.model(), made.out()].map(|path| Base::open(&path).unwrap().tokenizer().unwrap());
    let settings =
        |t: &curmerge::tokenizer::Tokenizer| (t.bos(), t.eos(), t.adds_bos(), t.adds_eos(), t.vocab_size());
    assert_eq!(settings(&gguf), settings(&folder), "{what}");
    for text in remade::texts() {
        let ids = gguf.encode(&text, true).unwrap();
        assert_eq!(folder.encode(&text, true).unwrap(), ids, "{what}: {text:?}");
        assert_eq!(folder.decode(&ids), gguf.decode(&ids), "{what}: {text:?}");
    }
}

#[test]
fn every_pre_tokenizer_gives_the_same_tokens() {
    for name in PRE_TOKENIZERS {
        let model = Remade::demo().set("tokenizer.ggml.pre", Some(Value::String((*name).into())));
        same_tokens(&convert(&model, None), name);
    }
}

#[test]
fn sentence_pieces_give_the_same_tokens() {
    for adds_space in [true, false] {
        let made = convert(&Remade::demo().sentence_pieces(adds_space), None);
        same_tokens(&made, if adds_space { "with a leading space" } else { "without" });
        let library = made.json("tokenizer.json");
        assert_eq!(library["model"]["byte_fallback"], true);
        let added: BTreeMap<&str, bool> = library["added_tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| (t["content"].as_str().unwrap(), t["special"].as_bool().unwrap()))
            .collect();
        assert_eq!(
            added,
            BTreeMap::from([("</s>", true), ("<s>", true), ("<unk>", true), ("<|user|>", false)])
        );
    }
}

/// The digest of the values of every tensor, by its canonical name.
fn digests(path: &Path) -> BTreeMap<String, String> {
    let base = Base::open(path).unwrap();
    let digest = |name: &String| (name.clone(), base.weight(name).unwrap().values_sha256());
    base.tensors().keys().filter(|name| *name != "rope_freqs").map(digest).collect()
}

/// How many tensors have each type.
fn types(path: &Path) -> BTreeMap<String, usize> {
    let mut types = BTreeMap::new();
    for tensor in Base::open(path).unwrap().tensors().values() {
        *types.entry(tensor.dtype.to_string()).or_default() += 1;
    }
    types
}

#[test]
fn values_are_kept_and_the_type_follows_the_model() {
    for (stored, asked, written) in [
        (DType::F32, None, DType::F32),
        (DType::F16, None, DType::F16),
        (DType::BF16, None, DType::BF16),
        (DType::Q8_0, None, DType::F16),
        (DType::Q8_0, Some(DType::F32), DType::F32),
        (DType::Q4_0, Some(DType::BF16), DType::BF16),
    ] {
        // The norms are F32. All half types hold ones exactly.
        let ones = vec![1.0; 256];
        let mut model = Remade::demo().stored_as(stored);
        for name in ["output_norm.weight"]
            .into_iter()
            .map(String::from)
            .chain((0..4).flat_map(|l| ["attn", "ffn"].map(|part| format!("blk.{l}.{part}_norm.weight"))))
        {
            model = model.with(&name, &[256], &ones);
        }
        let made = convert(&model, asked);
        assert_eq!(types(&made.out()), BTreeMap::from([(written.to_string(), 38)]), "{stored}");
        assert_eq!(made.report.types, types(&made.out()));
        let exact = stored == written || written == DType::F32;
        assert_eq!(digests(&made.model()) == digests(&made.out()), exact, "{stored} as {written}");
        assert_eq!(
            made.report.notes.iter().any(|note| note.contains("rounded")),
            !exact,
            "{stored} as {written}"
        );
    }
}

#[test]
fn configurations_are_those_of_the_model() {
    let made = convert(&Remade::demo(), None);
    let [mut gguf, folder] =
        [made.model(), made.out()].map(|path| Base::open(&path).unwrap().config().clone());
    // The folder has the shortest decimal number for the f32 of the file.
    assert!((gguf.norm_eps - folder.norm_eps).abs() < 1e-12 && folder.norm_eps == 1e-5);
    gguf.norm_eps = folder.norm_eps;
    assert_eq!(gguf, folder);
    let config = made.json("config.json");
    assert_eq!(config["architectures"][0], "LlamaForCausalLM");
    assert_eq!(config["tie_word_embeddings"], true);
    assert_eq!((&config["bos_token_id"], &config["pad_token_id"]), (&0.into(), &3.into()));
    assert_eq!(made.json("generation_config.json")["eos_token_id"], 0);
    let settings = made.json("tokenizer_config.json");
    assert_eq!(settings["pad_token"], "<|pad|>");
    assert_eq!(settings["model_max_length"], 256);

    let values: Vec<f32> = (0..2048 * 256).map(|i| (i % 7) as f32).collect();
    let model = Remade::demo()
        .with("output.weight", &[256, 2048], &values)
        .set("tokenizer.ggml.eot_token_id", Some(Value::U32(2)))
        .set("tokenizer.chat_template.tool_use", Some(Value::String("tools".into())))
        .set("tokenizer.chat_template.../x", Some(Value::String("trap".into())));
    let made = convert(&model, Some(DType::F32));
    assert_eq!(made.json("config.json")["tie_word_embeddings"], false);
    assert_eq!(made.json("generation_config.json")["eos_token_id"], serde_json::json!([0, 2]));
    assert_eq!(digests(&made.model()), digests(&made.out()));
    let named = made.out().join("additional_chat_templates/tool_use.jinja");
    assert_eq!(fs::read_to_string(named).unwrap(), "tools");
    assert!(made.report.notes.iter().any(|note| note.contains("../x")), "{:?}", made.report.notes);
}

/// llama.cpp ignores the window of Phi 3. transformers applies the one of config.json.
#[test]
fn windows_that_only_transformers_applies_are_noted() {
    let phi3 = fixture::family("phi3", "model.gguf");
    let noted = |window: u32| {
        let model = Remade::of(&phi3).set("phi3.attention.sliding_window", Some(Value::U32(window)));
        let made = convert(&model, None);
        let set = made.json("config.json")["sliding_window"].as_u64() == Some(u64::from(window));
        (
            set,
            made.report.notes.iter().any(|note| note.contains(&format!("sliding window of {window} tokens"))),
        )
    };
    let context = Base::open(&phi3).unwrap().config().context as u32;
    assert_eq!(noted(context - 1), (true, true));
    assert_eq!(noted(context), (true, false));
}

#[test]
fn chats_render_the_same() {
    let made = convert(&Remade::demo(), None);
    let messages = [Message::new("user", "a cat?"), Message::new("assistant", "yes")];
    let [gguf, folder] = [made.model(), made.out()].map(|path| {
        let base = Base::open(&path).unwrap();
        let tokenizer = base.tokenizer().unwrap();
        let template = base.chat_template(&tokenizer).unwrap().unwrap();
        template.encode(&tokenizer, &messages, true).unwrap()
    });
    assert_eq!(gguf, folder);
}

#[test]
fn shards_keep_to_the_limit() {
    let whole = convert(&Remade::demo(), Some(DType::F32));
    let options =
        FolderOptions { dtype: Some(DType::F32), max_shard_size: Some(2_000_000), ..Default::default() };
    let cut = try_convert(&Remade::demo(), &options).unwrap();
    assert_eq!(digests(&whole.out()), digests(&cut.out()));
    let index = cut.json("model.safetensors.index.json");
    assert_eq!(index["metadata"]["total_size"], cut.report.bytes_after);
    let sizes: Vec<u64> = fs::read_dir(cut.out())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".safetensors"))
        .map(|entry| entry.metadata().unwrap().len())
        .collect();
    assert!(sizes.len() > 4, "{sizes:?}");
    // The embedding is larger than the limit.
    assert_eq!(sizes.iter().filter(|size| **size > 2_010_000).count(), 1, "{sizes:?}");
}

#[test]
fn rotary_factors_become_the_rule_that_made_them() {
    let rule = RopeScaling::Llama3 {
        factor: 8.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_context: 8192.0,
    };
    let factors: Vec<f32> = rule.factors(500000.0, 32).iter().map(|&f| f as f32).collect();
    let base = |model: Remade| model.set("llama.rope.freq_base", Some(Value::F32(500000.0)));
    let made = convert(&base(Remade::demo().with("rope_freqs.weight", &[16], &factors)), None);
    let config = made.json("config.json");
    for name in ["rope_parameters", "rope_scaling"] {
        let rope = &config[name];
        assert_eq!((&rope["rope_type"], &rope["factor"]), (&"llama3".into(), &8.0.into()));
        assert_eq!((&rope["low_freq_factor"], &rope["high_freq_factor"]), (&1.0.into(), &4.0.into()));
        assert_eq!(rope["original_max_position_embeddings"], 8192);
    }
    // transformers 5 reads the first, earlier versions the second.
    assert_eq!((&config["rope_parameters"]["rope_theta"], &config["rope_theta"]), (&5e5.into(), &5e5.into()));
    let rope = Base::open(made.out()).unwrap().config().rope.clone();
    assert_eq!(rope.unwrap().factors, Some(rule.factors(500000.0, 32)));

    let linear = Remade::demo().set("llama.rope.scaling.factor", Some(Value::F32(4.0)));
    let config = convert(&linear, None).json("config.json");
    assert_eq!(
        (&config["rope_parameters"]["rope_type"], &config["rope_scaling"]["factor"]),
        (&"linear".into(), &4.0.into())
    );

    let ones = convert(&Remade::demo().with("rope_freqs.weight", &[16], &[1.0; 16]), None);
    assert!(ones.json("config.json").get("rope_scaling").is_none());
    let odd: Vec<f32> = (0..16).map(|i| 1.0 + i as f32).collect();
    let line = refusal(&Remade::demo().with("rope_freqs.weight", &[16], &odd), None);
    assert!(line.contains("rope_freqs") && line.contains("Llama 3"), "{line}");
    let line = refusal(&linear.with("rope_freqs.weight", &[16], &factors), None);
    assert!(line.contains("rope_freqs") && line.contains("linear"), "{line}");
}

#[test]
fn models_that_a_folder_cannot_describe_are_refused() {
    let demo = Remade::demo;
    let line = refusal(&demo().with("blk.0.attn_sinks.weight", &[8], &[0.5; 8]), None);
    assert!(line.contains("blk.0.attn_sinks"), "{line}");
    let line = refusal(&demo().with("blk.0.attn_q.bias", &[256], &[0.5; 256]), None);
    assert!(line.contains("bias"), "{line}");
    let line = refusal(&demo().set("llama.rope.dimension_count", Some(Value::U32(16))), None);
    assert!(line.contains("rope.dimension_count") && line.contains("16 of the 32"), "{line}");
    for (key, said) in [
        ("llama.attention.scale", "attention.scale: attention's scores are scaled by 0.5"),
        ("llama.residual_scale", "residual_scale: it is 0.5"),
        ("llama.logit_scale", "logit_scale: it is 0.5"),
    ] {
        let line = refusal(&demo().set(key, Some(Value::F32(0.5))), None);
        assert!(line.contains(said) && line.contains("LlamaForCausalLM"), "{line}");
    }
    let line = refusal(&demo().set("tokenizer.ggml.pre", Some(Value::String("mmbert".into()))), None);
    assert!(line.contains("\"mmbert\""), "{line}");
    let line = refusal(&demo().set("tokenizer.ggml.model", Some(Value::String("t5".into()))), None);
    assert!(line.contains("t5"), "{line}");
    let line = refusal(&demo().set("tokenizer.ggml.padding_token_id", Some(Value::U32(2048))), None);
    assert!(line.contains("padding_token_id") && line.contains("2048 tokens"), "{line}");
    let line = refusal(&demo(), Some(DType::Q8_0));
    assert!(line.contains("Q8_0") && line.contains("f32, f16 or bf16"), "{line}");
    // Found while writing.
    let large = demo().with("output_norm.weight", &[256], &[70000.0; 256]);
    let line = refusal(&large, Some(DType::F16));
    assert!(
        line.contains("model.norm.weight") && line.contains("70000") && line.contains("bf16 or f32 (--type)"),
        "{line}"
    );
    convert(&large, Some(DType::BF16));
    let line = refusal(&demo().with("output_norm.weight", &[256], &[f32::NAN; 256]), Some(DType::F16));
    assert!(line.contains("model.norm.weight") && line.contains("NaN"), "{line}");
    let long = "x".repeat(2000);
    let mut tokens = vec!["<unk>".to_string(), "<s>".into(), "</s>".into(), long];
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    let count = tokens.len();
    let texts = Value::Array(curmerge_formats::gguf::Array::String(tokens));
    let scores = Value::Array(curmerge_formats::gguf::Array::F32(vec![0.0; count]));
    let kinds = Value::Array(curmerge_formats::gguf::Array::I32(vec![1; count]));
    let model = demo()
        .sentence_pieces(true)
        .set("tokenizer.ggml.tokens", Some(texts))
        .set("tokenizer.ggml.scores", Some(scores))
        .set("tokenizer.ggml.token_type", Some(kinds));
    let line = refusal(&model, None);
    assert!(line.contains("tokenizer.ggml.tokens") && line.contains("1024 bytes"), "{line}");
}

#[test]
fn merges_that_give_no_token_are_left_out_with_a_note() {
    let gguf = curmerge_formats::gguf::Gguf::open(&fixture::demo("model.gguf")).unwrap();
    let mut lines = gguf.get("tokenizer.ggml.merges").unwrap().as_strings().unwrap().to_vec();
    lines.extend(["zzz qqq", "nospace", "e n", "i n"].map(String::from));
    let merges = Value::Array(curmerge_formats::gguf::Array::String(lines));
    let made = convert(&Remade::demo().set("tokenizer.ggml.merges", Some(merges)), None);
    assert!(
        made.report.notes.iter().any(|note| note.contains("merges were left out")),
        "{:?}",
        made.report.notes
    );
    Base::open(made.out()).unwrap().tokenizer().unwrap();
}
