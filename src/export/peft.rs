//! A LoRA for PEFT: a folder with adapter_config.json, adapter_model.safetensors and a model card.
//!
//! PEFT computes `y + lora_alpha / r * B (A x)`, with A `[r, n]` as `base_model.model.MODULE.lora_A.weight`
//! and B `[m, r]` as `.lora_B.weight`, and rows in Hugging Face's order (`LoraConfig`,
//! `LoraLayer.update_layer` and `get_peft_model_state_dict` in peft). The shapes are the same for modules
//! that store `[in, out]`; `fan_in_fan_out` marks those. For C U R, B = C, A = s U R, and alpha is r. A fused
//! matrix has the factors of all its parts. `r` is the largest rank, because some programs allocate `r` for
//! every module. Module names and the order of rows come from the architecture's table, so the base may be a
//! GGUF file or a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::output::OutputFolder;
use curmerge_formats::safetensors::{NewSafeTensor, SafeTensorsLayout};
use serde_json::{Map, Value as Json, json};

use super::targets::{Matrix, matrices, with_joined_rows};
use super::trained::Trained;
use crate::base::{Base, RowOrder};
use crate::card::{self, Card, Kind, Record};
use crate::lora::peft::{CONFIG, WEIGHTS};
use crate::{Error, Result};

/// One matrix by Hugging Face's name.
pub(super) struct Module<'a> {
    pub(super) matrix: Matrix<'a>,
    /// `model.layers.0.self_attn.q_proj`
    pub(super) name: String,
    pub(super) order: RowOrder,
    /// The order of its columns.
    columns: RowOrder,
    /// Whether the module stores the matrix as `[in, out]`.
    transposed: bool,
}

/// Writes the folder, with both factors of each matrix in F32.
pub(super) fn write(
    base: &Base,
    trained: Trained<'_>,
    out: &Path,
    inputs: &[&Path],
    force: bool,
) -> Result<()> {
    let matrices = with_joined_rows(base, matrices(base, trained)?);
    let modules = matrices.into_iter().map(|m| module(base, m)).collect::<Result<Vec<_>>>()?;
    let tensors = modules.iter().flat_map(|m| {
        let [rows, cols, rank] = [m.matrix.rows, m.matrix.cols, m.matrix.rank()].map(|x| x as u64);
        [("lora_A", vec![rank, cols]), ("lora_B", vec![rows, rank])].map(|(part, shape)| NewSafeTensor {
            name: format!("base_model.model.{}.{part}.weight", m.name),
            dtype: DType::F32,
            shape,
        })
    });
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    let layout = SafeTensorsLayout::new(&metadata, tensors.collect())?;
    let folder = OutputFolder::create(out, inputs, force)?;
    let mut file = folder.file(WEIGHTS)?;
    file.append(layout.header())?;
    for (module, places) in modules.iter().zip(layout.tensors().chunks_exact(2)) {
        let (_, scale) = trained.alpha(module.matrix.rank());
        let factors = module.matrix.factors(base, scale)?;
        let b = (0..module.matrix.rows).flat_map(|stored| {
            let row = module.order.canonical_row(stored);
            &factors.c[row * factors.rank..][..factors.rank]
        });
        let cols = module.matrix.cols;
        let a = (0..factors.rank * cols).map(|place| {
            let (k, stored) = (place / cols, place % cols);
            factors.p[k * cols + module.columns.canonical_row(stored)]
        });
        let bytes: [Vec<u8>; 2] =
            [a.flat_map(|x| x.to_le_bytes()).collect(), b.flat_map(|x| x.to_le_bytes()).collect()];
        for (bytes, place) in bytes.iter().zip(places) {
            file.write_all_at(place.offset, bytes)?;
        }
    }
    file.commit()?;
    let mut file = folder.file(CONFIG)?;
    let config = serde_json::to_string_pretty(&config(base, trained, &modules)).unwrap_or_default();
    file.append(config.as_bytes())?;
    file.append(b"\n")?;
    file.commit()?;
    let (settings, adapters) = (Record::new(), vec![trained.record()]);
    folder.write(card::FILE, Card { kind: Kind::Lora, base, settings, adapters }.text()?.as_bytes())?;
    folder.commit()?;
    Ok(())
}

