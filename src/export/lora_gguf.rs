//! A LoRA in GGUF, as llama.cpp loads it with `--lora` onto the untouched base.
//!
//! llama.cpp computes `y + alpha / rank * B (A x)`, where rank is the length of B's rows. A has ggml's
//! dimensions `[n, rank]` and B `[rank, m]`. They have the matrix's name with the suffixes `.lora_a` and
//! `.lora_b`. llama.cpp requires `general.type`, `general.architecture`, `adapter.type` and
//! `adapter.lora.alpha` (f32) and refuses other tensors (`llama_adapter_lora_init` in llama-adapter.cpp). For
//! C U R, B = C and A = s U R times rank / alpha. Rows are in GGUF's order. A fused matrix has the factors of
//! all its parts.

use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{GgufLayout, NewTensor, Value};
use curmerge_formats::output::OutputFile;

use super::targets::matrices;
use super::trained::Trained;
use crate::Result;
use crate::base::{Base, Files};

const VERSION: u32 = 3;
const ALIGNMENT: u64 = 32;

/// Writes the file, with both factors of each matrix in F32.
pub(super) fn write(base: &Base, trained: Trained<'_>, out: &Path, inputs: &[&Path]) -> Result<()> {
    if !matches!(base.files(), Files::Gguf(_)) {
        // Without a known architecture, GGUF's names of the tensors are unknown.
        base.must_be_known()?;
    }
    let matrices = matrices(base, trained)?;
    let alpha = trained.alpha_of_file();
    let text = |text: &str| Value::String(text.into());
    let metadata: Vec<(String, Value)> = [
        ("general.architecture", text(base.architecture_name())),
        ("general.type", text("adapter")),
        ("general.name", text(&trained.base_name(base))),
        ("adapter.type", text("lora")),
        ("adapter.lora.alpha", Value::F32(alpha)),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .into();
    let tensors = matrices.iter().flat_map(|matrix| {
        let [m, n, rank] = [matrix.rows, matrix.cols, matrix.rank()].map(|x| x as u64);
        let name = match base.files() {
            Files::Gguf(_) => matrix.place.tensor.stored_name.clone(),
            Files::HuggingFace(_) | Files::Onnx(_) => format!("{}.weight", matrix.name),
        };
        [("lora_a", vec![n, rank]), ("lora_b", vec![rank, m])].map(|(part, dims)| NewTensor {
            name: format!("{name}.{part}"),
            dtype: DType::F32,
            dims,
        })
    });
    let layout = GgufLayout::new(VERSION, ALIGNMENT, &metadata, tensors.collect())?;
    let mut file = OutputFile::create(out, inputs)?;
    file.append(layout.header())?;
    for (matrix, places) in matrices.iter().zip(layout.tensors().chunks_exact(2)) {
        // The file has one alpha, and matrices may differ in rank: the factors make up for it.
        let factors = matrix.factors(base, trained.scale() * matrix.rank() as f32 / alpha)?;
        for (values, place) in [&factors.p, &factors.c].into_iter().zip(places) {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            file.write_all_at(place.offset, &bytes)?;
        }
    }
    pad(&mut file, &layout)?;
    file.commit()?;
    Ok(())
}

/// Writes zeros after the last tensor up to GGUF's alignment.
fn pad(file: &mut OutputFile, layout: &GgufLayout) -> Result<()> {
    if let Some(last) = layout.tensors().last() {
        let end = last.offset + last.bytes;
        file.write_all_at(end, &vec![0; (layout.file_bytes() - end) as usize])?;
    }
    Ok(())
}
