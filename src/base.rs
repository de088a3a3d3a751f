//! A base model over any container: its configuration, its tensors under canonical names, its tokenizer.
//!
//! Everything stays in the mapped file in the type it is stored in; [`Weight`] decodes rows on demand, in the canonical
//! layout (GGUF's row order, `[out, in]`), so that nothing above this module knows which container it came from.

mod config;
mod ollama;
mod row_order;
mod weight;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use curmerge_formats::detect::{Container, detect};
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::GgufModel;
use curmerge_formats::safetensors::{SafeTensors, shard_index};

use crate::arch::{self, Architecture};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

pub use config::{Config, RopeScaling};
pub use ollama::resolve;
pub use row_order::RowOrder;
pub use weight::Weight;

/// The files that a model's tensors live in.
#[derive(Debug)]
pub enum Files {
    /// One GGUF file, or all splits of one.
    Gguf(GgufModel),
    /// A Hugging Face folder: its safetensors files in the order of their names.
    HuggingFace(Vec<SafeTensors>),
}

/// Where one tensor of the base is stored, and under which names.
#[derive(Clone, Debug)]
pub struct BaseTensor {
    /// The name in the container (`blk.0.attn_q.weight`, `model.layers.0.self_attn.q_proj.weight`).
    pub stored_name: String,
    /// How its numbers are stored.
    pub dtype: DType,
    /// `[out, in]` for a matrix, `[n]` for a vector.
    pub shape: Vec<u64>,
    /// Index of its file within [`Files`].
    pub file: usize,
    /// First byte, counted from the start of that file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Heads whose two rotary halves the container keeps apart, where the canonical layout interleaves them.
    pub rotary_halves: Option<usize>,
}

/// An open base model.
#[derive(Debug)]
pub struct Base {
    path: PathBuf,
    files: Files,
    architecture: &'static Architecture,
    config: Config,
    tensors: BTreeMap<String, BaseTensor>,
}

impl Base {
    /// Open a GGUF file (of several splits the first), a Hugging Face folder or `ollama:NAME[:TAG]`, told apart by
    /// content. Fails when the architecture is not known, or a tensor is missing or has a shape that the configuration
    /// does not allow.
    pub fn open(path: &Path) -> Result<Self> {
        let path = ollama::resolve(path)?;
        let mut base = match detect(&path)? {
            Container::Gguf => Self::open_gguf(&path)?,
            Container::HfFolder => Self::open_folder(&path)?,
            Container::SafeTensors => {
                return Err(Error::input(
                    path,
                    "container",
                    "a safetensors file alone has no configuration and no tokenizer",
                    "name the Hugging Face folder that holds it together with config.json and tokenizer.json",
                ));
            }
            Container::Onnx => {
                return Err(Error::input(
                    path,
                    "container",
                    "ONNX models are not supported yet",
                    "use the GGUF file or the Hugging Face folder of the same model",
                ));
            }
            Container::Unknown => {
                return Err(Error::input(
                    path,
                    "container",
                    "neither a GGUF file nor a Hugging Face folder",
                    "name a .gguf file, or a folder with config.json and model.safetensors",
                ));
            }
        };
        base.check_shapes()?;
        if let Some(factors) = base.rope_frequency_factors()? {
            base.config.rope_factors = Some(factors);
        }
        Ok(base)
    }

    fn open_gguf(path: &Path) -> Result<Self> {
        let model = GgufModel::open(path)?;
        let gguf = model.first();
        let name = gguf.get("general.architecture").and_then(|v| v.as_str()).ok_or_else(|| {
            Error::input(path, "general.architecture", "missing", "this GGUF file is not a language model")
        })?;
        let architecture = arch::by_gguf_name(name).ok_or_else(|| unknown_architecture(path, name))?;
        let config = Config::from_gguf(&model, architecture)?;
        let mut tensors = BTreeMap::new();
        for (file, t) in model.tensors() {
            let canonical = t.name.strip_suffix(".weight").unwrap_or(&t.name).to_string();
            let tensor = BaseTensor {
                stored_name: t.name.clone(),
                dtype: t.dtype,
                shape: t.shape(),
                file,
                offset: t.offset,
                bytes: t.bytes,
                rotary_halves: None,
            };
            tensors.insert(canonical, tensor);
        }
        Ok(Self { path: path.into(), files: Files::Gguf(model), architecture, config, tensors })
    }

