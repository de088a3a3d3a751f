//! What protects an earlier task when an adapter is trained further: the Fisher information of a target's U.

use half::bf16;
use serde::{Deserialize, Serialize};

/// The Fisher information of U `[c, r]` on the texts of one task, over vec(U) row by row.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetFisher {
    /// As a matrix `[c r, c r]`.
    Matrix(Vec<f32>),
    /// As `weight sum of g g^T + (left kron right) diag(along) (left kron right)^T`.
    Sampled {
        /// The gradients g, one a row: `[texts, c r]`.
        samples: Vec<bf16>,
        /// The factor of their products.
        weight: f32,
        /// `[c, c]`.
        left: Vec<f32>,
        /// `[r, r]`.
        right: Vec<f32>,
        /// `[c, r]`.
        along: Vec<f32>,
    },
}

/// The tensors of a [`TargetFisher`], by the end of their name.
pub(super) const MATRIX: &str = "matrix";
pub(super) const SAMPLES: &str = "samples";
pub(super) const LEFT: &str = "left";
pub(super) const RIGHT: &str = "right";
pub(super) const ALONG: &str = "along";

/// A [`TargetFisher`]'s entry in the record of its target: the SHA-256 of its tensors in this file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FisherRecord {
    Matrix {
        matrix_sha256: String,
    },
    Sampled {
        weight: f32,
        samples_sha256: String,
        left_sha256: String,
        right_sha256: String,
        along_sha256: String,
    },
}

impl FisherRecord {
    /// How many tensors it has.
    pub(super) fn tensors(&self) -> usize {
        match self {
            Self::Matrix { .. } => 1,
            Self::Sampled { .. } => 4,
        }
    }
}

/// What the name of a target's tensor ends in, for the Fisher information of its task number `task`.
pub(super) fn end(task: usize, part: &str) -> String {
    format!(".fisher.{task}.{part}")
}

impl TargetFisher {
    /// What is wrong with it for U `[c, r]`.
    pub(super) fn check(&self, c: usize, r: usize) -> Result<(), String> {
        let sized = |what: &str, found: usize, expected: Option<usize>| match expected == Some(found) {
            true => Ok(()),
            false => Err(format!(
                "{what} of its Fisher information has {found} values, which do not fit {c} columns and {r} rows"
            )),
        };
        let finite = |what: &str, mut values: std::slice::Iter<'_, f32>| match values.all(|x| x.is_finite()) {
            true => Ok(()),
            false => Err(format!("a value of {what} of its Fisher information is not finite")),
        };
        let size = c.checked_mul(r);
        match self {
            Self::Matrix(matrix) => {
                sized(MATRIX, matrix.len(), size.and_then(|size| size.checked_mul(size)))?;
                finite(MATRIX, matrix.iter())
            }
            Self::Sampled { samples, weight, left, right, along } => {
                let whole = size.filter(|&size| size > 0 && samples.len().is_multiple_of(size));
                sized(SAMPLES, samples.len(), whole.map(|_| samples.len()))?;
                if !weight.is_finite() || samples.iter().any(|x| !x.is_finite()) {
                    return Err("a sample of its Fisher information is not finite".to_owned());
                }
                let square = |n: usize| n.checked_mul(n);
                for (what, values, expected) in
                    [(LEFT, left, square(c)), (RIGHT, right, square(r)), (ALONG, along, size)]
                {
                    sized(what, values.len(), expected)?;
                    finite(what, values.iter())?;
                }
                Ok(())
            }
        }
    }
}
