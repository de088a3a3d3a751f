//! A GGUF file, such as the demo model, rewritten with other metadata, another vocabulary or other types.

use std::collections::BTreeMap;
use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{Array, Gguf, GgufLayout, NewTensor, Value};
use curmerge_formats::quant::{decode, encode};

use crate::support::fixture::demo;

/// One name for each kind of pre-tokenizer that curmerge knows.
pub const PRE_TOKENIZERS: &[&str] = &[
    "gpt-2",
    "smollm",
    "llama-bpe",
    "dbrx",
    "qwen2",
    "qwen35",
    "tekken",
    "gpt-4o",
    "bailingmoe",
    "seed-coder",
    "deepseek-coder",
    "falcon",
    "default",
    "bloom",
    "viking",
    "glm4",
    "jais-2",
    "ufakzeka",
    "laguna",
    "minicpm5",
    "exaone-moe",
    "granite-embed-multi-97m",
    "tiny_aya",
    "youtu",
    "kimi-k2",
    "deepseek-llm",
    "deepseek-v3",
    "spark2_5",
    "afmoe",
    "superbpe",
    "chameleon",
];

/// A GGUF file in parts.
#[derive(Clone, Debug)]
pub struct Remade {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(NewTensor, Vec<u8>)>,
}

impl Remade {
    /// The demo model, unchanged.
    pub fn demo() -> Self {
        Self::of(&demo("model.gguf"))
    }

    /// The file at `path`, unchanged.
    pub fn of(path: &Path) -> Self {
        let gguf = Gguf::open(path).unwrap();
        let tensor = |t: &curmerge_formats::GgufTensor| {
            let new = NewTensor { name: t.name.clone(), dtype: t.dtype, dims: t.dims.clone() };
            (new, gguf.data(t).to_vec())
        };
        Remade { metadata: gguf.metadata().to_vec(), tensors: gguf.tensors().iter().map(tensor).collect() }
    }

    /// Gives a key this value, or removes the key.
    pub fn set(mut self, key: &str, value: Option<Value>) -> Self {
        self.metadata.retain(|(name, _)| name != key);
        self.metadata.extend(value.map(|value| (key.to_string(), value)));
        self
    }

    /// Stores every matrix in this type.
    pub fn stored_as(mut self, dtype: DType) -> Self {
        for (tensor, bytes) in self.tensors.iter_mut().filter(|(tensor, _)| tensor.dims.len() > 1) {
            let mut values = vec![0.0; tensor.dims.iter().product::<u64>() as usize];
            decode(tensor.dtype, bytes, &mut values).unwrap();
            *bytes = vec![0; dtype.bytes_for(values.len() as u64).unwrap() as usize];
            encode(dtype, &values, bytes).unwrap();
            tensor.dtype = dtype;
        }
        self
    }

    /// Adds an F32 tensor, or replaces the one with this name.
    pub fn with(mut self, name: &str, dims: &[u64], values: &[f32]) -> Self {
        self.tensors.retain(|(tensor, _)| tensor.name != name);
        let new = NewTensor { name: name.into(), dtype: DType::F32, dims: dims.to_vec() };
        self.tensors.push((new, values.iter().flat_map(|x| x.to_le_bytes()).collect()));
        self
    }

    /// Leaves out the tensor of this name.
    pub fn without(mut self, name: &str) -> Self {
        self.tensors.retain(|(tensor, _)| tensor.name != name);
        self
    }

