//! Whole weights in an adapter's file: those of modules that were trained (`modules_to_save`), and those that
//! PEFT saves beside the LoRA of a head or of embeddings (`base_layer`).
//!
//! A LoRA with them can be merged where they are the base's own.

use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::quant;
use curmerge_formats::safetensors::SafeTensor;

use super::modules;
use crate::base::{Base, Weight};
use crate::{Error, Result};

/// The segment before the adapter's name in a raw state dict.
const TO_SAVE: &str = "modules_to_save";
const BASE_LAYER: &str = "base_layer";

/// The whole weight of a module.
pub(super) struct Whole {
    module: String,
    is_base_layer: bool,
}

/// The module whose whole weight a tensor may be.
pub(super) fn module(tensor: &str) -> Option<String> {
    let segments = modules::segments(tensor);
    let own = segments.strip_suffix(&["weight"])?;
    let own = own.strip_prefix(&["base_model", "model"]).unwrap_or(own);
    let end = own.iter().position(|segment| [TO_SAVE, BASE_LAYER].contains(segment)).unwrap_or(own.len());
    Some(own[..end].join("."))
}

impl Whole {
    /// The whole weight that this tensor is, if it is a `base_layer` or of one of the `trained` modules.
    pub(super) fn new(tensor: &str, trained: &[String]) -> Option<Self> {
        let module = module(tensor)?;
        let is_base_layer = modules::segments(tensor).contains(&BASE_LAYER);
        let is_trained = trained.iter().any(|name| module == *name || module.ends_with(&format!(".{name}")));
        (is_base_layer || is_trained).then_some(Self { module, is_base_layer })
    }

    /// Refuses a weight that is not the base's, as far as the base's own type lets it be known.
    ///
    /// # Errors
    /// Such a weight; a module that the base does not have.
    pub(super) fn check(&self, base: &Base, path: &Path, tensor: &SafeTensor, bytes: &[u8]) -> Result<()> {
        let refuse = |problem: &str, help: &str| {
            Err(Error::input(path, format!("tensor '{}'", tensor.name.escape_debug()), problem, help))
        };
        let Some(weight) = self.weight(base)? else {
            return refuse("belongs to nothing that the base has", "use the base that it was trained on");
        };
        if tensor.shape != [weight.rows() as u64, weight.cols() as u64] {
            let problem = format!(
                "is {:?}, and the base's is {:?}: its vocabulary was resized",
                tensor.shape,
                [weight.rows(), weight.cols()]
            );
            return refuse(&problem, "use the base that it was trained on, resized");
        }
        let plain = |dtype| matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
        match plain(weight.dtype()) && weight.is_plain() && plain(tensor.dtype) {
            true if equal(&weight, tensor.dtype, bytes) => Ok(()),
            // PEFT saves it to be safe; it was not trained.
            false if self.is_base_layer => Ok(()),
            true if self.is_base_layer => {
                refuse("differs from the base's", "use the base that it was trained on")
            }
            true => refuse(
                "was trained as a whole, and differs from the base's",
                "merge it with PEFT's merge_and_unload instead",
            ),
            false => refuse(
                "was trained as a whole, and whether it changed cannot be told from a quantized base",
                "merge it with PEFT's merge_and_unload, or into the base as F32, F16 or BF16",
            ),
        }
    }

    /// The base's weight of the module. A tied head is the embedding.
    fn weight<'b>(&self, base: &'b Base) -> Result<Option<Weight<'b>>> {
        let names = [self.module.clone(), format!("model.{}", self.module)];
        let found = names.iter().find_map(|name| base.architecture().of_hugging_face(name));
        match found {
            Some((name, _)) if name == "output" => base.output_head().map(Some),
            Some((name, _)) if base.place(&name).is_some() => base.weight(&name).map(Some),
            _ => Ok(None),
        }
    }
}

/// Whether two weights are equal once both are rounded to both types.
fn equal(weight: &Weight<'_>, dtype: DType, bytes: &[u8]) -> bool {
    let row_bytes = weight.cols() * dtype.block_bytes();
    let (mut own, mut theirs) = (vec![0.0; weight.cols()], vec![0.0; weight.cols()]);
    (0..weight.rows()).zip(bytes.chunks_exact(row_bytes.max(1))).all(|(row, bytes)| {
        weight.decode_row(weight.canonical_row(row), &mut own);
        let decoded = quant::decode(dtype, bytes, &mut theirs).is_ok();
        let round = |x: f32| [dtype, weight.dtype()].iter().fold(x, |x, dtype| rounded(x, *dtype));
        decoded && own.iter().zip(&theirs).all(|(a, b)| round(*a) == round(*b))
    })
}

fn rounded(x: f32, dtype: DType) -> f32 {
    match dtype {
        DType::F16 => half::f16::from_f32(x).to_f32(),
        DType::BF16 => half::bf16::from_f32(x).to_f32(),
        _ => x,
    }
}
