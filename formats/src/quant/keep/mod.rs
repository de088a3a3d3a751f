//! New codes on an old grid: values written into blocks whose scales and minimums stay as they are.
//!
//! A small change to a quantized matrix must not move the grid under the values that did not change: re-encoding from
//! scratch would round all of them anew. Here only codes change, so an unchanged value keeps its code bit for bit.
//! [`Grid`] shows the values that a block's codes can take, for a caller that weighs how to round;
//! [`encode_keeping_scales`] rounds to the nearest.
//!
//! [`even`] moves codes by whole steps, [`uneven`] looks levels up; where [`codes`] lie is told by [`plain_blocks`],
//! [`super_blocks`] and, for its own, [`uneven`]. The types whose codes are points of a lattice are not among them: a
//! value there cannot change alone.

mod codes;
mod even;
mod plain_blocks;
mod super_blocks;
mod uneven;

use super::{QuantError, check_length, decode, encode};
use crate::dtype::DType;

pub use even::EvenGrid;
pub use uneven::UnevenGrid;

/// The values that the codes of some stored blocks can take.
#[derive(Clone, Debug, PartialEq)]
pub enum Grid {
    /// Whole steps from the present values.
    Even(EvenGrid),
    /// Scales times levels.
    Uneven(UnevenGrid),
}

impl Grid {
    /// The grid of whole blocks of `dtype`. `None` for types without block scales, whose steps depend on the value.
    ///
    /// # Errors
    /// [`QuantError::Length`] for a part of a block, [`QuantError::CannotEncode`] for a block type that is not written.
    pub fn read(dtype: DType, blocks: &[u8]) -> Result<Option<Grid>, QuantError> {
        let elements = blocks.len() / dtype.block_bytes() * dtype.block_elements();
        check_length(dtype, blocks.len(), elements)?;
        match Keeper::of(dtype) {
            Some(keeper) => Ok(Some((keeper.read)(blocks))),
            None if dtype.can_encode() => Ok(None),
            None => Err(QuantError::CannotEncode(dtype)),
        }
    }

    /// By how much each present value changes when its code moves to a neighbour; of an uneven grid, to the farther.
    /// May be negative.
    pub fn steps(&self) -> &[f32] {
        match self {
            Grid::Even(grid) => &grid.steps,
            Grid::Uneven(grid) => &grid.steps,
        }
    }
}

/// Whether new codes of `dtype` can be written on the scales of old blocks; so also of some types that [`encode`] does
/// not write.
pub fn can_keep_scales(dtype: DType) -> bool {
    Keeper::of(dtype).is_some()
}

/// Encodes `values` as blocks of `dtype` into `out`, each with the scales and minimums of the block in `base` and the
/// codes nearest to the values (halves away from the present code). A value that `base` decodes to keeps its code, so
/// the values of `base` give its very bytes. Where a scale is zero or no number, and where an infinite one leaves nothing
/// finite to choose, codes stay as they are. Types without block scales are encoded as [`encode`] does.
///
/// # Errors
/// As of [`encode`]; [`QuantError::Length`] also if `base` is not as long as `out`.
pub fn encode_keeping_scales(
    dtype: DType,
    base: &[u8],
    values: &[f32],
    out: &mut [u8],
) -> Result<(), QuantError> {
    let Some(keeper) = Keeper::of(dtype) else { return encode(dtype, values, out) };
    check_length(dtype, base.len(), values.len())?;
    check_length(dtype, out.len(), values.len())?;
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(QuantError::OutOfRange { dtype, index, value: values[index] });
    }
    let mut present = vec![0.0; values.len()];
    decode(dtype, base, &mut present)?;
    out.copy_from_slice(base);
    (keeper.write)(&present, values, out);
    Ok(())
}

/// What reads a type's grid, and what moves codes of blocks that decode to some values to those nearest to others.
struct Keeper {
    read: fn(&[u8]) -> Grid,
    write: fn(&[f32], &[f32], &mut [u8]),
}

impl Keeper {
    fn of(dtype: DType) -> Option<Keeper> {
        use {plain_blocks as plain, super_blocks as k};
        Some(match dtype {
            DType::Q4_0 => Self::even::<plain::Q4_0>(),
            DType::Q4_1 => Self::even::<plain::Q4_1>(),
            DType::Q5_0 => Self::even::<plain::Q5_0>(),
            DType::Q5_1 => Self::even::<plain::Q5_1>(),
            DType::Q8_0 => Self::even::<plain::Q8_0>(),
            DType::Q1_0 => Self::even::<plain::Q1_0>(),
            DType::Q2_0 => Self::even::<plain::Q2_0>(),
            DType::TQ1_0 => Self::even::<plain::TQ1_0>(),
            DType::TQ2_0 => Self::even::<plain::TQ2_0>(),
            DType::Q2_K => Self::even::<k::Q2K>(),
            DType::Q3_K => Self::even::<k::Q3K>(),
            DType::Q4_K => Self::even::<k::Q4K>(),
            DType::Q5_K => Self::even::<k::Q5K>(),
            DType::Q6_K => Self::even::<k::Q6K>(),
            DType::IQ4_NL => Self::uneven::<uneven::IQ4NL>(),
            DType::IQ4_XS => Self::uneven::<uneven::IQ4XS>(),
            DType::MXFP4 => Self::uneven::<uneven::MXFP4>(),
            DType::NVFP4 => Self::uneven::<uneven::NVFP4>(),
            _ => return None,
        })
    }

    fn even<C: even::Even>() -> Self {
        Keeper { read: |blocks| Grid::Even(even::read::<C>(blocks)), write: even::write::<C> }
    }

    fn uneven<C: uneven::Uneven>() -> Self {
        Keeper { read: |blocks| Grid::Uneven(uneven::read::<C>(blocks)), write: uneven::write::<C> }
    }
}

#[cfg(test)]
mod tests;
