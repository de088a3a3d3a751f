//! The number types that the model computes in.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{AddAssign, DivAssign, MulAssign, SubAssign};

/// `f32` for training, `f64` for checking gradients by finite differences.
pub trait Real:
    ndarray::NdFloat
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + Sum
    + Debug
    + Default
    + Send
    + Sync
    + 'static
{
    /// From the type that weights decode to; exact.
    fn from_f32(value: f32) -> Self;
    /// From a constant or an accumulator; rounds for `f32`.
    fn from_f64(value: f64) -> Self;
    /// For sums that need the wider type; exact.
    fn as_f64(self) -> f64;
}

impl Real for f32 {
    fn from_f32(value: f32) -> Self {
        value
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn as_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    fn from_f32(value: f32) -> Self {
        f64::from(value)
    }
    fn from_f64(value: f64) -> Self {
        value
    }
    fn as_f64(self) -> f64 {
        self
    }
}
