//! The type that a changed tensor is stored in.

use curmerge_formats::dtype::DType;
use curmerge_formats::quant::can_encode_with_fixed_scales;

use super::adapted::Adapted;
use crate::base::{Base, BaseTensor, Files};
use crate::error::CallerOption;
use crate::{Error, Result};

/// How the changed tensors are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Storage {
    /// Each as the base stores it, or as the mixture for the whole file says.
    #[default]
    AsStored,
    /// All in this type, wider or narrower: any with
    /// [`DType::can_encode`](curmerge_formats::dtype::DType::can_encode) whose blocks divide the rows, in a
    /// container that holds it.
    Only(DType),
    /// Each as the base stores it if its change keeps this fidelity (see [`super::TensorReport::fidelity`]);
    /// else in the narrowest wider type that keeps it.
    Narrowest {
        /// Lower limit of the cosine between the written change and the adapter's, from 0 to 1. The program's
        /// default is 0.9.
        fidelity: f64,
    },
}

/// Types that a tensor may be widened to, by bits and then by precision. On matrices of language models each
/// measured finer than those before it.
const WIDER: &[DType] = &[
    DType::Q4_K,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_K,
    DType::Q5_1,
    DType::Q6_K,
    DType::Q8_0,
    DType::BF16,
    DType::F16,
    DType::F32,
];

/// The type for `adapted`. Its own `dtype` is the default.
pub(super) fn choose(
    storage: Storage,
    base: &Base,
    tensor: &BaseTensor,
    adapted: &Adapted<'_>,
) -> Result<DType> {
    let cols = adapted.weight.as_stored().0.cols();
    let fidelity = match storage {
        Storage::AsStored => return check(base, adapted.name, tensor, adapted.dtype, cols),
        Storage::Only(dtype) => return check(base, adapted.name, tensor, dtype, cols),
        Storage::Narrowest { fidelity } => fidelity,
    };
    let bits = |dtype: DType| dtype.block_bytes() as f64 / dtype.block_elements() as f64;
    let wider = WIDER.iter().copied().filter(|&w| w != tensor.dtype && bits(w) >= bits(tensor.dtype));
    let usable = |dtype: &DType| check(base, adapted.name, tensor, *dtype, cols).is_ok();
    let mut candidates: Vec<DType> = [tensor.dtype].into_iter().chain(wider).filter(usable).collect();
    let Some(last) = candidates.pop() else {
        return check(base, adapted.name, tensor, tensor.dtype, cols);
    };
    for dtype in candidates {
        // A value that the type cannot hold is a reason for a wider one.
        let kept = Adapted { dtype, ..*adapted }.measure();
        if kept.is_ok_and(|kept| kept.fidelity >= fidelity) {
            return Ok(dtype);
        }
    }
    Ok(last)
}

/// Returns the type if the tensor can be written in it.
fn check(base: &Base, name: &str, tensor: &BaseTensor, dtype: DType, cols: usize) -> Result<DType> {
    let refuse = |problem: String, help: &str| {
        let error = Error::input(base.path(), format!("tensor '{name}'"), problem, help);
        Err(error.avoidable(CallerOption::Storage))
    };
    // Some types have no encoder, but their codes can be changed.
    let stays = dtype == tensor.dtype;
    if !(dtype.can_encode() || stays && can_encode_with_fixed_scales(dtype)) {
        if stays {
            let problem = format!("stored as {dtype}, which curmerge reads but does not write");
            return refuse(problem, "choose a type for the changed tensors, for example q4_1 or q8_0");
        }
        return refuse(format!("cannot be written as {dtype}"), "choose f32, f16, bf16, q8_0 or q4_1");
    }
    if matches!(base.files(), Files::HuggingFace(_)) && dtype.safetensors_name().is_none() {
        let problem = format!("safetensors files cannot hold {dtype}");
        return refuse(
            problem,
            "merge into a GGUF file of this model, or store the changed tensors in f32, f16 or bf16",
        );
    }
    if dtype.bytes_for(cols as u64).is_none() {
        let problem = format!("its rows of {cols} values are not a whole number of {dtype} blocks");
        return refuse(problem, "choose a type with smaller blocks, for example q8_0 or f16");
    }
    Ok(dtype)
}
