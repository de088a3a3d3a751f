//! The models of fixtures/arch, one for each kind of architecture, and what other programs compute with them.

use std::path::{Path, PathBuf};

use curmerge::arch::{self, Activation, Architecture};
use curmerge::base::Base;
use curmerge::cur::Selection;
use curmerge_formats::SafeTensors;
use curmerge_formats::adapter::Adapter;
use serde_json::Value;

use super::adapter::Recipe;
use super::goldens::{integers, numbers};
use super::{fixture, folder};

/// Calls a macro with the fixtures that can be converted to ONNX: a name for a module, and the folder's.
/// Entries after the macro's name are appended.
#[macro_export]
macro_rules! each_convertible {
    ($call:ident $($more:tt)*) => {
        $call! {
            llama2: "llama2",
            llama3: "llama3",
            mistral: "mistral",
            qwen2: "qwen2",
            qwen3: "qwen3",
            gemma: "gemma",
            gemma2: "gemma2",
            gemma3: "gemma3",
            gemma3_linear: "gemma3-linear",
            phi3: "phi3",
            phi3_long: "phi3-long",
            olmo2: "olmo2",
            olmo3: "olmo3",
            qwen3_yarn: "qwen3-yarn",
            seed_oss: "seed-oss",
            granite: "granite",
            smollm3: "smollm3",
            phi2: "phi2",
            hunyuan: "hunyuan",
            gptneox: "gptneox",
            falcon: "falcon",
            falcon_40b: "falcon-40b",
            falcon_11b: "falcon-11b",
            ministral3: "ministral3",
            apertus: "apertus",
            arcee: "arcee",
            starcoder2: "starcoder2",
            command_r: "command-r",
            cohere2: "cohere2",
            ernie4_5: "ernie4_5",
            glm4: "glm4",
            nemotron: "nemotron",
            stablelm: "stablelm",
            exaone4: "exaone4",
            exaone4_window: "exaone4-window",
            internlm2: "internlm2",
            gpt2: "gpt2",
            granite4: "granite4",
            mixtral: "mixtral",
            granitemoe: "granitemoe",
            olmoe: "olmoe",
            qwen3moe: "qwen3moe",
            gpt_oss: "gpt-oss",
            gpt_oss_mxfp4: "gpt-oss-mxfp4",
            lfm2: "lfm2",
            lfm2moe: "lfm2moe",
            $($more)*
        }
    };
}

/// Calls a macro with all fixtures: those of `each_convertible!`, and those that cannot be converted to ONNX.
#[macro_export]
macro_rules! each_family {
    ($call:ident) => {
        each_convertible! {
            $call
            granite4_h: "granite4-h",
            granite4_h_moe: "granite4-h-moe",
            nemotron_h: "nemotron_h",
            nemotron_h_moe: "nemotron_h_moe",
            nemotron_h_moe_super: "nemotron_h_moe-super",
            qwen3next: "qwen3next",
            glm4moe: "glm4moe",
            ernie4_5_moe: "ernie4_5-moe",
            qwen2moe: "qwen2moe",
            gemma4: "gemma4",
            gemma4_e: "gemma4-e",
            gemma4_moe: "gemma4-moe",
            qwen3_5: "qwen3_5",
            qwen3_5_heads: "qwen3_5-heads",
            qwen3_5_moe: "qwen3_5-moe",
        }
    };
}

macro_rules! names {
    ($($module:ident: $name:literal),* $(,)?) => { &[$($name),*] };
}
/// The folder of every fixture.
pub const ALL: &[&str] = each_family!(names);

/// The fixtures that can be converted to ONNX.
pub const CONVERTIBLE: &[&str] = each_convertible!(names);

/// The fixtures of the families that onnxruntime-genai runs.
pub fn genai() -> impl Iterator<Item = &'static str> {
    let runs = |name: &&str| Family::open(name).architecture().onnx.genai_type.is_some();
    ALL.iter().copied().filter(runs)
}

/// Both containers of each fixture.
pub const CONTAINERS: [Container; 2] = [Container::Folder, Container::Gguf];

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

    /// curmerge's description of the family.
    pub fn architecture(&self) -> &'static Architecture {
        let config = std::fs::read(self.path(Container::Folder).join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        arch::by_model_type(config["model_type"].as_str().unwrap(), |by| by.holds(&config)).unwrap()
    }

    /// Whether llama.cpp computes the activation with an F16 table.
    pub fn has_gelu_table(&self) -> bool {
        let architecture = self.architecture();
        architecture.gguf.activation.unwrap_or(architecture.forward.activation) == Activation::Gelu
    }

    /// Whether the folder stores norms minus 1.
    pub fn has_unit_offset(&self) -> bool {
        self.architecture().names().any(|tensor| tensor.unit_offset)
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
