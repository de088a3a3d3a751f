//! A LoRA that onnxruntime applies in one run of a model with LoRA inputs (`RunOptions.add_active_adapter`).
//!
//! The model computes `y + (x A) B`. Its inputs are `MODULE.lora_A.weight`, which is A `[n, rank]`, and
//! `MODULE.lora_B.weight`, which is B `[rank, m]`. Modules have Hugging Face's names and order of rows. Olive
//! names the inputs so, and [`OnnxOptions::lora_inputs`](crate::convert::OnnxOptions::lora_inputs) makes
//! them. Here A is the transpose of s U R (or s A) and B the transpose of C (or B). A fused matrix has the
//! factors of all its parts.

use std::path::Path;

use curmerge_formats::onnx::{ElementType, NewOnnxTensor, OnnxAdapterLayout};
use curmerge_formats::output::OutputFile;

use super::peft::{Module, module};
use super::targets::matrices;
use super::trained::Trained;
use crate::Result;
use crate::base::Base;
use crate::convert::to_onnx::lora_inputs;

/// The version of the adapter and of its model, which a file must give. curmerge does not count versions.
const VERSION: i32 = 1;

/// Writes the file, with both factors of each matrix in FLOAT.
pub(super) fn write(base: &Base, trained: Trained<'_>, out: &Path, inputs: &[&Path]) -> Result<()> {
    let matrices = matrices(base, trained)?;
    let modules = matrices.into_iter().map(|m| module(base, m)).collect::<Result<Vec<_>>>()?;
    let parameters = modules.iter().flat_map(|Module { matrix, name, .. }| {
        let [rows, cols, rank] = [matrix.rows, matrix.cols, matrix.rank()].map(|x| x as u64);
        let dims = [vec![cols, rank], vec![rank, rows]];
        lora_inputs(name).into_iter().zip(dims).map(|(name, dims)| NewOnnxTensor {
            name,
            element: ElementType::FLOAT,
            dims,
            values: None,
        })
    });
    let layout = OnnxAdapterLayout::new(VERSION, VERSION, &parameters.collect::<Vec<_>>())?;
    let file = OutputFile::create(out, inputs)?;
    for (offset, bytes) in layout.frame() {
        file.write_all_at(offset, bytes)?;
    }
    for (Module { matrix, order, .. }, places) in modules.iter().zip(layout.places().chunks_exact(2)) {
        let factors = matrix.factors(base, trained.scale())?;
        let rank = factors.rank;
        let a = (0..matrix.cols).flat_map(|col| (0..rank).map(move |r| (r, col)));
        let a = a.flat_map(|(r, col)| factors.p[r * matrix.cols + col].to_le_bytes());
        let b = (0..rank).flat_map(|r| (0..matrix.rows).map(move |row| (r, row)));
        let b = b.flat_map(|(r, row)| factors.c[order.canonical_row(row) * rank + r].to_le_bytes());
        file.write_all_at(places[0].offset, &a.collect::<Vec<u8>>())?;
        file.write_all_at(places[1].offset, &b.collect::<Vec<u8>>())?;
    }
    Ok(file.commit()?)
}
