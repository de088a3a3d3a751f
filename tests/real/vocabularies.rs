//! llama.cpp's vocabulary-only files, compared with its test vectors and with llama.cpp itself. The files are
//! in models/ of the source folder that CURMERGE_LLAMA_CPP names.

use std::io::Write;
use std::path::{Path, PathBuf};

use curmerge::tokenizer::Tokenizer;
use curmerge_formats::gguf::Gguf;
use serde_json::json;

use crate::support::environment::{self, named};
use crate::support::remade;

/// Vocabularies with test vectors.
const WITH_VECTORS: &[&str] = &[
    "command-r",
    "deepseek-coder",
    "deepseek-llm",
    "falcon",
    "gemma-4",
    "gpt-2",
    "llama-bpe",
    "llama-spm",
    "mpt",
    "phi-3",
    "qwen2",
    "qwen35",
    "refact",
    "starcoder",
];
/// Vocabularies without test vectors.
const BARE: &[&str] = &["aquila", "baichuan", "gpt-neox"];
/// Vocabularies of encoders, which curmerge does not train.
const OF_ENCODERS: &[&str] = &["bert-bge", "nomic-bert-moe"];
/// The separator of the texts in a file of vectors.
const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

fn models() -> PathBuf {
    named("CURMERGE_LLAMA_CPP").join("models")
}

fn open(name: &str) -> Gguf {
    Gguf::open(&models().join(format!("ggml-vocab-{name}.gguf"))).unwrap()
}

/// Texts and their ids, without BOS and EOS, with control tokens' texts as ordinary text.
fn vectors(name: &str) -> Vec<(String, Vec<u32>)> {
    let read = |ending: &str| {
        std::fs::read_to_string(models().join(format!("ggml-vocab-{name}.gguf.{ending}"))).unwrap()
    };
    let (texts, ids) = (read("inp"), read("out"));
    // The last separator ends the file.
    let texts = texts.strip_suffix(SEPARATOR).unwrap_or(&texts);
    let texts: Vec<String> = texts.split(SEPARATOR).map(str::to_owned).collect();
    let ids: Vec<Vec<u32>> =
        ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
    assert_eq!(texts.len(), ids.len(), "{name}");
    texts.into_iter().zip(ids).collect()
}

#[test]
#[ignore = "needs CURMERGE_LLAMA_CPP, a source folder of llama.cpp"]
fn the_tokens_are_those_of_llama_cpps_vectors() {
    for name in WITH_VECTORS {
        let tokenizer = Tokenizer::from_gguf(&open(name)).unwrap();
        let vectors = vectors(name);
        for (text, ids) in &vectors {
            assert_eq!(tokenizer.encode_ordinary(text, false).unwrap(), *ids, "{name}: {text:?}");
            assert_eq!(tokenizer.decode(ids), *text, "{name}");
        }
        println!("{name}: {} vectors", vectors.len());
    }
}

#[test]
#[ignore = "needs CURMERGE_LLAMA_CPP, a source folder of llama.cpp, and CURMERGE_PYTHON with xllamacpp"]
fn hard_texts_have_llama_cpps_tokens() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vocabularies");
    std::fs::create_dir_all(&folder).unwrap();
    let (model, tokens) = (folder.join("model.gguf"), folder.join("tokens.jsonl"));
    for name in WITH_VECTORS.iter().chain(BARE) {
        let gguf = open(name);
        remade::Remade::demo().with_vocabulary_of(&gguf).write(&model);
        let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
        let mut out = std::io::BufWriter::new(std::fs::File::create(&tokens).unwrap());
        // llama.cpp's server refuses an empty text.
        for text in remade::texts().iter().filter(|text| !text.is_empty()) {
            let ids = tokenizer.encode(text, false).unwrap();
            let ordinary = tokenizer.encode_ordinary(text, false).unwrap();
            writeln!(out, "{}", json!({ "text": text, "ids": ids, "ordinary": ordinary })).unwrap();
        }
        out.into_inner().unwrap();
        environment::ask("tokens.py", &[model.as_os_str(), tokens.as_os_str()], &[]);
        println!("{name}: the tokens are llama.cpp's");
    }
}

#[test]
#[ignore = "needs CURMERGE_LLAMA_CPP, a source folder of llama.cpp"]
fn every_vocabulary_file_is_tested() {
    let mut here: Vec<String> = std::fs::read_dir(models())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_prefix("ggml-vocab-")?.strip_suffix(".gguf")?.to_owned()))
        .collect();
    let mut known: Vec<&str> = [WITH_VECTORS, BARE, OF_ENCODERS].concat();
    here.sort();
    known.sort();
    assert_eq!(here, known);
    for name in OF_ENCODERS {
        let error = Tokenizer::from_gguf(&open(name)).unwrap_err().to_string();
        assert!(error.contains("tokenizer.ggml.model is"), "{error}");
    }
}
