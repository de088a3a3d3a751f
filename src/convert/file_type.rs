//! The file types of llama-quantize, and the type that each gives to a tensor. Most are mixtures: a main
//! type, and more bits for tensors that are sensitive to rounding.
//!
//! Names, ids and choices are those of llama.cpp's `llama_ftype` and llama-quant.cpp (October 2026), for the
//! types that curmerge can write.

use std::fmt;

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{Array, GgufModel, GgufTensor, Value};

use crate::arch;
use crate::base::layer_part;

/// A mixture that a whole file can be stored in.
#[allow(non_camel_case_types, clippy::upper_case_acronyms)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// IEEE single precision throughout.
    F32,
    /// IEEE half precision, vectors in F32.
    F16,
    /// bfloat16, vectors in F32.
    BF16,
    /// 8.5 bits per weight.
    Q8_0,
    /// 6.6 bits per weight.
    Q6_K,
    /// 5.7 bits per weight: Q5_K, some Q6_K.
    Q5_K_M,
    /// 5.5 bits per weight: Q5_K.
    Q5_K_S,
    /// 4.8 bits per weight: Q4_K, some Q6_K.
    Q4_K_M,
    /// 4.6 bits per weight: Q4_K, some Q5_K.
    Q4_K_S,
    /// 4.3 bits per weight: Q3_K, some Q5_K.
    Q3_K_L,
    /// 3.9 bits per weight: Q3_K, some Q4_K and Q5_K.
    Q3_K_M,
    /// 3.5 bits per weight: Q3_K.
    Q3_K_S,
    /// 3 bits per weight: Q2_K, some Q3_K and Q4_K.
    Q2_K,
    /// 2.8 bits per weight; needs an importance matrix.
    Q2_K_S,
    /// 6 bits per weight.
    Q5_1,
    /// 5.5 bits per weight.
    Q5_0,
    /// 5 bits per weight.
    Q4_1,
    /// 4.5 bits per weight.
    Q4_0,
    /// 4.5 bits per weight, on uneven levels.
    IQ4_NL,
    /// 4.3 bits per weight, on uneven levels.
    IQ4_XS,
    /// Experts in MXFP4, all else in Q8_0.
    MXFP4_MOE,
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl FileType {
    /// Every mixture, in the order of bits.
    pub const ALL: &[Self] = &[
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q8_0,
        Self::Q6_K,
        Self::Q5_K_M,
        Self::Q5_K_S,
        Self::Q4_K_M,
        Self::Q4_K_S,
        Self::Q3_K_L,
        Self::Q3_K_M,
        Self::Q3_K_S,
        Self::Q2_K,
        Self::Q2_K_S,
        Self::Q5_1,
        Self::Q5_0,
        Self::Q4_1,
        Self::Q4_0,
        Self::IQ4_NL,
        Self::IQ4_XS,
        Self::MXFP4_MOE,
    ];

    /// llama-quantize's name in lower case.
    pub fn name(self) -> &'static str {
        self.facts().2
    }

    /// The number in `general.file_type`.
    pub fn id(self) -> u32 {
        self.facts().0
    }

    /// The type that most matrices get.
    pub fn main_type(self) -> DType {
        self.facts().1
    }

    fn facts(self) -> (u32, DType, &'static str) {
        match self {
            FileType::F32 => (0, DType::F32, "f32"),
            FileType::F16 => (1, DType::F16, "f16"),
            FileType::Q4_0 => (2, DType::Q4_0, "q4_0"),
            FileType::Q4_1 => (3, DType::Q4_1, "q4_1"),
            FileType::Q8_0 => (7, DType::Q8_0, "q8_0"),
            FileType::Q5_0 => (8, DType::Q5_0, "q5_0"),
            FileType::Q5_1 => (9, DType::Q5_1, "q5_1"),
            FileType::Q2_K => (10, DType::Q2_K, "q2_k"),
            FileType::Q3_K_S => (11, DType::Q3_K, "q3_k_s"),
            FileType::Q3_K_M => (12, DType::Q3_K, "q3_k_m"),
            FileType::Q3_K_L => (13, DType::Q3_K, "q3_k_l"),
            FileType::Q4_K_S => (14, DType::Q4_K, "q4_k_s"),
            FileType::Q4_K_M => (15, DType::Q4_K, "q4_k_m"),
            FileType::Q5_K_S => (16, DType::Q5_K, "q5_k_s"),
            FileType::Q5_K_M => (17, DType::Q5_K, "q5_k_m"),
            FileType::Q6_K => (18, DType::Q6_K, "q6_k"),
            FileType::Q2_K_S => (21, DType::Q2_K, "q2_k_s"),
            FileType::IQ4_NL => (25, DType::IQ4_NL, "iq4_nl"),
            FileType::IQ4_XS => (30, DType::IQ4_XS, "iq4_xs"),
            FileType::BF16 => (32, DType::BF16, "bf16"),
            FileType::MXFP4_MOE => (38, DType::MXFP4, "mxfp4_moe"),
        }
    }
}

