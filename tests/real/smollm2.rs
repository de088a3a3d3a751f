//! SmolLM2-135M-Instruct and Gemma 3 270M compared with transformers, torch, PEFT and llama.cpp.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use curmerge::base::{Base, RopeScaling};
use curmerge::chat::Message;
use curmerge::model::{Batch, Transformer};
use curmerge::train::data::{DataOptions, Dataset};
use curmerge_formats::adapter::Adapter;
use serde_json::{Value, json};

use crate::support::adapter::{Recipe, random};
use crate::support::decoder::logits;
use crate::support::environment::{answer, ask, named};
use crate::support::goldens::{error, log_softmax, numbers};
use crate::support::next::{self, Next, difference};
use crate::support::remade;

const PROMPTS: &[&str] = &[
    "Review: celebrity cameos do not automatically equal laughs\nSentiment:",
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "The three laws of thermodynamics say that",
];
/// llama-perplexity's perplexity on the first 20 chunks of 512 tokens of WikiText-2's test text, for the Q4_1
/// file's weights in F32.
const WIKITEXT: f64 = 27.84;
/// The same for Gemma 3 270M in Q4_K_M.
const GEMMA_WIKITEXT: f64 = 18.6004;

fn folder() -> PathBuf {
    named("CURMERGE_MODELS").join("smollm2-hf")
}

fn quantized() -> PathBuf {
    named("CURMERGE_MODELS").join("smollm2-135m-instruct.Q4_1.gguf")
}

fn data(name: &str) -> PathBuf {
    named("CURMERGE_DATA").join(name)
}

/// A folder for files that each run writes again.
fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("large");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn gemma() -> PathBuf {
    named("CURMERGE_MODELS").join("gemma-3-270m.Q4_K_M.gguf")
}

/// The quantized file's values as F32.
fn single() -> &'static Path {
    static SINGLE: OnceLock<PathBuf> = OnceLock::new();
    SINGLE.get_or_init(|| as_f32(&quantized(), "smollm2.F32.gguf"))
}

/// Gemma's values as F32.
fn gemma_single() -> &'static Path {
    static SINGLE: OnceLock<PathBuf> = OnceLock::new();
    SINGLE.get_or_init(|| as_f32(&gemma(), "gemma.F32.gguf"))
}

fn as_f32(model: &Path, name: &str) -> PathBuf {
    let path = scratch().join(name);
    ask("to_f32.py", &[model.as_os_str(), path.as_os_str()], &[]);
    path
}

/// An adapter of rank 16 on q, k and v of every block, with random U that changes the outputs visibly.
fn random_adapter(base: &Base) -> Adapter {
    Recipe { targets: "q,k,v", rank: 16, ..Default::default() }.adapter(base, random(0.05, 4))
}

