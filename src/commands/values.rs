//! The names of the library's choices on the command line, with their help. The library knows no clap.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::arguments::{SIGNAL, SelectBy};
use crate::convert::FileType;
use crate::cur::Selection;
use crate::export::Format;
use crate::kernels::{Cpu, Precision};

fn selection_value(selection: Selection) -> PossibleValue {
    let help = match selection {
        Selection::Inverse => {
            "weight 1/p for the share p of the squared norm, as in the paper: the unimportant ones"
        }
        Selection::Reference => {
            "weight 1/(p + 0.001), as in the paper's code: almost uniform unless a column stands out"
        }
        Selection::Uniform => "every non-zero column alike",
        Selection::Leverage => {
            "weight by statistical leverage in the leading rank-r singular subspace: the important ones, for comparison"
        }
    };
    PossibleValue::new(selection.name()).help(help)
}

impl ValueEnum for SelectBy {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            SelectBy::Drawn(Selection::Inverse),
            SelectBy::Drawn(Selection::Reference),
            SelectBy::Drawn(Selection::Uniform),
            SelectBy::Drawn(Selection::Leverage),
            SelectBy::Signal,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            SelectBy::Drawn(selection) => return Some(selection_value(*selection)),
            SelectBy::Signal => {
                "the task's gradients on the examples against those on the model's own texts: those that learn \
                 most for what they change. It reads the examples and the anchor twice; on another processor \
                 it may choose others"
            }
        };
        Some(PossibleValue::new(SIGNAL).help(help))
    }
}

impl ValueEnum for Precision {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Precision::F32 => "products of f32",
            Precision::Bf16 => {
                "products of bfloat16, summed in f32; f32 if the processor has no such products"
            }
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ValueEnum for Cpu {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Cpu::Portable => "what the program was compiled for: any processor of the architecture",
            #[cfg(target_arch = "aarch64")]
            Cpu::Neon => "NEON, which every processor of the architecture has",
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2 => "AVX2 with fused multiply-add",
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512 => "AVX-512 F, BW, DQ and VL",
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512bf16 => "products of bfloat16 pairs, on AVX-512",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Format::Gguf => "a LoRA as a GGUF file, for llama.cpp's --lora",
            Format::Peft => "a LoRA as a folder, for PEFT and vLLM",
            Format::OnnxAdapter => "a file for onnxruntime, beside a base made by `convert --lora-inputs`",
            Format::Curmerge => "curmerge's own adapter, which holds a CURLoRA alone",
            Format::Ollama => {
                "a folder for `ollama create`: the merged model and a Modelfile with its chat template"
            }
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ValueEnum for FileType {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            FileType::F32 => "IEEE single precision throughout",
            FileType::F16 => "IEEE half precision, vectors in F32",
            FileType::BF16 => "bfloat16, vectors in F32",
            FileType::Q8_0 => "8.5 bits per weight",
            FileType::Q6_K => "6.6 bits per weight",
            FileType::Q5_K_M => "5.7 bits per weight: Q5_K, some Q6_K",
            FileType::Q5_K_S => "5.5 bits per weight: Q5_K",
            FileType::Q4_K_M => "4.8 bits per weight: Q4_K, some Q6_K",
            FileType::Q4_K_S => "4.6 bits per weight: Q4_K, some Q5_K",
            FileType::Q3_K_L => "4.3 bits per weight: Q3_K, some Q5_K",
            FileType::Q3_K_M => "3.9 bits per weight: Q3_K, some Q4_K and Q5_K",
            FileType::Q3_K_S => "3.5 bits per weight: Q3_K",
            FileType::Q2_K => "3 bits per weight: Q2_K, some Q3_K and Q4_K",
            FileType::Q2_K_S => "2.8 bits per weight; needs an importance matrix",
            FileType::Q5_1 => "6 bits per weight",
            FileType::Q5_0 => "5.5 bits per weight",
            FileType::Q4_1 => "5 bits per weight",
            FileType::Q4_0 => "4.5 bits per weight",
            FileType::IQ4_NL => "4.5 bits per weight, on uneven levels",
            FileType::IQ4_XS => "4.3 bits per weight, on uneven levels",
            FileType::MXFP4_MOE => "Experts in MXFP4, all else in Q8_0",
        };
        let short = match self {
            FileType::Q5_K_M => Some("q5_k"),
            FileType::Q4_K_M => Some("q4_k"),
            FileType::Q3_K_M => Some("q3_k"),
            FileType::Q4_0 => Some("q4"),
            _ => None,
        };
        Some(PossibleValue::new(self.name()).help(help).aliases(short))
    }
}
