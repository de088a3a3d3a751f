//! The tensors of an output whose bytes are computed while it is written.

use std::collections::BTreeMap;
use std::ops::Range;

use curmerge_formats::dtype::DType;
use curmerge_formats::output::Piece;

use crate::Result;

/// A tensor whose bytes are computed while the model is written.
pub trait ComputedTensor {
    /// What the caller learns from computing it.
    type Outcome;

    /// The type that it is stored in.
    fn dtype(&self) -> DType;

    /// Computes the tensor. `put` takes the next bytes of one of its parts. Most tensors have the one part 0;
    /// a matrix in blocks of an ONNX model is stored as several tensors, its parts.
    ///
    /// # Errors
    /// A value that the type cannot hold; those of `put`.
    fn compute(&self, put: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>) -> Result<Self::Outcome>;
}

impl<T: ComputedTensor> ComputedTensor for &T {
    type Outcome = T::Outcome;

    fn dtype(&self) -> DType {
        (**self).dtype()
    }

    fn compute(&self, put: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>) -> Result<Self::Outcome> {
        (**self).compute(put)
    }
}

/// The new tensors of an output. Every part has an index, by which the pieces of the output's files name it
/// ([`curmerge_formats::output::Piece::Computed`]).
#[derive(Clone, Debug)]
pub struct ComputedTensors<'a, T> {
    tensors: Vec<(T, Range<usize>)>,
    /// The position of the tensor, and the index of the part, that replace the tensor of a name.
    replaced: BTreeMap<&'a str, (usize, usize)>,
    /// The names of replaced tensors, by the index of the part.
    names: Vec<&'a str>,
    parts: usize,
}

impl<T> Default for ComputedTensors<'_, T> {
    fn default() -> Self {
        Self { tensors: Vec::new(), replaced: BTreeMap::new(), names: Vec::new(), parts: 0 }
    }
}

impl<'a, T> ComputedTensors<'a, T> {
    /// Adds a tensor of this many parts. Returns the indices of the parts.
    pub fn push(&mut self, tensor: T, parts: usize) -> Range<usize> {
        let indices = self.parts..self.parts + parts;
        self.parts = indices.end;
        self.tensors.push((tensor, indices.clone()));
        indices
    }

    /// Adds a tensor that replaces tensors of a model, one for each part, by the names that the container
    /// gives them.
    pub fn replace(&mut self, names: impl IntoIterator<Item = &'a str>, tensor: T) {
        let (position, start, before) = (self.tensors.len(), self.parts, self.names.len());
        self.names.extend(names);
        let own = &self.names[before..];
        let count = own.len();
        self.replaced.extend(own.iter().zip(start..).map(|(&name, index)| (name, (position, index))));
        self.push(tensor, count);
    }

    /// The tensor that replaces the one of this name, and the index of its part.
    pub fn get(&self, name: &str) -> Option<(&T, usize)> {
        self.replaced.get(name).map(|&(tensor, index)| (&self.tensors[tensor].0, index))
    }

    /// The piece of the tensor of this name: `len` bytes of new values if it is replaced, else the `stored`
    /// ones.
    pub fn piece<'p>(&self, name: &str, len: u64, stored: Piece<'p>) -> Piece<'p> {
        self.get(name).map_or(stored, |(_, index)| Piece::Computed { index, len })
    }

    /// The names of the replaced tensors, by the index of the part.
    pub fn names(&self) -> &[&'a str] {
        &self.names
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensors with the indices of their parts.
    pub fn iter(&self) -> impl Iterator<Item = (&T, Range<usize>)> {
        self.tensors.iter().map(|(tensor, parts)| (tensor, parts.clone()))
    }
}