    fn open_folder(folder: &Path) -> Result<Self> {
        let (architecture, config) = Config::from_folder(folder)?;
        let index = shard_index(folder)?;
        let names: Vec<&str> = match &index {
            Some(index) => {
                index.values().collect::<std::collections::BTreeSet<_>>().into_iter().map(|n| &**n).collect()
            }
            None => vec!["model.safetensors"],
        };
        let files = names
            .iter()
            .map(|n| SafeTensors::open(&folder.join(n)))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        for (tensor, name) in index.iter().flatten() {
            let held = names.binary_search(&name.as_str()).is_ok_and(|n| files[n].tensor(tensor).is_some());
            if !held {
                return Err(Error::input(
                    folder.join(name),
                    format!("tensor '{}'", tensor.escape_debug()),
                    "not in this file, where the index says it is",
                    "download the folder again",
                ));
            }
        }
        let mut tensors = BTreeMap::new();
        for (file, shard) in files.iter().enumerate() {
            for t in shard.tensors() {
                let stem = t.name.strip_suffix(".weight").unwrap_or(&t.name);
                let (canonical, names) = architecture
                    .of_hugging_face(stem)
                    .map_or_else(|| (t.name.clone(), None), |(c, n)| (c, Some(n)));
                let tensor = BaseTensor {
                    stored_name: t.name.clone(),
                    dtype: t.dtype,
                    shape: t.shape.clone(),
                    file,
                    offset: t.offset,
                    bytes: t.bytes,
                    rotary_halves: names.and_then(|n| n.rotary_halves).map(|h| config.head_count(h)),
                };
                if tensors.insert(canonical, tensor).is_some() {
                    return Err(Error::input(
                        shard.path(),
                        format!("tensor '{}'", t.name),
                        "stored twice in this folder's files",
                        "download the folder again",
                    ));
                }
            }
        }
        Ok(Self { path: folder.into(), files: Files::HuggingFace(files), architecture, config, tensors })
    }

    /// The file or folder that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What no output may replace: the file or folder that was opened, and every split beside it.
    pub fn inputs(&self) -> Vec<&Path> {
        let splits = match &self.files {
            Files::Gguf(model) => model.files(),
            Files::HuggingFace(_) => &[],
        };
        std::iter::once(self.path()).chain(splits.iter().map(|file| file.path())).collect()
    }