#[test]
#[ignore = "needs CURMERGE_MODELS (shared/models/get.py), CURMERGE_DATA, and CURMERGE_PYTHON with torch and transformers"]
fn logits_and_gradients_equal_those_of_torch() {
    let base = Base::open(folder()).unwrap();
    let options = DataOptions { max_seq_len: 128, append_eos: false, ..DataOptions::default() };
    let examples =
        Dataset::read(data("sst2/train.jsonl"), &base.tokenizer().unwrap(), None, &options).unwrap().examples;
    let examples = &examples[..6];
    let adapter = random_adapter(&base);
    let [adapter_file, questions] = ["torch.st", "torch-in.json"].map(|n| scratch().join(n));
    adapter.write(&adapter_file, &[]).unwrap();
    let train: Vec<Value> = examples
        .iter()
        .map(|e| json!({ "ids": e.tokens, "mask": e.loss_mask.iter().map(|&t| u8::from(t)).collect::<Vec<_>>() }))
        .collect();
    let content = json!({ "logits": examples[0].tokens, "train": train });
    std::fs::write(&questions, content.to_string()).unwrap();
    let words = [folder(), adapter_file, questions, "OUT".into()];
    let torch = answer("torch_reference.py", &words.each_ref().map(|w| w.as_os_str()), &[]);

    let mut model = Transformer::<f32>::new(&base).unwrap();
    let mut batch = Batch::default();
    let first = batch.push_sequence(&examples[0].tokens);
    batch.predict(first + examples[0].tokens.len() - 1, 0);
    let logits: Vec<f64> = model.logits(&batch).iter().map(|&x| x.into()).collect();
    let worst = error(logits, &numbers(&torch["logits"]));
    println!("logits: relative error {worst:.1e}");
    assert!(worst < 1e-4, "logits: {worst:e}");

    model.attach(&adapter.targets, adapter.scale).unwrap();
    let mut batch = Batch::default();
    examples.iter().for_each(|e| batch.push(&e.tokens, &e.loss_mask));
    let weight = 1.0 / batch.predictions().len() as f64;
    let (log_probs, gradients) = model.gradients(&batch, weight);
    let loss = -weight * log_probs.iter().sum::<f64>();
    println!("loss {loss:.6}, by torch {:.6}", torch["loss"].as_f64().unwrap());
    assert!(error([loss], &[torch["loss"].as_f64().unwrap()]) < 1e-4);
    let mut worst: (f64, &str) = (0.0, "");
    for (target, gradient) in adapter.targets.iter().zip(&gradients) {
        let found: Vec<f64> = gradient.iter().map(|&x| x.into()).collect();
        let error = error(found, &numbers(&torch["gradients"][&target.name]));
        worst = if error > worst.0 { (error, &target.name) } else { worst };
        assert!(error < 1e-4, "gradient of {}: {error:e}", target.name);
    }
    println!("{} gradients: relative error at most {:.1e} ({})", gradients.len(), worst.0, worst.1);
}

/// What may come after each prompt, by llama.cpp.
fn theirs(model: &Path, lora: Option<&Path>) -> Vec<Next> {
    let mut words = vec![model.as_os_str(), OsStr::new("OUT")];
    words.extend(lora.iter().flat_map(|l| [OsStr::new("--lora"), l.as_os_str()]));
    next::read(&answer("log_probs.py", &words, json!(PROMPTS).to_string().as_bytes()))
}

/// The same by curmerge.
fn ours(model: &Path, adapter: Option<&Path>) -> Vec<Next> {
    next::ours(model, adapter, PROMPTS)
}

#[test]
#[ignore = "needs CURMERGE_MODELS (shared/models/get.py) and CURMERGE_PYTHON with xllamacpp"]
fn base_merged_file_and_lora_agree_with_llama_cpp() {
    check_in_llama_cpp(single(), 5e-3);
}

#[test]
#[ignore = "needs CURMERGE_MODELS (shared/models/get.py --gemma) and CURMERGE_PYTHON with xllamacpp"]
fn gemma_merged_file_and_lora_agree_with_llama_cpp() {
    // llama.cpp takes GELU from a table in F16, in each of 18 blocks.
    check_in_llama_cpp(gemma_single(), 2e-2);
}

fn check_in_llama_cpp(single: &Path, tolerance: f64) {
    let base = difference(&ours(single, None), &theirs(single, None));
    println!("base in F32: log-probabilities differ by at most {base:.1e}");
    assert!(base < tolerance, "{base}");

    let stem = single.file_stem().unwrap().to_str().unwrap();
    let [adapter, merged, lora] =
        ["adapter.st", "merged.gguf", "lora.gguf"].map(|name| scratch().join(format!("{stem}.{name}")));
    random_adapter(&Base::open(single).unwrap()).write(&adapter, &[]).unwrap();
    curmerge!("merge", single, adapter, "-o", merged).done();
    curmerge!("export", adapter, "--base", single, "--format", "gguf", "-o", lora).done();
    let own = ours(single, Some(&adapter));
    for (what, other) in [("merged file", theirs(&merged, None)), ("LoRA", theirs(single, Some(&lora)))] {
        let found = difference(&own, &other);
        println!("adapter and {what} in llama.cpp: log-probabilities differ by at most {found:.1e}");
        assert!(found < tolerance, "{what}: {found}");
    }
    let moved = difference(&own, &ours(single, None));
    println!("the adapter changes them by up to {moved:.1e}");
    assert!(moved > 0.1, "the adapter changes too little ({moved}) for this test");
}

