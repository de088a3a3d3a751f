//! `curmerge inspect`: what a model file, a model folder or an adapter holds.

mod architecture;
mod known;
mod second_opinion;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use curmerge_formats::adapter::Adapter;
use curmerge_formats::detect::{Container, detect};
use curmerge_formats::gguf::{Array, GgufModel, Value};
use curmerge_formats::onnx::{Dimension, ElementType, Onnx, Storage, ValueInfo, ValueType};
use curmerge_formats::safetensors::{SafeTensors, shard_index};
use curmerge_formats::sha256_hex;
use rayon::prelude::*;
use serde_json::{Value as Json, json};

use crate::base;
use crate::base::folder::Folder;
use crate::commands::report::contents::{Contents, Entry, TensorLine};
use crate::commands::report::{progress, terminal};
use crate::lora::{Lora, peft};
use crate::{Error, Result};

/// Of a longer array, only the length and the first values are shown.
const WHOLE_ARRAY: usize = 8;
const FIRST_VALUES: usize = 4;

/// Options of `curmerge inspect`.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// A GGUF file, a safetensors file, a Hugging Face folder, an ONNX file, `ollama:NAME[:TAG]`,
    /// `hf:OWNER/NAME[:FILE|QUANT][@REVISION]` or an adapter (also a LoRA folder of PEFT or mlx-lm).
    #[arg(required_unless_present = "architectures")]
    pub file: Option<PathBuf>,
    /// List the architectures that curmerge knows, and what works with each.
    #[arg(long, conflicts_with = "file")]
    pub architectures: bool,
    /// Show checksums in full.
    #[arg(long)]
    pub full: bool,
    /// Skip the tensors' checksums.
    #[arg(long)]
    pub no_checksums: bool,
    /// Read the header of a GGUF file with the crate gguf-rs too and compare names, shapes, types, offsets
    /// and metadata; exit with 1 if the two readers disagree.
    #[arg(long)]
    pub second_opinion: bool,
}

/// Reads the file and prints what it holds.
pub fn run(args: &InspectArgs, json: bool) -> Result<()> {
    let Some(file) = args.file.as_ref().filter(|_| !args.architectures) else {
        return match json {
            true => terminal::print_json(&known::json()),
            false => terminal::print(&known::text()),
        };
    };
    let (hash, file) = (!args.no_checksums, base::resolve(file)?);
    let spinner = progress::spinner("reading");
    let container = detect(&file)?;
    let opinion = args.second_opinion.then(|| second_opinion::of(&file, container)).transpose()?;
    let contents = match container {
        Container::Gguf => of_gguf(&file, hash)?,
        Container::HfFolder => of_folder(&file, hash)?,
        Container::SafeTensors if Adapter::is_adapter(&file) => of_adapter(&file, hash)?,
        Container::SafeTensors => {
            let tensors = SafeTensors::open(&file)?;
            Contents {
                kind: "safetensors file".into(),
                metadata: texts(tensors.metadata().iter()),
                tensors: lines(&tensors, hash),
                path: file.clone(),
                support: None,
                recipe: None,
            }
        }
        Container::Onnx => of_onnx(&file, hash)?,
        Container::Unknown if file.is_dir() && Lora::is_lora(&file) => of_lora_folder(&file, hash)?,
        Container::Unknown => {
            return Err(Error::input(
                &file,
                "container",
                "not a kind of file that curmerge reads",
                "name a GGUF file, a safetensors file, a Hugging Face folder, an ONNX file or an adapter",
            ));
        }
    };
    spinner.finish_and_clear();
    let Some(opinion) = opinion else {
        return if json {
            terminal::print_json(&contents.json())
        } else {
            terminal::print(&contents.text(args.full))
        };
    };
    if json {
        let mut all = contents.json();
        all["second_opinion"] = second_opinion::json(&opinion);
        terminal::print_json(&all)?;
    } else {
        terminal::print(&(contents.text(args.full) + &second_opinion::text(&opinion)))?;
    }
    second_opinion::verdict(&file, &opinion)
}