    /// Replaces the vocabulary by a SentencePiece one over the demo's text: the bytes, and the most frequent
    /// pieces of words. A more frequent piece has a greater score.
    pub fn sentence_pieces(self, adds_space: bool) -> Self {
        // With the token that is added last, one for each row of the embedding.
        const SIZE: usize = 2047;
        let text = std::fs::read_to_string(demo("text.txt")).unwrap();
        let mut counts = BTreeMap::<String, usize>::new();
        for word in text.split_whitespace() {
            let marked: Vec<char> = format!("\u{2581}{word}").chars().collect();
            for start in 0..marked.len() {
                for end in start + 1..=marked.len().min(start + 8) {
                    *counts.entry(marked[start..end].iter().collect()).or_default() += 1;
                }
            }
        }
        counts.insert("\u{2581}\u{2581}".into(), 50);
        let mut pieces: Vec<(String, usize)> = counts.into_iter().collect();
        // All single characters must be in the vocabulary. They come last.
        pieces.sort_by_key(|(piece, count)| (std::cmp::Reverse(*count), piece.clone()));
        let (short, long): (Vec<_>, Vec<_>) = pieces.into_iter().partition(|(p, _)| p.chars().count() == 1);
        let mut tokens: Vec<(String, f32, i32)> =
            [("<unk>", 2), ("<s>", 3), ("</s>", 3)].map(|(text, kind)| (text.into(), 0.0, kind)).into();
        tokens.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
        let room = SIZE - tokens.len() - short.len();
        let pieces = long.into_iter().take(room).chain(short);
        tokens.extend(pieces.enumerate().map(|(rank, (piece, _))| (piece, -(rank as f32), 1)));
        tokens.push(("<|user|>".into(), 0.0, 4));
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let texts = tokens.iter().map(|t| t.0.clone()).collect();
        self.set(&key("model"), Some(Value::String("llama".into())))
            .set(&key("pre"), Some(Value::String("default".into())))
            .set(&key("tokens"), Some(Value::Array(Array::String(texts))))
            .set(&key("scores"), Some(Value::Array(Array::F32(tokens.iter().map(|t| t.1).collect()))))
            .set(&key("token_type"), Some(Value::Array(Array::I32(tokens.iter().map(|t| t.2).collect()))))
            .set(&key("merges"), None)
            .set(&key("bos_token_id"), Some(Value::U32(1)))
            .set(&key("eos_token_id"), Some(Value::U32(2)))
            .set(&key("unknown_token_id"), Some(Value::U32(0)))
            .set(&key("padding_token_id"), None)
            .set(&key("add_space_prefix"), Some(Value::Bool(adds_space)))
    }

    /// Takes over the vocabulary of another file. The embedding becomes 0.
    pub fn with_vocabulary_of(mut self, other: &Gguf) -> Self {
        let theirs = |key: &str| key.starts_with("tokenizer.") || key == "general.name";
        self.metadata.retain(|(key, _)| !theirs(key));
        self.metadata.extend(other.metadata().iter().filter(|(key, _)| theirs(key)).cloned());
        let tokens = other.get("tokenizer.ggml.tokens").and_then(Value::as_strings).unwrap().len() as u64;
        let of_tokens = |name: &str| name == "token_embd.weight" || name == "output.weight";
        for (tensor, bytes) in self.tensors.iter_mut().filter(|(tensor, _)| of_tokens(&tensor.name)) {
            tensor.dims[1] = tokens;
            tensor.dtype = DType::Q8_0;
            *bytes = vec![0; DType::Q8_0.bytes_for(tensor.dims.iter().product()).unwrap() as usize];
        }
        self.set("llama.vocab_size", None)
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) {
        let new = self.tensors.iter().map(|(tensor, _)| tensor.clone()).collect();
        let layout = GgufLayout::new(3, 32, &self.metadata, new).unwrap();
        let mut file = layout.header().to_vec();
        for (place, (_, bytes)) in layout.tensors().iter().zip(&self.tensors) {
            file.resize(place.offset as usize, 0);
            file.extend(bytes);
        }
        file.resize(layout.file_bytes() as usize, 0);
        std::fs::write(path, file).unwrap();
    }
}

/// Strings that are hard to tokenize, and lines of the demo's text.
pub fn texts() -> Vec<String> {
    let hard = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tokenizer/hard.jsonl"));
    let mut texts: Vec<String> = hard.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for text in [
        "",
        "   three spaces, then\u{a0}one that does not break\u{3000}and a wide one",
        "HelloWorld ABCdef IT'S it'S don't WE'LL 12345 1 23 456.789",
        "a\r\n\r\n  b \t\n\n\n c\n",
        "<s>begin</s> <|user|> <|im_start|>user\n<|im_end|> x",
        "안녕하세요 東京2024 ｡｡ Привет ἀρχή naïve नमस्ते ½ Ⅷ ²",
        "(){}[]+=<>^~`| $1,000.00 #tag @name …。，،",
        "aaaaaaaaaaaaaaaaaaaaa bbbbbb",
    ] {
        texts.push(text.into());
    }
    let text = std::fs::read_to_string(demo("text.txt")).unwrap();
    texts.extend(text.lines().step_by(20).map(str::to_owned));
    texts
}