#[test]
#[ignore = "needs CURMERGE_MODELS (shared/models/get.py), CURMERGE_DATA, and CURMERGE_PYTHON with gguf"]
fn perplexity_is_that_of_llama_perplexity() {
    check_perplexity(single(), WIKITEXT);
}

#[test]
#[ignore = "needs CURMERGE_MODELS (shared/models/get.py --gemma), CURMERGE_DATA, and CURMERGE_PYTHON with gguf"]
fn perplexity_of_gemma_is_that_of_llama_perplexity() {
    check_perplexity(&gemma(), GEMMA_WIKITEXT);
}

fn check_perplexity(model: &Path, right: f64) {
    let text = data("wikitext2/wiki.test.raw");
    let found =
        curmerge!("eval", model, "--perplexity", text, "--chunks", "20", "--ctx", "512", "--json").json();
    let perplexity = found["perplexity"].as_f64().unwrap();
    println!("perplexity {perplexity:.4}, by llama.cpp {right}");
    assert!((perplexity / right - 1.0).abs() < 0.005, "{perplexity}");
}

#[test]
#[ignore = "needs CURMERGE_MODELS (shared/models/get.py), CURMERGE_DATA, and CURMERGE_PYTHON with xllamacpp"]
fn tokens_of_real_data_are_those_of_llama_cpp() {
    let mut texts = Vec::new();
    for name in ["sst2", "mrpc", "sentiment140"] {
        for part in ["train", "test"] {
            for line in std::fs::read_to_string(data(&format!("{name}/{part}.jsonl"))).unwrap().lines() {
                let row: Value = serde_json::from_str(line).unwrap();
                let field = |key: &str| row[key].as_str().unwrap_or("");
                texts.push(format!("{}{}{}", field("text"), field("prompt"), field("completion")));
            }
        }
    }
    texts
        .extend(std::fs::read_to_string(data("wikitext2/wiki.test.raw")).unwrap().lines().map(str::to_owned));
    let file = scratch().join("tokens.jsonl");
    for model in [quantized(), folder()] {
        let tokenizer = Base::open(&model).unwrap().tokenizer().unwrap();
        let mut out = std::io::BufWriter::new(std::fs::File::create(&file).unwrap());
        for text in &texts {
            writeln!(out, "{}", json!({ "text": text, "ids": tokenizer.encode(text, false).unwrap() }))
                .unwrap();
        }
        out.into_inner().unwrap();
        ask("tokens.py", &[quantized().as_os_str(), file.as_os_str()], &[]);
    }
    println!("{} texts have the same tokens, from GGUF and from Hugging Face", texts.len());
}

#[test]
#[ignore = "needs CURMERGE_MODELS (shared/models/get.py) and CURMERGE_PYTHON with torch, transformers and peft"]
fn peft_loads_what_export_writes() {
    let base = Base::open(folder()).unwrap();
    let [adapter_file, exported] = ["peft.st", "peft"].map(|n| scratch().join(n));
    random_adapter(&base).write(&adapter_file, &[]).unwrap();
    curmerge!("export", adapter_file, "--base", folder(), "--format", "peft", "-o", exported, "--force")
        .done();
    let path = folder();
    let words = ["log-probs".as_ref(), path.as_os_str(), exported.as_os_str(), OsStr::new("OUT")];
    let theirs = next::read(&answer("peft_client.py", &words, json!(PROMPTS).to_string().as_bytes()));
    let moved = difference(&ours(&folder(), None), &theirs);
    let off = difference(&ours(&folder(), Some(&adapter_file)), &theirs);
    println!(
        "adapter and LoRA in PEFT: log-probabilities differ by at most {off:.1e}, from the base by {moved:.2}"
    );
    assert!(off < 1e-3 && moved > 0.1, "{off} {moved}");
}

