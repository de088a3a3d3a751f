//! The models of fixtures/arch, one for each kind of architecture, and what other programs compute with them.

use std::path::{Path, PathBuf};

use curmerge::base::Base;
use curmerge::cur::Selection;
use curmerge_formats::SafeTensors;
use curmerge_formats::adapter::Adapter;
use serde_json::Value;

use super::adapter::Recipe;
use super::goldens::{integers, numbers};
use super::{fixture, folder};

/// Calls a macro with the fixtures of the architectures that curmerge knows: a name for a module, and the
/// folder's.
#[macro_export]
macro_rules! each_family {
    ($call:ident) => {
        $call! {
            llama2: "llama2",
            llama3: "llama3",
            mistral: "mistral",
            mixtral: "mixtral",
            qwen2: "qwen2",
            qwen3: "qwen3",
            qwen3moe: "qwen3moe",
            gemma2: "gemma2",
            gemma3: "gemma3",
            gemma3_linear: "gemma3-linear",
            phi3: "phi3",
            phi3_long: "phi3-long",
            gpt2: "gpt2",
            olmo2: "olmo2",
            granite: "granite",
        }
    };
}

macro_rules! names {
    ($($module:ident: $name:literal),* $(,)?) => { [$($name),*] };
}
/// The folder of every fixture.
pub const ALL: [&str; 15] = each_family!(names);

/// Both containers of each fixture.
pub const CONTAINERS: [Container; 2] = [Container::Folder, Container::Gguf];

/// The fixtures from which tests make models for onnxruntime-genai.
pub const GENAI: [&str; 6] = ["llama3", "mistral", "qwen3", "gemma2", "gemma3", "phi3"];

/// A folder of fixtures/arch, whose README.md describes the files.
#[derive(Debug)]
pub struct Family {
    pub folder: PathBuf,
    /// goldens.json
    pub goldens: Value,
    arrays: SafeTensors,
}

/// A sequence of the goldens.
#[derive(Debug)]
pub struct Sequence {
    pub ids: Vec<u32>,
    /// Whether each token is predicted in the loss.
    pub predicted: Vec<bool>,
    /// The indices of the tokens after which the goldens have logits.
    pub places: Vec<usize>,
}

/// A container of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    Folder,
    Gguf,
}

impl Family {
    pub fn open(name: &str) -> Self {
        let folder = fixture::path("arch").join(name);
        let goldens = serde_json::from_slice(&std::fs::read(folder.join("goldens.json")).unwrap()).unwrap();
        let arrays = SafeTensors::open(&folder.join("goldens.safetensors")).unwrap();
        Self { folder, goldens, arrays }
    }

    pub fn path(&self, container: Container) -> PathBuf {
        self.folder.join(match container {
            Container::Folder => "hf",
            Container::Gguf => "model.gguf",
        })
    }

    /// Whether a GGUF file cannot express all that the folder does, so that the two are different models.
    pub fn gguf_differs(&self) -> bool {
        self.goldens.get("gguf").is_some()
    }

    /// The name of transformers' results for this container in the goldens.
    pub fn reading(&self, container: Container) -> &'static str {
        if container == Container::Gguf && self.gguf_differs() { "gguf" } else { "folder" }
    }

    pub fn sequences(&self) -> Vec<Sequence> {
        let sequence = |s: &Value| {
            let ids = integers(&s["ids"]);
            let predicted: Vec<bool> = integers(&s["mask"]).into_iter().map(|m| m == 1).collect();
            let places = integers(&s["places"]).into_iter().map(|p| p as usize).collect();
            assert_eq!(ids.len(), predicted.len());
            Sequence { ids, predicted, places }
        };
        self.goldens["sequences"].as_array().unwrap().iter().map(sequence).collect()
    }

    /// The adapter of the goldens, on those of its targets that `words` selects, as `--targets` does.
    pub fn adapter(&self, base: &Base, words: &str) -> Adapter {
        let goldens = &self.goldens["targets"];
        let mut names = base.targets(words, None).unwrap();
        names.retain(|name| goldens.get(name).is_some());
        let scale = self.goldens["scale"].as_f64().unwrap() as f32;
        let recipe = Recipe { scale, selection: Selection::Reference, seed: 0, ..Default::default() };
        recipe.adapter_of(base, &names, |(_, target)| {
            let golden = &goldens[&target.name];
            assert_eq!(integers(&golden["shape"]), target.shape.map(|n| n as u32), "{}", target.name);
            target.cols = integers(&golden["cols"]);
            target.rows = integers(&golden["rows"]);
            target.u = numbers(&golden["u"]).into_iter().map(|x| x as f32).collect();
        })
    }

    /// The rows of an array of goldens.safetensors: one for each place of each sequence, in order.
    pub fn rows(&self, name: &str) -> Vec<Vec<f64>> {
        let tensor = self.arrays.tensor(name).unwrap_or_else(|| panic!("goldens have no {name}"));
        let values = self.arrays.data(tensor).as_chunks::<4>().0.iter();
        let values: Vec<f64> = values.map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect();
        values.chunks(*tensor.shape.last().unwrap() as usize).map(<[f64]>::to_vec).collect()
    }
}

/// Copies the Hugging Face folder of a family and gives it the name of an unknown architecture.
pub fn renamed(family: &str, name: &str, to: &Path) {
    folder::copy(&Family::open(family).path(Container::Folder), to);
    let config = std::fs::read_to_string(to.join("config.json")).unwrap();
    let config = config.replace(&format!("\"{family}\""), &format!("\"{name}\""));
    std::fs::write(to.join("config.json"), config).unwrap();
}