/// The module of a matrix.
///
/// # Errors
/// A matrix without a name in Hugging Face's form, or whose rows are not a whole number of heads.
pub(super) fn module<'a>(base: &Base, matrix: Matrix<'a>) -> Result<Module<'a>> {
    let refuse = |problem: &str| {
        let place = format!("tensor '{}'", matrix.name);
        Error::input(base.path(), place, problem, "use the base that the adapter was made on")
    };
    if let Some((joined, layer, _)) = base.architecture().joined_rows_with(matrix.name) {
        let order = base.config().joined_rows(joined, layer).map(|(order, _)| order);
        let order = order.ok_or_else(|| refuse("its rows are not a whole number of heads"))?;
        let (name, columns) = (joined.name(layer), RowOrder::CANONICAL);
        return Ok(Module { matrix, name, order, columns, transposed: false });
    }
    let (name, names) = base
        .to_hugging_face(matrix.name)
        .ok_or_else(|| refuse("has no name in Hugging Face's form of this architecture"))?;
    let order = base.config().hugging_face_order(names, matrix.rows as u64);
    let order = order.ok_or_else(|| refuse("its rows are not a whole number of heads"))?;
    let columns = base.config().hugging_face_columns(names, matrix.cols as u64);
    let columns = columns.ok_or_else(|| refuse("its columns are not a whole number of heads"))?;
    let name = base.architecture().module(&name).into_owned();
    Ok(Module { matrix, name, order, columns, transposed: names.transposed })
}

/// adapter_config.json, with every field that PEFT's `LoraConfig` writes.
fn config(base: &Base, trained: Trained<'_>, modules: &[Module<'_>]) -> Json {
    let largest = modules.iter().map(|m| m.matrix.rank()).max().unwrap_or_default();
    let alpha = |rank: usize| number(trained.alpha(rank).0);
    // Modules of smaller rank.
    let others = |value: &dyn Fn(usize) -> Json| -> Map<String, Json> {
        let others = modules.iter().filter(|m| m.matrix.rank() != largest);
        others.map(|m| (m.name.clone(), value(m.matrix.rank()))).collect()
    };
    json!({
        "alpha_pattern": others(&alpha),
        "base_model_name_or_path": base.hugging_face_repository(),
        "bias": "none",
        "fan_in_fan_out": modules.iter().any(|m| m.transposed),
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": alpha(largest),
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": largest,
        "rank_pattern": others(&|rank| json!(rank)),
        "target_modules": target_modules(base, modules),
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": trained.rslora(),
    })
}

/// A number, without a fraction if it is whole, as PEFT writes it.
fn number(x: f32) -> Json {
    if x.fract() == 0.0 && x.abs() < 1e9 { json!(x as i64) } else { json!(x) }
}

/// The short names (`q_proj`) if the adapter targets every module of the model with such a name, else the
/// full names. Modules of experts, and those that join several matrices, are not counted: a model with either
/// gets the full names.
fn target_modules(base: &Base, modules: &[Module<'_>]) -> BTreeSet<String> {
    let short = |name: &str| name.rsplit('.').next().unwrap_or(name).to_string();
    let names: BTreeSet<&str> = modules.iter().map(|m| m.name.as_str()).collect();
    let shorts: BTreeSet<String> = names.iter().map(|name| short(name)).collect();
    let architecture = base.architecture();
    let all = base.tensors().keys().filter_map(|name| base.to_hugging_face(name));
    let all = all.map(|(name, _)| architecture.module(&name).into_owned());
    let countable = !architecture.has_experts() && architecture.tensors.joined_rows.is_empty();
    let whole = countable
        && all.filter(|name| shorts.contains(&short(name))).all(|name| names.contains(name.as_str()));
    if whole { shorts } else { names.into_iter().map(String::from).collect() }
}