#[test]
#[ignore = "needs CURMERGE_MODELS (shared/models/get.py) and CURMERGE_PYTHON with torch, transformers and peft"]
fn peft_adapters_merge_as_peft_merges_them() {
    let [lora, merged] = ["peft-lora", "peft-merged"].map(|n| scratch().join(n));
    for kind in ["plain", "rslora", "patterns"] {
        let _ = std::fs::remove_dir_all(&lora);
        let path = folder();
        ask("peft_client.py", &["make".as_ref(), path.as_os_str(), lora.as_os_str(), kind.as_ref()], &[]);
        curmerge!("merge", path, lora, "-o", merged, "--type-adapted", "f32", "--force").done();
        let words =
            ["merged".as_ref(), path.as_os_str(), lora.as_os_str(), merged.as_os_str(), OsStr::new("OUT")];
        let found = answer("peft_client.py", &words, &[]);
        let error = found["error"].as_f64().unwrap();
        println!("{kind}: {} matrices, error at most {error:.1e} of the change", found["changed"]);
        assert!(error < 1e-4 && found["changed"] == 210, "{kind}: {error}");
    }
}

#[test]
#[ignore = "needs CURMERGE_MODELS (shared/models/get.py), CURMERGE_LLAMA_CPP, and CURMERGE_PYTHON with torch and transformers"]
fn converted_folders_equal_the_files_of_llama_cpps_converter() {
    let (llama_cpp, path) = (named("CURMERGE_LLAMA_CPP"), folder());
    let [own, right] = ["converted.gguf", "converter.gguf"].map(|name| scratch().join(name));
    for outtype in ["auto", "f32", "f16", "bf16", "q8_0"] {
        match outtype {
            "auto" => curmerge!("convert", path, own).done(),
            outtype => curmerge!("convert", path, own, "--type", outtype).done(),
        };
        let words = [llama_cpp.as_os_str(), path.as_os_str(), outtype.as_ref(), right.as_os_str()];
        ask("converter.py", &words, &[]);
        let [own, right] = [&own, &right].map(|file| std::fs::read(file).unwrap());
        // assert_eq would print the files.
        assert!(own == right, "{outtype}: {} and {} bytes", own.len(), right.len());
        println!("{outtype}: {} bytes, the same", own.len());
    }
    let text = data("wikitext2/wiki.test.raw");
    let perplexity = |model: &Path| {
        curmerge!("eval", model, "--perplexity", text, "--chunks", "2", "--json").json()["perplexity"].clone()
    };
    curmerge!("convert", path, own, "--type", "f32").done();
    assert_eq!(perplexity(&path), perplexity(&own));
}

