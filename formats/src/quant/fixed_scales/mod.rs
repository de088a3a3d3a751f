//! Encodes values into blocks that keep their scales and minimums: only codes change.
//!
//! Encoding a slightly changed matrix from scratch would choose new scales, and so round the unchanged values
//! again. Here an unchanged value keeps its code bit for bit. [`Grid`] gives the values that a block's codes
//! can represent, for callers with their own way to round. [`encode_with_fixed_scales`] rounds to the
//! nearest.
//!
//! [`linear`] moves codes by whole steps; [`non_linear`] looks levels up. [`single_scale`], [`super_blocks`]
//! and [`non_linear`] give the places of a type's [`codes`]. Types whose codes are points of a lattice are
//! not supported, because one value cannot change alone there.

mod codes;
mod linear;
mod non_linear;
mod single_scale;
mod super_blocks;

use super::{QuantError, check_length, decode, encode};
use crate::dtype::DType;

pub use linear::LinearGrid;
pub use non_linear::NonLinearGrid;

/// The values that the codes of some stored blocks can represent.
#[derive(Clone, Debug, PartialEq)]
pub enum Grid {
    /// Evenly spaced values: `step * code + offset`.
    Linear(LinearGrid),
    /// Unevenly spaced values: a scale times a level.
    NonLinear(NonLinearGrid),
}

impl Grid {
    /// The grid of whole blocks of `dtype`. `None` for types without block scales, whose steps depend on the
    /// value.
    ///
    /// # Errors
    /// [`QuantError::Length`] unless the blocks are whole, [`QuantError::CannotEncode`] for a block type
    /// whose codes cannot change.
    pub fn read(dtype: DType, blocks: &[u8]) -> Result<Option<Grid>, QuantError> {
        let elements = blocks.len() / dtype.block_bytes() * dtype.block_elements();
        check_length(dtype, blocks.len(), elements)?;
        match Encoder::of(dtype) {
            Some(encoder) => Ok(Some((encoder.read)(blocks))),
            None if dtype.can_encode() => Ok(None),
            None => Err(QuantError::CannotEncode(dtype)),
        }
    }

    /// The change of each present value when its code moves to the next. On a non-linear grid, the distance
    /// to the farther neighbour. May be negative.
    pub fn steps(&self) -> &[f32] {
        match self {
            Grid::Linear(grid) => &grid.steps,
            Grid::NonLinear(grid) => &grid.steps,
        }
    }
}

/// Whether [`encode_with_fixed_scales`] writes blocks of `dtype`. Some of these types [`encode`] cannot
/// write.
pub fn can_encode_with_fixed_scales(dtype: DType) -> bool {
    Encoder::of(dtype).is_some()
}

/// Encodes `values` as blocks of `dtype` into `out`. Each block has the scales and minimums of its block in
/// `base` and the codes nearest to the values (halves away from the present code). An unchanged value keeps
/// its code, so the values of `base` give exactly its bytes. Codes also stay if the scale is zero or NaN, or
/// infinite without any finite value to choose. Types without block scales are encoded as by [`encode`].
///
/// # Errors
/// Those of [`encode`]; [`QuantError::Length`] also if `base` and `out` differ in length.
pub fn encode_with_fixed_scales(
    dtype: DType,
    base: &[u8],
    values: &[f32],
    out: &mut [u8],
) -> Result<(), QuantError> {
    let Some(encoder) = Encoder::of(dtype) else { return encode(dtype, values, out) };
    check_length(dtype, base.len(), values.len())?;
    check_length(dtype, out.len(), values.len())?;
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(QuantError::OutOfRange { dtype, index, value: values[index] });
    }
    let mut present = vec![0.0; values.len()];
    decode(dtype, base, &mut present)?;
    out.copy_from_slice(base);
    (encoder.write)(&present, values, out);
    Ok(())
}

/// Functions of a type: one reads the grid of blocks, the other moves codes to those nearest to new values.
struct Encoder {
    read: fn(&[u8]) -> Grid,
    write: fn(&[f32], &[f32], &mut [u8]),
}

impl Encoder {
    fn of(dtype: DType) -> Option<Encoder> {
        use {single_scale as single, super_blocks as k};
        Some(match dtype {
            DType::Q4_0 => Self::linear::<single::Q4_0>(),
            DType::Q4_1 => Self::linear::<single::Q4_1>(),
            DType::Q5_0 => Self::linear::<single::Q5_0>(),
            DType::Q5_1 => Self::linear::<single::Q5_1>(),
            DType::Q8_0 => Self::linear::<single::Q8_0>(),
            DType::Q1_0 => Self::linear::<single::Q1_0>(),
            DType::Q2_0 => Self::linear::<single::Q2_0>(),
            DType::TQ1_0 => Self::linear::<single::TQ1_0>(),
            DType::TQ2_0 => Self::linear::<single::TQ2_0>(),
            DType::Q2_K => Self::linear::<k::Q2K>(),
            DType::Q3_K => Self::linear::<k::Q3K>(),
            DType::Q4_K => Self::linear::<k::Q4K>(),
            DType::Q5_K => Self::linear::<k::Q5K>(),
            DType::Q6_K => Self::linear::<k::Q6K>(),
            DType::IQ4_NL => Self::non_linear::<non_linear::IQ4NL>(),
            DType::IQ4_XS => Self::non_linear::<non_linear::IQ4XS>(),
            DType::MXFP4 => Self::non_linear::<non_linear::MXFP4>(),
            DType::NVFP4 => Self::non_linear::<non_linear::NVFP4>(),
            _ => return None,
        })
    }

    fn linear<C: linear::Linear>() -> Self {
        Encoder { read: |blocks| Grid::Linear(linear::read::<C>(blocks)), write: linear::write::<C> }
    }

    fn non_linear<C: non_linear::NonLinear>() -> Self {
        Encoder {
            read: |blocks| Grid::NonLinear(non_linear::read::<C>(blocks)),
            write: non_linear::write::<C>,
        }
    }
}

#[cfg(test)]
mod tests;