    /// The files behind the tensors.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The table of the model's family.
    pub fn architecture(&self) -> &'static Architecture {
        self.architecture
    }

    /// The model's dimensions and options.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// `gguf` or `safetensors`.
    pub fn container(&self) -> &'static str {
        match self.files {
            Files::Gguf(_) => "gguf",
            Files::HuggingFace(_) => "safetensors",
        }
    }

    /// What the model calls itself: `general.name` in GGUF, else its architecture. Never its path, which must not go
    /// into an adapter.
    pub fn name(&self) -> String {
        let own = match &self.files {
            Files::Gguf(model) => model.first().get("general.name").and_then(|v| v.as_str()),
            Files::HuggingFace(_) => None,
        };
        own.unwrap_or(self.architecture.gguf).to_string()
    }

    /// Where Hugging Face has the model (`owner/name`), if the base says so.
    pub fn hugging_face_repository(&self) -> Option<String> {
        const HOST: &str = "https://huggingface.co/";
        let Files::Gguf(gguf) = &self.files else { return None };
        let keys = ["general.repo_url", "general.source.url", "general.base_model.0.repo_url"];
        let urls = keys.iter().filter_map(|key| gguf.first().get(key)?.as_str()?.strip_prefix(HOST));
        urls.map(|name| name.trim_end_matches('/').to_string())
            .find(|name| name.split('/').count() == 2 && !name.chars().any(char::is_control))
    }

    /// The folder's or file's tokenizer and chat template. Fails when it has tokens that the embedding has no row for.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = match &self.files {
            Files::Gguf(model) => Tokenizer::from_gguf(model.first())
                .map_err(|source| Error::GgufTokenizer { path: self.path.clone(), source })?,
            Files::HuggingFace(_) => Tokenizer::from_hf_folder(&self.path)?,
        };
        let (tokens, rows) = (tokenizer.vocab_size(), self.config.vocab);
        if tokens > rows {
            let problem = format!("{tokens} tokens, and the embedding has {rows} rows");
            return Err(Error::input(&self.path, "tokenizer", problem, "download the model again"));
        }
        Ok(tokenizer)
    }

    /// Every tensor by canonical name; one that the architecture does not name keeps its stored name.
    pub fn tensors(&self) -> &BTreeMap<String, BaseTensor> {
        &self.tensors
    }

    /// The stored bytes of a tensor.
    pub fn bytes(&self, tensor: &BaseTensor) -> &[u8] {
        let file = match &self.files {
            Files::Gguf(model) => model.files()[tensor.file].bytes(),
            Files::HuggingFace(shards) => shards[tensor.file].bytes(),
        };
        // Opening the container checked that every tensor lies within its file.
        &file[tensor.offset as usize..(tensor.offset + tensor.bytes) as usize]
    }

    /// The matrix or vector of this canonical name. Fails when it is missing, of a type that cannot be decoded, or
    /// scaled by another tensor.
    pub fn weight(&self, name: &str) -> Result<Weight<'_>> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| self.error(name, "the model has no such tensor", "see `curmerge inspect`"))?;
        if !tensor.dtype.can_decode() {
            return Err(self.error(
                name,
                &format!("stored as {}, which curmerge cannot decode", tensor.dtype.name()),
                "use the model as F32, F16 or BF16 or in any quantized type that llama.cpp runs",
            ));
        }
        // llama.cpp multiplies by it what the matrix gives; files with NVFP4 have such tensors.
        if self.tensors.contains_key(&format!("{name}.scale")) {
            let problem = "its scale is a tensor of its own, which curmerge does not read";
            return Err(self.error(name, problem, "use the model in another type, for example Q8_0 or F16"));
        }
        Weight::new(tensor, self.bytes(tensor)).ok_or_else(|| {
            self.error(name, "neither a matrix nor a vector", "this model's form is not known")
        })
    }

    /// The matrix that turns hidden states into logits, `[vocab, d_model]`: `output`, or the tied `token_embd`.
    pub fn output_head(&self) -> Result<Weight<'_>> {
        self.weight(if self.tensors.contains_key("output") { "output" } else { "token_embd" })
    }

    /// The canonical names, sorted, of what `--targets` asks for: words of the architecture's table (`q,k,v`) or `all`,
    /// in these blocks, in all of them if `None`; or canonical names.
    pub fn targets(&self, spec: &str, layers: Option<RangeInclusive<usize>>) -> Result<Vec<String>> {
        let count = self.config.layers;
        let layers = layers.unwrap_or(0..=count.saturating_sub(1));
        if *layers.end() >= count {
            return Err(Error::request(
                format!("{} has no block {}", self.path.display(), layers.end()),
                format!("its blocks are 0 to {}", count.saturating_sub(1)),
            ));
        }
        let mut found = std::collections::BTreeSet::new();
        for word in spec.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let table = self.architecture.targets;
            let parts: Vec<&str> =
                table.iter().filter(|(w, _)| word == "all" || *w == word).map(|(_, n)| *n).collect();
            if !parts.is_empty() {
                found.extend(layers.clone().flat_map(|l| parts.iter().map(move |p| format!("blk.{l}.{p}"))));
            } else if self.is_adaptable(word) {
                found.insert(word.to_string());
            } else {
                let words: Vec<&str> = table.iter().map(|(w, _)| *w).collect();
                return Err(Error::request(
                    format!("'{word}' is not a target of {}", self.path.display()),
                    format!("use {}, all, or canonical names such as blk.0.attn_q", words.join(", ")),
                ));
            }
        }
        if found.is_empty() {
            return Err(Error::request("--targets names nothing", "use for example --targets q,k,v"));
        }
        Ok(found.into_iter().collect())
    }

    fn is_adaptable(&self, name: &str) -> bool {
        let layer_part =
            name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map(|(_, part)| part);
        self.tensors.contains_key(name)
            && self.architecture.targets.iter().any(|(_, p)| Some(*p) == layer_part)
    }

    fn error(&self, name: &str, problem: &str, mend: &str) -> Error {
        Error::input(&self.path, format!("tensor '{name}'"), problem, mend)
    }

    /// Every tensor that the forward pass reads must be there with the shape that the configuration gives it.
    fn check_shapes(&self) -> Result<()> {
        let c = &self.config;
        let (d, ff) = (c.d_model as u64, c.ff as u64);
        let (q, kv) = ((c.heads * c.head_dim) as u64, (c.kv_heads * c.head_dim) as u64);
        self.check("token_embd", &[c.vocab as u64, d])?;
        self.check("output_norm", &[d])?;
        if self.tensors.contains_key("output") {
            self.check("output", &[c.vocab as u64, d])?;
        }
        for layer in 0..c.layers {
            let parts: [(&str, &[u64]); 9] = [
                ("attn_norm", &[d]),
                ("attn_q", &[q, d]),
                ("attn_k", &[kv, d]),
                ("attn_v", &[kv, d]),
                ("attn_output", &[d, q]),
                ("ffn_norm", &[d]),
                ("ffn_gate", &[ff, d]),
                ("ffn_up", &[ff, d]),
                ("ffn_down", &[d, ff]),
            ];
            for (part, shape) in parts {
                self.check(&format!("blk.{layer}.{part}"), shape)?;
            }
        }
        // A bias would silently be left out.
        match self.tensors.keys().find(|k| k.ends_with(".bias")) {
            Some(name) => {
                Err(self.error(name, "this llama variant has biases", "biases are not supported yet"))
            }
            None => Ok(()),
        }
    }

    fn check(&self, name: &str, shape: &[u64]) -> Result<()> {
        let tensor = self.tensors.get(name).ok_or_else(|| {
            self.error(name, "missing", "the file is incomplete or not the model it says; download it again")
        })?;
        if tensor.shape == shape {
            return Ok(());
        }
        let problem = format!("shape {:?} where the configuration says {shape:?}", tensor.shape);
        Err(self.error(name, &problem, "the file is damaged or of another architecture; download it again"))
    }

    /// Llama 3.x in GGUF: one divisor a rotary frequency, in the tensor `rope_freqs.weight`.
    fn rope_frequency_factors(&self) -> Result<Option<Vec<f64>>> {
        if !self.tensors.contains_key("rope_freqs") {
            return Ok(None);
        }
        self.check("rope_freqs", &[self.config.rope_dim as u64 / 2])?;
        let factors = self.weight("rope_freqs")?.vector();
        if factors.iter().any(|f| !f.is_finite() || *f <= 0.0) {
            return Err(self.error(
                "rope_freqs",
                "a factor is not a positive number",
                "download the file again",
            ));
        }
        Ok(Some(factors.into_iter().map(f64::from).collect()))
    }
}

fn unknown_architecture(path: &Path, name: &str) -> Error {
    Error::input(
        path,
        "architecture",
        format!("'{}' is not known", name.escape_debug()),
        format!("curmerge knows {}", arch::known()),
    )
}
