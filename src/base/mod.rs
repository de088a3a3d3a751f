//! A base model over any container: its configuration, its tensors under canonical names, its tokenizer.
//!
//! Everything stays in the mapped file in the type it is stored in; [`Weight`] decodes rows on demand, in the canonical
//! layout (GGUF's row order, `[out, in]`), so that nothing above this module knows which container it came from.

mod check;
mod config;
pub mod folder;
pub mod nbits;
mod ollama;
mod onnx;
mod row_order;
mod targets;
mod tensors;
mod weight;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use curmerge_formats::detect::{Container, detect};
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::GgufModel;
use curmerge_formats::safetensors::{SafeTensors, shard_index};

use self::folder::Folder;
use crate::arch::{self, Architecture};
use crate::{Error, Result};

pub use config::{Config, Experts, LongRope, Rope, RopeScaling, long_amplitude};
pub use nbits::{NBits, NBitsTensors, StoredTensor};
pub use onnx::OnnxModel;
pub use row_order::RowOrder;
pub use tensors::{Place, layer_part};
pub use weight::Weight;

/// The files that a model's tensors live in.
#[derive(Debug)]
pub enum Files {
    /// One GGUF file, or all splits of one.
    Gguf(GgufModel),
    /// A Hugging Face folder: its safetensors files in the order of their names.
    HuggingFace(Vec<SafeTensors>),
    /// An ONNX file, with the files that hold its tensors.
    Onnx(Box<OnnxModel>),
}

/// The outputs that a matrix has within a tensor that holds those of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The first of them.
    pub start: u64,
    /// All outputs of the tensor.
    pub of: u64,
}

/// Where one tensor of the base is stored, and under which names.
#[derive(Clone, Debug)]
pub struct BaseTensor {
    /// The name in the container (`blk.0.attn_q.weight`, `model.layers.0.self_attn.q_proj.weight`).
    pub stored_name: String,
    /// How its numbers are stored; of a matrix in blocks, their codes.
    pub dtype: DType,
    /// As it is stored, slowest first: `[out, in]` for a matrix unless it is transposed, `[n]` for a vector.
    pub shape: Vec<u64>,
    /// Index of its file within [`Files`].
    pub file: usize,
    /// First byte, counted from the start of that file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Heads whose two rotary halves the container keeps apart, where the canonical layout interleaves them.
    pub rotary_halves: Option<usize>,
    /// Whether the container stores the matrix as `[in, out]`.
    pub transposed: bool,
    /// Whether the container stores one less than the numbers.
    pub unit_offset: bool,
    /// Where the codes of a matrix in blocks have their scales.
    pub nbits: Option<NBitsTensors>,
    /// Its place, where it is stored with others as one; offset and bytes are then those of all.
    pub slice: Option<Slice>,
}

impl BaseTensor {
    /// Bytes of its own numbers: of one that is stored with others its share, of one in blocks with scales and zero points.
    pub fn own_bytes(&self) -> u64 {
        let outputs = self.shape.get(usize::from(self.transposed)).copied().unwrap_or(0);
        let share = |bytes: u64| self.slice.as_ref().map_or(bytes, |slice| bytes / slice.of.max(1) * outputs);
        let beside = self.nbits.iter().flat_map(|nbits| [Some(&nbits.scales), nbits.zero_points.as_ref()]);
        share(self.bytes) + beside.flatten().map(|part| share(part.bytes)).sum::<u64>()
    }
}

/// The file or folder of this name: of `ollama:NAME[:TAG]` the blob in Ollama's store, of a folder whose only weights are
/// one ONNX file that file, else the path as it is.
///
/// # Errors
/// A name that Ollama's store has not; a folder with several ONNX files and nothing else.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    onnx::file_in(ollama::resolve(path)?)
}

/// An open base model.
#[derive(Debug)]
pub struct Base {
    path: PathBuf,
    files: Files,
    architecture: &'static Architecture,
    /// The architecture as GGUF names it, or as the container does when it is not known.
    architecture_name: String,
    config: Config,
    tensors: BTreeMap<String, BaseTensor>,
}