fn of_gguf(path: &Path, hash: bool) -> Result<Contents> {
    let model = GgufModel::open(path)?;
    let first = model.first();
    let entry = |(key, value): &(String, Value)| Entry {
        key: key.clone(),
        kind: value.type_name().into(),
        value: gguf_value(value),
    };
    let form = match model.files().len() {
        1 => "GGUF file".to_string(),
        splits => format!("GGUF model in {splits} splits"),
    };
    let tensors: Vec<_> = model.tensors().collect();
    let metadata: Vec<Entry> = first.metadata().iter().map(entry).collect();
    Ok(Contents {
        path: path.into(),
        kind: format!("{form}, version {}, data aligned to {} bytes", first.version(), first.alignment()),
        support: architecture::of(path, &metadata),
        recipe: None,
        metadata,
        tensors: tensors
            .par_iter()
            .map(|&(file, t)| TensorLine {
                name: t.name.clone(),
                dtype: t.dtype.name().into(),
                shape: t.shape(),
                bytes: t.bytes,
                sha256: hash.then(|| sha256_hex(model.files()[file].data(t))),
            })
            .collect(),
    })
}

fn of_folder(folder: &Path, hash: bool) -> Result<Contents> {
    let names: Vec<String> = match shard_index(folder)? {
        Some(index) => index.into_values().collect::<BTreeSet<_>>().into_iter().collect(),
        None => vec!["model.safetensors".into()],
    };
    let config = Folder::new(folder).config()?;
    let metadata =
        config.into_iter().map(|(key, value)| Entry { key, kind: json_kind(&value).into(), value });
    let mut tensors = Vec::new();
    for name in &names {
        tensors.extend(lines(&SafeTensors::open(&folder.join(name))?, hash));
    }
    Ok(Contents {
        path: folder.into(),
        kind: format!("Hugging Face folder, {} safetensors files", names.len()),
        support: architecture::of(folder, &[]),
        recipe: None,
        metadata: metadata.collect(),
        tensors,
    })
}

/// The adapter is read, which checks every digest in it.
fn of_adapter(path: &Path, hash: bool) -> Result<Contents> {
    let adapter = Adapter::read(path)?;
    let file = SafeTensors::open(path)?;
    let entry = |key: &str, value: Json| Entry { key: key.into(), kind: json_kind(&value).into(), value };
    let mut metadata = vec![
        entry("base", json!(adapter.base.name)),
        entry("base architecture", json!(adapter.base.architecture)),
        entry("base container", json!(adapter.base.container)),
        entry("targets", json!(adapter.targets.len())),
        entry("rank", json!(adapter.rank)),
        entry("scale", json!(adapter.scale)),
        entry("selection", json!(adapter.selection)),
        entry("seed", json!(adapter.seed)),
    ];
    if adapter.kept_tasks() > 0 {
        metadata.push(entry("tasks that --init protects", json!(adapter.kept_tasks())));
    }
    if let Some(Json::Object(training)) = adapter.training.as_ref().and_then(|t| serde_json::to_value(t).ok())
    {
        let training = training.into_iter().filter(|(key, _)| key != "recipe");
        metadata.extend(training.map(|(key, value)| {
            let value = match value {
                Json::Array(values) => first_values(&values),
                other => other,
            };
            entry(&format!("training {}", key.replace('_', " ")), value)
        }));
    }
    Ok(Contents {
        path: path.into(),
        kind: "curmerge adapter, all digests right".into(),
        support: None,
        recipe: adapter.training.as_ref().and_then(|training| training.recipe.clone()),
        metadata,
        tensors: lines(&file, hash),
    })
}

/// A LoRA folder of PEFT or mlx-lm.
fn of_lora_folder(folder: &Path, hash: bool) -> Result<Contents> {
    let config = Folder::new(folder).object(peft::CONFIG)?.unwrap_or_default();
    let metadata =
        config.into_iter().map(|(key, value)| Entry { key, kind: json_kind(&value).into(), value });
    let mut tensors = Vec::new();
    for file in Lora::files(folder).iter().filter(|file| file.extension().is_some_and(|e| e == "safetensors"))
    {
        tensors.extend(lines(&SafeTensors::open(file)?, hash));
    }
    Ok(Contents {
        path: folder.into(),
        kind: "LoRA folder".into(),
        support: None,
        recipe: None,
        metadata: metadata.collect(),
        tensors,
    })
}

