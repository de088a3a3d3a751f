//! A LoRA in GGUF, as llama.cpp loads it with `--lora` onto the untouched base.
//!
//! llama.cpp computes `y + alpha / rank * B (A x)`, rank being B's row length. A has ggml's dimensions `[n, rank]` and B
//! `[rank, m]`, under the matrix's name with `.lora_a` and `.lora_b` behind. It asks for `general.type`,
//! `general.architecture`, `adapter.type` and `adapter.lora.alpha` (f32) and refuses other tensors
//! (`llama_adapter_lora_init` in llama-adapter.cpp). Here B = C and A = s U R times rank / alpha, in GGUF's order of rows.

use std::path::Path;

use curmerge_formats::adapter::Adapter;
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::{GgufLayout, NewTensor, Value};
use curmerge_formats::output::OutputFile;

use crate::Result;
use crate::base::Base;
use crate::cur::Factors;

const VERSION: u32 = 3;
const ALIGNMENT: u64 = 32;

/// Write the file; both matrices of a target in F32.
pub(super) fn write(base: &Base, adapter: &Adapter, out: &Path, inputs: &[&Path]) -> Result<()> {
    let alpha = adapter.rank as f32;
    let text = |text: &str| Value::String(text.into());
    let metadata: Vec<(String, Value)> = [
        ("general.architecture", text(base.architecture().gguf)),
        ("general.type", text("adapter")),
        ("general.name", text(&adapter.base.name)),
        ("adapter.type", text("lora")),
        ("adapter.lora.alpha", Value::F32(alpha)),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .into();
    let tensors = adapter.targets.iter().flat_map(|target| {
        let [m, n] = target.shape;
        let rank = target.cols.len() as u64;
        [("lora_a", vec![n, rank]), ("lora_b", vec![rank, m])].map(|(part, dims)| NewTensor {
            name: format!("{}.weight.{part}", target.name),
            dtype: DType::F32,
            dims,
        })
    });
    let layout = GgufLayout::new(VERSION, ALIGNMENT, &metadata, tensors.collect())?;
    let mut file = OutputFile::create(out, inputs)?;
    file.append(layout.header())?;
    for (target, places) in adapter.targets.iter().zip(layout.tensors().chunks_exact(2)) {
        let weight = base.weight(&target.name)?;
        // A target may have fewer columns than the adapter's rank, and has the same alpha.
        let scale = adapter.scale * target.cols.len() as f32 / alpha;
        let factors = Factors::of_target(base.path(), &weight, target, scale)?;
        for (values, place) in [&factors.p, &factors.c].into_iter().zip(places) {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            file.write_all_at(place.offset, &bytes)?;
        }
    }
    pad(&mut file, &layout)?;
    file.commit()?;
    Ok(())
}

/// Zeros behind the last tensor, as everything in GGUF is aligned.
fn pad(file: &mut OutputFile, layout: &GgufLayout) -> Result<()> {
    if let Some(last) = layout.tensors().last() {
        let end = last.offset + last.bytes;
        file.write_all_at(end, &vec![0; (layout.file_bytes() - end) as usize])?;
    }
    Ok(())
}
