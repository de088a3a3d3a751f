//! The matrices that decide how strongly a head corrects its state, and how fast that decays.

use ndarray::{Array2, ArrayView2, Axis};

use crate::kernels::Real;
use crate::model::linear::Linear;
use crate::model::terms::TermSink;

/// The frozen weights, and the terms of the matrices.
#[derive(Clone, Debug)]
pub enum Gates<'a, T: Real> {
    /// Two matrices `[value_heads, d_model]`: that of beta, and that of alpha.
    Apart(Box<[Linear<'a, T>; 2]>),
    /// One matrix `[2 * value_heads, d_model]`: for each key head, beta of its value heads, then alpha.
    Joined {
        both: Box<Linear<'a, T>>,
        /// The value heads of a key head.
        per_key_head: usize,
    },
}

impl<'a, T: Real> Gates<'a, T> {
    /// The matrix of this role: `beta` and `alpha`, or `ba`.
    pub fn linear_mut(&mut self, role: &str) -> Option<&mut Linear<'a, T>> {
        match (self, role) {
            (Self::Apart(apart), "beta") => Some(&mut apart[0]),
            (Self::Apart(apart), "alpha") => Some(&mut apart[1]),
            (Self::Joined { both, .. }, "ba") => Some(both),
            _ => None,
        }
    }

    /// The matrices.
    pub fn matrices(&self) -> &[Linear<'a, T>] {
        match self {
            Self::Apart(apart) => &apart[..],
            Self::Joined { both, .. } => std::slice::from_ref(both),
        }
    }

    /// [`Self::matrices`], to be changed.
    pub fn matrices_mut(&mut self) -> &mut [Linear<'a, T>] {
        match self {
            Self::Apart(apart) => &mut apart[..],
            Self::Joined { both, .. } => std::slice::from_mut(both),
        }
    }

    /// Beta and alpha, `[tokens, value_heads]` each, and what the terms of the matrices saved.
    pub fn forward(&self, input: &T::PackedLhs<'_>) -> ([Array2<T>; 2], Vec<Option<Array2<T>>>) {
        let (mut outputs, saved): (Vec<Array2<T>>, Vec<Option<Array2<T>>>) =
            self.matrices().iter().map(|linear| linear.forward(input)).unzip();
        let outputs = match (self, outputs.pop(), outputs.pop()) {
            (Self::Joined { per_key_head, .. }, Some(both), _) => split(&both, *per_key_head),
            (Self::Apart(_), Some(alpha), Some(beta)) => [beta, alpha],
            _ => unreachable!("there are as many outputs as matrices"),
        };
        (outputs, saved)
    }

    /// From the gradients of [`Self::forward`]'s outputs, and the normed input if a matrix reads it: gives the gradients
    /// of terms to `sink`, and adds the gradient with respect to the normed input to `dinput`, if given.
    pub fn backward(
        &self,
        gradients: [Array2<T>; 2],
        saved: &[Option<Array2<T>>],
        input: Option<ArrayView2<T>>,
        sink: &mut dyn TermSink<T>,
        mut dinput: Option<&mut Option<Array2<T>>>,
    ) {
        let gradients = match self {
            Self::Apart(_) => Vec::from(gradients),
            Self::Joined { per_key_head, .. } => vec![join(&gradients, *per_key_head)],
        };
        for ((linear, d), saved) in self.matrices().iter().zip(gradients).zip(saved) {
            linear.backward(d.into(), saved.as_ref(), input, sink, dinput.as_deref_mut());
        }
    }
}

/// The outputs of the joined matrix as those of beta and of alpha.
fn split<T: Real>(both: &Array2<T>, per_key_head: usize) -> [Array2<T>; 2] {
    let heads = both.ncols() / 2;
    [0, per_key_head].map(|first| {
        Array2::from_shape_fn((both.nrows(), heads), |(token, head)| {
            both[[token, head / per_key_head * 2 * per_key_head + first + head % per_key_head]]
        })
    })
}

/// The inverse of [`split`].
fn join<T: Real>(parts: &[Array2<T>; 2], per_key_head: usize) -> Array2<T> {
    let mut both = Array2::zeros((parts[0].nrows(), 2 * parts[0].ncols()));
    for (first, part) in [0, per_key_head].into_iter().zip(parts) {
        for (head, part) in part.axis_iter(Axis(1)).enumerate() {
            let column = head / per_key_head * 2 * per_key_head + first + head % per_key_head;
            both.column_mut(column).assign(&part);
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn joined_outputs_are_those_of_each_key_head() {
        let both = array![[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]];
        let parts = split(&both, 2);
        assert_eq!(parts, [array![[0.0, 1.0, 4.0, 5.0]], array![[2.0, 3.0, 6.0, 7.0]]]);
        assert_eq!(join(&parts, 2), both);
    }
}
