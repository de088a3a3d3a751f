//! The tensors of a model that get new values.

use std::collections::BTreeMap;

use super::super::element::ElementType;
use super::super::tensor::elements;
use super::super::{OnnxTensor, Storage};
use crate::error::{Error, Result, quoted};

/// New values for a tensor.
#[derive(Clone, Debug)]
pub struct Replacement<'a> {
    /// The tensor, one of the model's [`super::super::Onnx::tensors`].
    pub tensor: &'a OnnxTensor,
    /// Its new element type.
    pub element: ElementType,
    /// Its new lengths, slowest first.
    pub dims: Vec<u64>,
}

impl Replacement<'_> {
    /// Length of the new values in bytes; `None` if that overflows or the elements have no fixed size.
    fn bytes(&self) -> Option<u64> {
        self.element.bytes_for(elements(&self.dims)?)
    }
}

/// A checked replacement.
pub(super) struct NewValues<'r> {
    /// Its position among the replacements.
    pub(super) index: usize,
    /// Length of the new values in bytes.
    pub(super) bytes: u64,
    pub(super) replacement: &'r Replacement<'r>,
}

/// The tensors of a model, and the new values of some of them; both by where the tensor's message begins.
pub(super) struct Tensors<'a, 'r> {
    pub(super) all: BTreeMap<usize, &'a OnnxTensor>,
    pub(super) new: BTreeMap<usize, NewValues<'r>>,
}

impl<'a, 'r> Tensors<'a, 'r> {
    /// Checks the replacements against the model's tensors.
    pub(super) fn new(
        tensors: impl IntoIterator<Item = &'a OnnxTensor>,
        replacements: &'r [Replacement<'r>],
    ) -> Result<Self> {
        let all: BTreeMap<usize, &OnnxTensor> =
            tensors.into_iter().map(|tensor| (tensor.message.start, tensor)).collect();
        let mut new = BTreeMap::new();
        for (index, replacement) in replacements.iter().enumerate() {
            let place = format!("tensor {}", quoted(&replacement.tensor.name));
            let message = replacement.tensor.message.start;
            if all.get(&message) != Some(&replacement.tensor) {
                return Err(Error::encode(place, "it is not of this model", "report this as a bug"));
            }
            let texts = replacement.tensor.element == ElementType::STRING;
            let Some(bytes) = replacement.bytes().filter(|_| !texts) else {
                let problem = "it holds texts, or would be too large";
                return Err(Error::encode(place, problem, "change another tensor"));
            };
            if new.insert(message, NewValues { index, bytes, replacement }).is_some() {
                return Err(Error::encode(place, "it is changed twice", "report this as a bug"));
            }
        }
        Ok(Self { all, new })
    }

    /// The tensors of this external file, sorted: offset, length, message.
    pub(super) fn of_file(&self, file: usize) -> Vec<(u64, u64, usize)> {
        let placed = self.all.iter().filter_map(|(&message, tensor)| match tensor.storage {
            Storage::External { file: own, offset } if own == file => Some((offset, tensor.bytes, message)),
            _ => None,
        });
        let mut tensors: Vec<_> = placed.collect();
        tensors.sort_unstable();
        tensors
    }
}