/// Architectures for which llama-quantize makes exceptions that are not implemented here.
pub const EXCEPTIONS: &[&str] = &["glm5-next", "bailingmoe3"];

/// The properties of a model that the choice depends on.
#[derive(Clone, Debug)]
struct Model {
    layers: usize,
    /// Query heads per key and value head.
    sharing: u64,
    experts: u64,
    /// A 70B model with shared keys and values: attn_v is small and worth more bits.
    seventy_billion: bool,
    /// Whether some matrices get fewer bits than in other families.
    fewer_bits: bool,
    /// Whether the embedding is also the output head.
    tied: bool,
    /// The number of tensors like attn_v.
    values: usize,
    imatrix: bool,
}

impl Model {
    fn new<'a>(get: &dyn Fn(&str) -> Option<&'a Value>, tensors: &[&GgufTensor], imatrix: bool) -> Self {
        let architecture = get("general.architecture").and_then(Value::as_str).unwrap_or_default();
        let number = |key: &str| {
            let value = get(&format!("{architecture}.{key}"))?;
            // One number for all layers, or one per layer.
            value.as_u64().or_else(|| match value {
                Value::Array(Array::I32(numbers)) => numbers.first().and_then(|&x| u64::try_from(x).ok()),
                Value::Array(Array::U32(numbers)) => numbers.first().map(|&x| x.into()),
                _ => None,
            })
        };
        let heads = number("attention.head_count").unwrap_or(0);
        let shared = number("attention.head_count_kv").unwrap_or(heads);
        let layers = number("block_count").unwrap_or(0);
        let experts = number("expert_count").unwrap_or(0);
        let known = arch::by_gguf_name(architecture, experts > 0, false);
        let layers_of_70b = known.and_then(|known| known.gguf.layers_of_70b);
        let names = || tensors.iter().map(|t| t.name.as_str());
        Self {
            layers: layers as usize,
            sharing: heads.checked_div(shared).unwrap_or(0),
            experts,
            seventy_billion: layers_of_70b == Some(layers as usize) && heads != shared,
            fewer_bits: known.is_some_and(|known| known.gguf.fewer_bits),
            tied: !names().any(|name| Part::of(name) == Part::Output),
            values: names().filter(|name| Part::of(name) == Part::Value).count(),
            imatrix,
        }
    }
}

/// The kinds of tensors that the choice distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Output,
    Embedding,
    /// attn_v, or a matrix that it is a part of.
    Value,
    Key,
    AttentionOutput,
    Down,
    Other,
}

impl Part {
    fn of(name: &str) -> Self {
        let has = |part: &str| name.contains(part);
        match name {
            "output.weight" => Part::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Part::Embedding,
            _ if has("attn_qkv.weight") || has("attn_kv_b.weight") || has("attn_v.weight") => Part::Value,
            _ if has("attn_k.weight") => Part::Key,
            _ if has("attn_q.weight") => Part::Other,
            _ if has("attn_output.weight") => Part::AttentionOutput,
            _ if has("ffn_up") || has("ffn_gate") => Part::Other,
            _ if has("ffn_down") => Part::Down,
            _ => Part::Other,
        }
    }
}

/// A tensor's type in the new file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The type.
    pub dtype: DType,
    /// The wanted type, if rows of the tensor are not a whole number of its blocks.
    pub instead_of: Option<DType>,
}

/// The type of every tensor of `gguf`, in its order, in a file of this type; `imatrix` says whether there is
/// an importance matrix.
pub fn choose(gguf: &GgufModel, file_type: FileType, imatrix: bool) -> Vec<Choice> {
    let tensors: Vec<&GgufTensor> = gguf.tensors().map(|(_, tensor)| tensor).collect();
    choose_among(&|key| gguf.first().get(key), &tensors, file_type, imatrix)
}

