//! What `quantization_config` of config.json says of the form of the weights.

use serde_json::Value as Json;

use crate::base::folder::{CONFIG, Folder};
use crate::{Error, Result};

/// Files in which older folders keep the settings apart from config.json.
pub const BESIDE: [&str; 2] = ["quantize_config.json", "quant_config.json"];

/// Values of `quant_method` that people write in other letters.
const NAMES: [(&str, &str); 2] = [("gptq", "GPTQ"), ("awq", "AWQ")];

/// How to read the weights of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// See `gptq.rs`.
    Gptq {
        /// Bits of a code.
        bits: usize,
        /// Whether zeros are stored less 1.
        less_one: bool,
        /// Inputs of a group; `None` if a matrix is one group.
        group: Option<u64>,
    },
    /// See `awq.rs`.
    Awq {
        /// Inputs of a group; `None` if a matrix is one group.
        group: Option<u64>,
    },
    /// See `scaled.rs`.
    Scaled {
        /// Outputs and inputs that share a scale. Without them the scales' shape says it.
        block: Option<[usize; 2]>,
        /// `fp8` or `compressed-tensors`.
        name: &'static str,
    },
    /// See `mxfp4.rs`. Only matrices of experts are in it.
    Mxfp4,
    /// See `packed.rs`.
    Packed {
        /// Bits of a code.
        bits: usize,
        /// Inputs of a group; `None` if a matrix is one group.
        group: Option<u64>,
    },
}

impl Method {
    /// The method's name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Method::Gptq { .. } => "GPTQ",
            Method::Awq { .. } => "AWQ",
            Method::Scaled { name, .. } => name,
            Method::Packed { .. } => "compressed-tensors",
            Method::Mxfp4 => "MXFP4",
        }
    }

    /// The method of a folder; `None` if its weights are not quantized.
    ///
    /// # Errors
    /// A method, or a variant of one, that is not read.
    pub(in crate::base) fn of_folder(folder: Folder<'_>) -> Result<Option<Self>> {
        let config = folder.object(CONFIG)?.unwrap_or_default();
        let mut found = config.get("quantization_config").filter(|settings| settings.is_object()).cloned();
        let mut place = (CONFIG, "quantization_config");
        for file in BESIDE.iter().filter(|_| config.get("quantization_config").is_none()) {
            if let Some(settings) = folder.object(file)? {
                let method = if *file == BESIDE[0] { "gptq" } else { "awq" };
                let mut settings = Json::from(settings);
                if settings.get("quant_method").is_none() {
                    settings["quant_method"] = method.into();
                }
                (found, place) = (Some(settings), (*file, "bits"));
            }
        }
        let Some(settings) = found else { return Ok(None) };
        let found = Self::of_settings(&settings);
        if place.0 != CONFIG {
            // Such a file may be left over in a folder that is not quantized.
            return Ok(found.unwrap_or_default());
        }
        found.map_err(|problem| {
            let help = "use the model that it was made from, or a GGUF file of it";
            Error::input(folder.join(place.0), place.1, problem, help)
        })
    }

    fn of_settings(settings: &Json) -> std::result::Result<Option<Self>, String> {
        let Some(method) = settings.get("quant_method").and_then(Json::as_str) else { return Ok(None) };
        let word =
            |key: &str| settings.get(key).and_then(Json::as_str).unwrap_or_default().to_ascii_lowercase();
        let bits = settings.get("bits").or(settings.get("w_bit")).and_then(Json::as_u64);
        let group = settings.get("group_size").or(settings.get("q_group_size")).and_then(Json::as_u64);
        let other = |variant: &str| {
            let name = NAMES.iter().find(|(word, _)| *word == method).map_or(method, |(_, name)| name);
            let name = name.escape_debug();
            Err(match variant {
                "" => format!("the weights are quantized by {name}, which is not read"),
                _ => format!(
                    "the weights are quantized by {name} {}, which is not read",
                    variant.escape_debug()
                ),
            })
        };
        match method {
            "gptq" => {
                let dynamic = settings.get("dynamic").and_then(Json::as_object);
                if dynamic.is_some_and(|rules| !rules.is_empty()) {
                    return other("with settings for single matrices (dynamic)");
                }
                let less_one = match &*word("checkpoint_format") {
                    "" | "gptq" => true,
                    "gptq_v2" => false,
                    format => return other(&format!("in the format {format}")),
                };
                match bits {
                    Some(bits @ (2 | 3 | 4 | 8)) => {
                        Ok(Some(Method::Gptq { bits: bits as usize, less_one, group }))
                    }
                    _ => other("with other than 2, 3, 4 or 8 bits"),
                }
            }
            "awq" => match (&*word("version"), bits) {
                ("" | "gemm", Some(4)) => Ok(Some(Method::Awq { group })),
                ("" | "gemm", _) => other("with other than 4 bits"),
                (version, _) => other(&format!("in the version {version}")),
            },
            "mxfp4" => Ok(Some(Method::Mxfp4)),
            "fp8" => match &*word("fmt") {
                "" | "e4m3" => {
                    let block = block(settings.get("weight_block_size"));
                    block
                        .map(|block| Some(Method::Scaled { block, name: "fp8" }))
                        .or_else(|()| other("in other blocks"))
                }
                format => other(&format!("in the format {format}")),
            },
            "compressed-tensors" => match compressed(settings) {
                Ok(method) => Ok(Some(method)),
                Err(variant) => other(&variant),
            },
            _ => other(""),
        }
    }
}