#[test]
#[ignore = "needs CURMERGE_MODELS (shared/models/get.py), CURMERGE_DATA, and CURMERGE_PYTHON with torch and transformers"]
fn transformers_reads_the_same_model_from_a_folder_made_of_the_gguf_file() {
    let [made, back] = ["from-gguf", "from-gguf-bf16"].map(|name| scratch().join(name));
    curmerge!("convert", quantized(), made, "--type", "f32", "--force").done();
    let mut texts = remade::texts();
    let wikitext = std::fs::read_to_string(data("wikitext2/wiki.test.raw")).unwrap();
    texts.extend(wikitext.lines().map(str::to_owned));
    let sst2 = std::fs::read_to_string(data("sst2/train.jsonl")).unwrap();
    texts.extend(
        sst2.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["prompt"].as_str().unwrap().into()),
    );
    let chat = [("user", "hi there"), ("assistant", "yes?"), ("user", "What is 2 + 2?")];
    let turns: Vec<Value> =
        chat.iter().map(|(role, content)| json!({ "role": role, "content": content })).collect();
    let questions = json!({ "prompts": PROMPTS, "texts": texts, "chat": turns }).to_string();
    let words = [made.as_os_str(), OsStr::new("OUT")];
    let theirs = answer("transformers_client.py", &words, questions.as_bytes());

    let base = Base::open(quantized()).unwrap();
    let tokenizer = base.tokenizer().unwrap();
    for (text, ids) in texts.iter().zip(theirs["tokens"].as_array().unwrap()) {
        assert_eq!(json!(tokenizer.encode(text, true).unwrap()), *ids, "{text:?}");
    }
    let messages = chat.map(|(role, content)| Message::new(role, content));
    assert_eq!(
        theirs["chat"],
        base.chat_template(&tokenizer).unwrap().unwrap().render(&messages, true).unwrap()
    );
    let off = difference(&ours(&quantized(), None), &next::read(&theirs["log_probs"]));
    println!("{} texts have the same tokens; log-probabilities differ by at most {off:.1e}", texts.len());
    assert!(off < 1e-3, "{off}");

    // The weights of smollm2-hf are these values in bfloat16.
    curmerge!("convert", quantized(), back, "--type", "bf16", "--force").done();
    let (made, own) = (Base::open(&back).unwrap(), Base::open(folder()).unwrap());
    assert!(made.tensors().keys().eq(own.tensors().keys()));
    for (name, tensor) in made.tensors() {
        assert!(made.bytes(tensor) == own.bytes(&own.tensors()[name]), "{name}");
    }
    assert_eq!(made.config(), &{
        let mut config = own.config().clone();
        // The file has 9.999999747378752e-06, the f32 nearest to 1e-5.
        config.norm_eps = 1e-5;
        config
    });
}

#[test]
#[ignore = "needs CURMERGE_PYTHON with torch and transformers"]
fn transformers_reads_scaled_rotations_and_sentence_pieces() {
    let rule = RopeScaling::Llama3 {
        factor: 8.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_context: 64.0,
    };
    let factors: Vec<f32> = rule.factors(10000.0, 32).iter().map(|&f| f as f32).collect();
    let number = |value| Some(curmerge_formats::gguf::Value::F32(value));
    let demo = remade::Remade::demo;
    let models = [
        ("llama3", demo().with("rope_freqs.weight", &[16], &factors)),
        ("linear", demo().set("llama.rope.scaling.factor", number(4.0))),
        ("pieces", demo().sentence_pieces(true)),
    ];
    let texts = remade::texts();
    // Long enough for the slowest rotations to matter.
    let prompts: Vec<String> = texts.chunks(8).skip(5).take(3).map(|lines| lines.join(" ")).collect();
    let chat = json!([{ "role": "user", "content": "hi" }]);
    let questions = json!({ "prompts": prompts, "texts": texts, "chat": chat }).to_string();
    for (name, model) in models {
        let [gguf, made] = [format!("{name}.gguf"), name.to_string()].map(|n| scratch().join(n));
        model.write(&gguf);
        curmerge!("convert", gguf, made, "--type", "f32", "--force").done();
        let words = [made.as_os_str(), OsStr::new("OUT")];
        let theirs = answer("transformers_client.py", &words, questions.as_bytes());
        let base = Base::open(&gguf).unwrap();
        let (tokenizer, model) = (base.tokenizer().unwrap(), Transformer::<f32>::new(&base).unwrap());
        for (text, ids) in texts.iter().zip(theirs["tokens"].as_array().unwrap()) {
            assert_eq!(json!(tokenizer.encode(text, true).unwrap()), *ids, "{name}: {text:?}");
        }
        let mut worst = 0.0f64;
        for (prompt, theirs) in prompts.iter().zip(next::read(&theirs["log_probs"])) {
            let (last, _) = logits(&model, &tokenizer.encode(prompt, true).unwrap());
            let ours = log_softmax(&last);
            worst = (0..).zip(&ours).fold(worst, |w, (id, x)| w.max((x - theirs.log_probs[&id]).abs()));
        }
        println!("{name}: {} prompts, log-probabilities differ by at most {worst:.1e}", prompts.len());
        assert!(worst < 1e-3 && !prompts.is_empty(), "{name}: {worst}");
    }
}
