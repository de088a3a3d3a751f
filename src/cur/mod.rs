//! Which columns and rows of a matrix form C and R (CURLoRA, arXiv 2408.14572, section 3).
//!
//! The choice depends on the seed, the tensor's name and its values alone: not on other targets, threads,
//! SIMD width, container or machine. So it uses only + - * / and the exactly rounded square root, in f64 and
//! in a fixed order.

mod factors;
pub mod fingerprint;
mod importance;
mod leverage;
mod new_adapter;
mod sampling;
mod sketch;
mod subspace;

use std::fmt;

use crate::base::Weight;
use crate::{Error, Result};

pub use factors::Factors;
pub use importance::{Norms, squared_norms};
pub use new_adapter::{SelectionOptions, adapter_of, new_adapter, new_targets};
pub use sampling::{Axis, enough, sample};
pub(crate) use subspace::{Subspaces, transposed_times};

/// How columns and rows are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Weight 1/p of the squared norm's share p, as the paper writes it: the unimportant ones.
    Inverse,
    /// Weight 1/(p + 0.001), as in the paper's code: almost uniform unless a column stands out.
    Reference,
    /// Every non-zero column alike.
    Uniform,
    /// Weight by statistical leverage in the leading rank-r singular subspace (Mahoney and Drineas 2009): the
    /// important ones, for comparison.
    Leverage,
}

impl Selection {
    /// Every way.
    pub const ALL: &[Self] = &[Self::Inverse, Self::Reference, Self::Uniform, Self::Leverage];

    /// The name in an adapter and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Selection::Inverse => "inverse",
            Selection::Reference => "reference",
            Selection::Uniform => "uniform",
            Selection::Leverage => "leverage",
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The index sets of one matrix, ascending, in the canonical layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indices {
    /// Columns of W that make C: `[c]`.
    pub cols: Vec<u32>,
    /// Rows of W that make R: `[r]`.
    pub rows: Vec<u32>,
}

/// Draws `rank` columns and `rank` rows of the matrix `name`.
///
/// # Errors
/// Fewer than `rank` columns or rows that are not zero; a value that is not finite.
pub fn select(
    weight: &Weight<'_>,
    name: &str,
    rank: u32,
    selection: Selection,
    seed: u64,
) -> Result<Indices> {
    let norms = finite_norms(weight, name)?;
    let (cols, rows) = match selection {
        Selection::Leverage => leverage::weights(weight, &norms, rank as usize),
        _ => (importance::weights(&norms.cols, selection), importance::weights(&norms.rows, selection)),
    };
    Ok(Indices {
        cols: sample(&cols, rank, name, Axis::Cols, seed)?,
        rows: sample(&rows, rank, name, Axis::Rows, seed)?,
    })
}

/// The [`squared_norms`] of the matrix `name`.
///
/// # Errors
/// A value that is not finite.
pub fn finite_norms(weight: &Weight<'_>, name: &str) -> Result<Norms> {
    let norms = squared_norms(weight);
    if !norms.total().is_finite() {
        return Err(Error::request(
            format!("tensor '{name}' holds a value that is not a finite number"),
            "the base file is damaged; download it again",
        ));
    }
    Ok(norms)
}