/// [`choose`] for a file that is not written yet: its metadata by key, and its tensors.
pub(super) fn choose_among<'a>(
    get: &dyn Fn(&str) -> Option<&'a Value>,
    tensors: &[&GgufTensor],
    file_type: FileType,
    imatrix: bool,
) -> Vec<Choice> {
    let model = Model::new(get, tensors, imatrix);
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    // Choices by position follow llama.cpp's order: by layer, then by name.
    order.sort_by_key(|&i| (layer(&tensors[i].name), tensors[i].name.as_str()));
    let mut choices: Vec<Choice> =
        tensors.iter().map(|t| Choice { dtype: t.dtype, instead_of: None }).collect();
    let (mut values, mut downs) = (0, 0);
    for i in order {
        let tensor = tensors[i];
        if !is_quantized(tensor) {
            continue;
        }
        let main = file_type.main_type();
        if main.block_elements() == 1 {
            choices[i].dtype = main;
            continue;
        }
        let part = Part::of(&tensor.name);
        let place = match part {
            Part::Value => values,
            // With experts, layers may be out of order.
            Part::Down if model.experts > 1 => layer(&tensor.name).max(0) as usize,
            Part::Down => downs,
            _ => 0,
        };
        let wanted = mixed(file_type, &model, tensor, part, place);
        values += usize::from(part == Part::Value && file_type != FileType::MXFP4_MOE);
        downs += usize::from(part == Part::Down && file_type != FileType::MXFP4_MOE);
        let dtype = fitting(wanted, tensor.dims.first().copied().unwrap_or(0));
        choices[i] = Choice { dtype, instead_of: (dtype != wanted).then_some(wanted) };
    }
    choices
}

/// The layer of a tensor; -1 for a tensor outside the layers.
pub(super) fn layer(name: &str) -> i64 {
    let number = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map(|(number, _)| number);
    number.and_then(|number| number.parse().ok()).unwrap_or(-1)
}

/// Whether llama.cpp's converter keeps a tensor of this canonical name in F32, whatever the folder's type: some small
/// matrices, and the biases of all experts, which are as one matrix.
pub(super) fn stays_f32(name: &str) -> bool {
    let part = layer_part(name).map_or(name, |(_, part)| part);
    matches!(
        part,
        "position_embd"
            | "ffn_gate_inp"
            | "ffn_gate_inp_shexp"
            | "ssm_conv1d"
            | "ssm_a"
            | "ssm_d"
            | "shortconv.conv"
    ) || part.ends_with(".bias")
}

/// Whether llama-quantize converts the tensor at all: it converts weight matrices, except small or sensitive
/// ones.
fn is_quantized(tensor: &GgufTensor) -> bool {
    const KEPT: &[&str] = &[
        "_norm.weight",
        "ffn_gate_inp.weight",
        "ffn_gate_tid2eid.weight",
        "altup",
        "laurel",
        "per_layer_model_proj",
        "ssm_conv1d",
        "shortconv.conv.weight",
        "indexer.k_proj.weight",
        "indexer.q_proj.weight",
        "time_mix_first.weight",
        "time_mix_w0.weight",
        "time_mix_w1.weight",
        "time_mix_w2.weight",
        "time_mix_v0.weight",
        "time_mix_v1.weight",
        "time_mix_v2.weight",
        "time_mix_a0.weight",
        "time_mix_a1.weight",
        "time_mix_a2.weight",
        "time_mix_g1.weight",
        "time_mix_g2.weight",
        "time_mix_decay_w1.weight",
        "time_mix_decay_w2.weight",
        "time_mix_lerp_fused.weight",
        "attn_rel_b.weight",
        ".position_embd",
        "sam.pos_embd",
        "sam.neck.",
        "sam.net_",
        ".rel_pos",
        ".patch_embd",
        ".patch_merger",
        "a.rvq.codebook",
        "mm.a.code_embd",
    ];
    let name = tensor.name.as_str();
    let dimensions = tensor.dims.iter().rposition(|&d| d != 1).map_or(1, |last| last + 1);
    dimensions >= 2
        && name.ends_with("weight")
        && !matches!(name, "position_embd.weight" | "token_types.weight")
        && !KEPT.iter().any(|part| name.contains(part))
}