/// The tensors are the initializers. Tensors of strings have no checksum.
fn of_onnx(path: &Path, hash: bool) -> Result<Contents> {
    let model = Onnx::open(path)?;
    let entry = |key: String, value: Json| Entry { key, kind: json_kind(&value).into(), value };
    let mut metadata = Vec::new();
    let (producer, version) = model.producer();
    if !producer.is_empty() {
        metadata.push(entry("producer".into(), json!(format!("{producer} {version}").trim_end())));
    }
    metadata.extend(model.opsets().iter().map(|(domain, version)| {
        let domain = if domain.is_empty() { "ai.onnx" } else { domain };
        entry(format!("opset {domain}"), json!(version))
    }));
    let graph = model.graph();
    metadata.push(entry("nodes".into(), json!(graph.nodes.len())));
    metadata.extend(graph.inputs.iter().map(|v| entry(format!("input {}", v.name), json!(onnx_type(v)))));
    metadata.extend(graph.outputs.iter().map(|v| entry(format!("output {}", v.name), json!(onnx_type(v)))));
    let files = model.external_files().iter();
    metadata.extend(files.map(|external| {
        let bytes = external.file.bytes().len();
        entry(format!("external file {}", external.location), json!(format!("{bytes} bytes")))
    }));
    metadata.extend(model.metadata().iter().map(|(key, text)| entry(format!("metadata {key}"), json!(text))));
    let tensors = graph.initializers.par_iter().map(|t| -> Result<TensorLine> {
        let digest = match t.storage {
            _ if !hash => None,
            Storage::Typed if t.element == ElementType::STRING => None,
            _ => Some(sha256_hex(&model.data(t)?)),
        };
        Ok(TensorLine {
            name: t.name.clone(),
            dtype: t.element.name().into(),
            shape: t.dims.clone(),
            bytes: t.bytes,
            sha256: digest,
        })
    });
    Ok(Contents {
        path: path.into(),
        kind: format!("ONNX file, IR version {}", model.ir_version()),
        support: architecture::of(path, &[]),
        recipe: None,
        metadata,
        // Of several errors, the first in order is returned and not the first in time.
        tensors: tensors.collect::<Vec<_>>().into_iter().collect::<Result<_>>()?,
    })
}

/// For example `INT64 [batch, 8, ?]`.
fn onnx_type(value: &ValueInfo) -> String {
    match &value.value_type {
        Some(ValueType::Tensor { element, shape: Some(shape) }) => {
            let length = |dimension: &Dimension| match dimension {
                Dimension::Fixed(length) => length.to_string(),
                Dimension::Named(name) => name.clone(),
                Dimension::Unknown => "?".into(),
            };
            format!("{element} [{}]", shape.iter().map(length).collect::<Vec<_>>().join(", "))
        }
        Some(ValueType::Tensor { element, shape: None }) => format!("{element} of any shape"),
        _ => "no tensor".into(),
    }
}

fn lines(file: &SafeTensors, hash: bool) -> Vec<TensorLine> {
    file.tensors()
        .par_iter()
        .map(|t| TensorLine {
            name: t.name.clone(),
            dtype: t.dtype.name().into(),
            shape: t.shape.clone(),
            bytes: t.bytes,
            sha256: hash.then(|| sha256_hex(file.data(t))),
        })
        .collect()
}

fn texts<'a>(metadata: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<Entry> {
    metadata.map(|(k, v)| Entry { key: k.clone(), kind: "string".into(), value: json!(v) }).collect()
}

fn json_kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

fn gguf_value(value: &Value) -> Json {
    match value {
        Value::String(text) => json!(text),
        Value::Bool(b) => json!(b),
        Value::F32(x) => json!(x),
        Value::F64(x) => json!(x),
        Value::Array(array) => gguf_array(array),
        integer => integer.as_u64().map_or_else(|| json!(integer.as_i64()), |n| json!(n)),
    }
}

fn gguf_array(array: &Array) -> Json {
    match array {
        Array::U8(v) => first_values(v),
        Array::I8(v) => first_values(v),
        Array::U16(v) => first_values(v),
        Array::I16(v) => first_values(v),
        Array::U32(v) => first_values(v),
        Array::I32(v) => first_values(v),
        Array::F32(v) => first_values(v),
        Array::Bool(v) => first_values(v),
        Array::String(v) => first_values(v),
        Array::U64(v) => first_values(v),
        Array::I64(v) => first_values(v),
        Array::F64(v) => first_values(v),
    }
}

/// All values of a short array, or the length and first values of a long one.
fn first_values<T: serde::Serialize>(values: &[T]) -> Json {
    if values.len() <= WHOLE_ARRAY {
        return json!(values);
    }
    json!({ "length": values.len(), "first": values[..FIRST_VALUES] })
}