impl Base {
    /// Open a GGUF file (of several splits the first), a Hugging Face folder, an ONNX file with its configuration beside
    /// it, a folder with one, or `ollama:NAME[:TAG]`, told apart by content. Fails when the architecture is not known, or a tensor is missing or has a shape that the configuration
    /// does not allow.
    pub fn open(path: &Path) -> Result<Self> {
        let base = Self::open_any(path)?;
        base.must_be_known()?;
        Ok(base)
    }

    /// [`Self::open`] also where the architecture is not known: such a base has tensors by the names that its container
    /// gives them, and nothing else.
    pub fn open_any(path: &Path) -> Result<Self> {
        let path = resolve(path)?;
        let base = match detect(&path)? {
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
            Container::Onnx => Self::open_onnx(&path)?,
            Container::Unknown => {
                return Err(Error::input(
                    path,
                    "container",
                    "neither a GGUF or ONNX file nor a Hugging Face folder",
                    "name a .gguf or .onnx file, or a folder with config.json and model.safetensors",
                ));
            }
        };
        if base.is_known() {
            base.check_tensors()?;
        }
        Ok(base)
    }

    fn open_gguf(path: &Path) -> Result<Self> {
        let model = GgufModel::open(path)?;
        let gguf = model.first();
        let name = gguf.get("general.architecture").and_then(|v| v.as_str()).ok_or_else(|| {
            Error::input(path, "general.architecture", "missing", "this GGUF file is not a language model")
        })?;
        let experts = gguf.get(&format!("{name}.expert_count")).and_then(|v| v.as_u64());
        let known = arch::by_gguf_name(name, experts.is_some_and(|count| count > 0));
        let (architecture, config) = match known {
            Some(architecture) => (architecture, Config::from_gguf(&model, architecture)?),
            None => (arch::UNKNOWN, Config::unknown()),
        };
        let architecture_name = name.to_string();
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
                transposed: false,
                unit_offset: false,
                nbits: None,
                slice: None,
            };
            if tensors.insert(canonical, tensor).is_some() {
                let place = format!("tensor '{}'", t.name.escape_debug());
                let problem = "there with and without `.weight`";
                return Err(Error::input(path, place, problem, "download the file again"));
            }
        }
        let files = Files::Gguf(model);
        Ok(Self { path: path.into(), files, architecture, architecture_name, config, tensors })
    }

    fn open_folder(folder: &Path) -> Result<Self> {
        let model_type = config::model_type(Folder::new(folder))?;
        let (architecture, architecture_name, config) = match arch::by_model_type(&model_type) {
            Some(known) => (known, known.gguf.to_string(), Config::from_folder(Folder::new(folder), known)?),
            None => (arch::UNKNOWN, model_type, Config::unknown()),
        };
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
                let (stem, bias) = match t.name.strip_suffix(".bias") {
                    Some(stem) => (stem, ".bias"),
                    None => (t.name.strip_suffix(".weight").unwrap_or(&t.name), ""),
                };
                let (canonical, names) = match architecture.of_hugging_face(stem) {
                    Some((name, names)) if bias.is_empty() || names.bias.is_some() => {
                        (name + bias, Some(names))
                    }
                    _ if architecture.gguf.is_empty() => (format!("{stem}{bias}"), None),
                    _ => (t.name.clone(), None),
                };
                let tensor = BaseTensor {
                    stored_name: t.name.clone(),
                    dtype: t.dtype,
                    shape: t.shape.clone(),
                    file,
                    offset: t.offset,
                    bytes: t.bytes,
                    rotary_halves: names.and_then(|n| n.rotary_halves).map(|h| config.head_count(h)),
                    transposed: names.is_some_and(|n| n.transposed) && bias.is_empty(),
                    unit_offset: names.is_some_and(|n| n.unit_offset),
                    nbits: None,
                    slice: None,
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
        let files = Files::HuggingFace(files);
        Ok(Self { path: folder.into(), files, architecture, architecture_name, config, tensors })
    }

    fn open_onnx(path: &Path) -> Result<Self> {
        let opened = onnx::open(path)?;
        let onnx::Opened { model, architecture, architecture_name, config, tensors } = opened;
        let files = Files::Onnx(Box::new(model));
        Ok(Self { path: path.into(), files, architecture, architecture_name, config, tensors })
    }

    /// The file or folder that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What no output may replace: the file or folder that was opened, and the files that belong to it.
    pub fn inputs(&self) -> Vec<&Path> {
        let others: Vec<&Path> = match &self.files {
            Files::Gguf(model) => model.files().iter().map(|file| file.path()).collect(),
            Files::HuggingFace(_) => Vec::new(),
            Files::Onnx(model) => model.onnx().external_files().iter().map(|f| f.file.path()).collect(),
        };
        std::iter::once(self.path()).chain(others).collect()
    }

    /// The files behind the tensors.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The table of the model's family.
    pub fn architecture(&self) -> &'static Architecture {
        self.architecture
    }

    /// The architecture as GGUF names it, or as the container does when it is not known.
    pub fn architecture_name(&self) -> &str {
        &self.architecture_name
    }

    /// Whether the model's architecture is known: what is not has tensors and nothing else.
    pub fn is_known(&self) -> bool {
        !self.architecture.gguf.is_empty()
    }

    /// Fails, naming those that are known, where the architecture is not: more than tensors is then needed.
    pub fn must_be_known(&self) -> Result<()> {
        if self.is_known() {
            return Ok(());
        }
        if self.architecture_name.is_empty() && matches!(self.files, Files::Onnx(_)) {
            let problem = "neither config.json nor genai_config.json lies beside it to say what it is";
            let help = "put the model's config.json beside it";
            return Err(Error::input(&self.path, "architecture", problem, help));
        }
        let problem = format!("'{}' is not known", self.architecture_name.escape_debug());
        let help = format!(
            "curmerge knows {}; of other models it can `select`, `merge`, `verify` and `export --format gguf` matrices \
             by their names",
            arch::known()
        );
        Err(Error::input(&self.path, "architecture", problem, help))
    }

    /// The model's dimensions and options.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The longest sequence that the model can read at all, where there is a bound: where positions have learned vectors.
    pub fn max_tokens(&self) -> Option<usize> {
        (self.architecture.positions == arch::Positions::Learned).then_some(self.config.context)
    }

    /// `gguf`, `safetensors` or `onnx`.
    pub fn container(&self) -> &'static str {
        match self.files {
            Files::Gguf(_) => "gguf",
            Files::HuggingFace(_) => "safetensors",
            Files::Onnx(_) => "onnx",
        }
    }

    /// What the model calls itself: `general.name` in GGUF, else its architecture. Never its path, which must not go
    /// into an adapter.
    pub fn name(&self) -> String {
        let own = match &self.files {
            Files::Gguf(model) => model.first().get("general.name").and_then(|v| v.as_str()),
            Files::HuggingFace(_) | Files::Onnx(_) => None,
        };
        own.unwrap_or(&self.architecture_name).to_string()
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

    /// Every tensor by canonical name; one that the architecture does not name keeps its stored name.
    pub fn tensors(&self) -> &BTreeMap<String, BaseTensor> {
        &self.tensors
    }

    /// The stored bytes of a tensor; of one that holds several matrices all, and of one in blocks the codes.
    pub fn bytes(&self, tensor: &BaseTensor) -> &[u8] {
        self.stretch(tensor.file, tensor.offset, tensor.bytes)
    }

    /// Bytes of one of the files.
    fn stretch(&self, file: usize, offset: u64, bytes: u64) -> &[u8] {
        let file = match &self.files {
            Files::Gguf(model) => model.files()[file].bytes(),
            Files::HuggingFace(shards) => shards[file].bytes(),
            Files::Onnx(model) => model.bytes(file),
        };
        // Opening the container checked that every tensor lies within its file.
        &file[offset as usize..(offset + bytes) as usize]
    }
}