/// The type by the rules of the mixture; `place` is the number of tensors of this part before it.
fn mixed(file_type: FileType, model: &Model, tensor: &GgufTensor, part: Part, place: usize) -> DType {
    use FileType as F;
    let main = file_type.main_type();
    let layers = model.layers;
    // Every third layer, and the first and last eighth of all layers.
    let more_bits = |i: usize, n: usize| i < n / 8 || i >= n.saturating_mul(7) / 8 || (i - n / 8) % 3 == 2;
    if part == Part::Output || model.tied && part == Part::Embedding {
        let whole = tensor.dims[0].is_multiple_of(main.block_elements() as u64);
        let eight_bits = model.fewer_bits || matches!(file_type, F::Q8_0 | F::MXFP4_MOE);
        return if whole && !eight_bits { DType::Q6_K } else { DType::Q8_0 };
    }
    if file_type == F::MXFP4_MOE {
        let experts = tensor.dims.get(2).is_some_and(|&count| count > 1);
        return if experts { DType::MXFP4 } else { DType::Q8_0 };
    }
    match part {
        Part::Value if model.experts == 8 => DType::Q8_0,
        Part::Value => {
            let dtype = match file_type {
                F::Q2_K if model.sharing < 4 => DType::Q3_K,
                F::Q2_K => DType::Q4_K,
                F::Q2_K_S if model.sharing >= 4 => DType::Q4_K,
                F::Q3_K_M if place < 2 => DType::Q5_K,
                F::Q3_K_M => DType::Q4_K,
                F::Q3_K_L => DType::Q5_K,
                F::IQ4_NL | F::IQ4_XS if model.sharing >= 4 => DType::Q5_K,
                F::Q4_K_M | F::Q5_K_M if more_bits(place, model.values) => DType::Q6_K,
                F::Q4_K_S if place < 4 => DType::Q5_K,
                _ => main,
            };
            let raised = model.seventy_billion && matches!(dtype, DType::Q3_K | DType::Q4_K);
            if raised { DType::Q5_K } else { dtype }
        }
        Part::Key if model.experts == 8 => DType::Q8_0,
        Part::Down => match file_type {
            F::Q2_K => DType::Q3_K,
            F::Q2_K_S if place < layers / 8 => DType::Q4_K,
            F::Q3_K_M if place < layers / 16 => DType::Q5_K,
            F::Q3_K_M if model.fewer_bits && !more_bits(place, layers) => DType::Q3_K,
            F::Q3_K_M => DType::Q4_K,
            F::Q3_K_L if model.fewer_bits => DType::Q4_K,
            F::Q3_K_L => DType::Q5_K,
            F::Q4_K_M if model.fewer_bits && place < layers / 16 => DType::Q6_K,
            F::Q4_K_M if model.fewer_bits && more_bits(place, layers) => DType::Q5_K,
            F::Q4_K_M if model.fewer_bits => DType::Q4_K,
            F::Q4_K_M | F::Q5_K_M if more_bits(place, layers) => DType::Q6_K,
            F::Q4_K_S if !model.fewer_bits && place < layers / 8 => DType::Q5_K,
            F::IQ4_NL | F::IQ4_XS if !model.imatrix && place < layers / 8 => DType::Q5_K,
            F::Q4_0 if model.imatrix && place < layers / 8 => DType::Q4_1,
            F::Q5_0 if model.imatrix && place < layers / 8 => DType::Q5_1,
            _ => main,
        },
        Part::AttentionOutput if model.experts == 8 => match file_type {
            F::Q2_K | F::Q3_K_S | F::Q3_K_M | F::Q4_K_S | F::Q4_K_M | F::IQ4_NL | F::IQ4_XS => DType::Q5_K,
            _ => main,
        },
        Part::AttentionOutput if model.fewer_bits => match file_type {
            F::Q3_K_L => DType::Q4_K,
            _ => main,
        },
        Part::AttentionOutput => match file_type {
            F::Q2_K => DType::Q3_K,
            F::Q3_K_M => DType::Q4_K,
            F::Q3_K_L => DType::Q5_K,
            _ => main,
        },
        Part::Output | Part::Embedding | Part::Key | Part::Other => main,
    }
}

/// The type itself, or the nearest one whose blocks divide a row of `columns` values.
fn fitting(dtype: DType, columns: u64) -> DType {
    let whole = |dtype: DType| columns.is_multiple_of(dtype.block_elements() as u64);
    if whole(dtype) {
        return dtype;
    }
    let smaller = match dtype {
        DType::IQ4_XS => DType::IQ4_NL,
        DType::Q2_K | DType::Q3_K => DType::Q4_0,
        DType::Q4_K => DType::Q5_0,
        DType::Q5_K => DType::Q5_1,
        DType::Q6_K => DType::Q8_0,
        other => other,
    };
    if whole(smaller) { smaller } else { DType::F16 }
}