/// Outputs and inputs of a block.
fn block(settings: Option<&Json>) -> std::result::Result<Option<[usize; 2]>, ()> {
    let Some(sizes) = settings.filter(|settings| !settings.is_null()) else { return Ok(None) };
    let size =
        |size: &Json| size.as_u64().filter(|&size| (1..=1 << 20).contains(&size)).map(|size| size as usize);
    match sizes.as_array().map(|sizes| sizes.iter().map(size).collect::<Vec<_>>()).as_deref() {
        Some([Some(rows), Some(cols)]) => Ok(Some([*rows, *cols])),
        _ => Err(()),
    }
}

/// The form of a compressed-tensors folder; or the variant that is not read.
fn compressed(settings: &Json) -> std::result::Result<Method, String> {
    let is_set = |value: Option<&Json>| {
        value.is_some_and(|value| {
            !value.is_null() && value.as_object().is_none_or(|object| !object.is_empty())
        })
    };
    let sparse =
        settings.get("sparsity_config").and_then(|sparsity| sparsity.get("format")).and_then(Json::as_str);
    if sparse.is_some_and(|format| format != "dense") {
        return Err("with sparse weights".into());
    }
    if is_set(settings.get("transform_config")) {
        return Err("with rotations (transform_config)".into());
    }
    let groups = settings.get("config_groups").and_then(Json::as_object);
    let Some(weights) =
        groups.filter(|groups| groups.len() == 1).and_then(|groups| groups.values().next()?.get("weights"))
    else {
        return Err("with other than one group of settings".into());
    };
    let bits = weights.get("num_bits").and_then(Json::as_u64);
    let kind = weights.get("type").and_then(Json::as_str).unwrap_or("int");
    let symmetric = weights.get("symmetric").is_none_or(|symmetric| symmetric == true);
    let format = settings.get("format").and_then(Json::as_str).unwrap_or_default();
    match (format, kind, bits) {
        ("float-quantized" | "naive-quantized", "float", Some(8))
        | ("int-quantized" | "naive-quantized", "int", Some(8))
            if symmetric =>
        {
            let block = block(weights.get("block_structure")).map_err(|()| "in other blocks".to_owned())?;
            Ok(Method::Scaled { block, name: "compressed-tensors" })
        }
        ("pack-quantized", "int", Some(bits @ (4 | 8))) => {
            // Inputs sorted by importance have groups of their own.
            match weights.get("actorder").and_then(Json::as_str) {
                Some("group" | "dynamic") => Err("with reordered inputs (actorder)".into()),
                _ => Ok(Method::Packed {
                    bits: bits as usize,
                    group: weights.get("group_size").and_then(Json::as_u64),
                }),
            }
        }
        _ => Err(format!("in the format {format} ({kind})")),
    }
}
