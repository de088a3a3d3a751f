//! Tensors in which transformers has the matrices of all experts of a block, or their biases.

use super::weights::{Tensor, Values};
use crate::Result;
use crate::arch::{JoinedExperts, JoinedKind};
use crate::base::{Base, Weight};

/// One such tensor.
pub(super) struct Joined {
    experts: &'static JoinedExperts,
    layer: usize,
    kind: JoinedKind,
}

/// The tensor that a tensor of this canonical name is in, and whether it is the first of it. `None` if transformers
/// writes it as a tensor of its own.
pub(super) fn find(base: &Base, canonical: &str) -> Option<(Joined, bool)> {
    let architecture = base.architecture();
    let (stem, endings) = architecture.stem_and_endings(canonical);
    let has_own = |name: &str| base.to_hugging_face(name).is_some_and(|(own, _)| !own.is_empty());
    // A GGUF file has all experts in one tensor, too.
    let names = [stem.to_owned(), format!("{stem}[0]")];
    let mut names = names.iter().filter(|name| !has_own(name));
    let (name, (experts, layer)) = names.find_map(|name| Some((name, architecture.joined_with(name)?)))?;
    let kind = if endings.gguf == ".bias" { JoinedKind::Biases } else { JoinedKind::Weights };
    let is_first = *name == JoinedExperts::part(experts.parts[0], layer, 0);
    Some((Joined { experts, layer, kind }, is_first))
}

impl Joined {
    /// The tensor.
    pub(super) fn tensor<'a>(&self, base: &'a Base) -> Result<Tensor<'a>> {
        let &Self { experts: joined, layer, kind } = self;
        let count = base.config().experts.map_or(0, |experts| experts.count);
        let names = |expert| joined.parts.iter().map(move |part| JoinedExperts::part(part, layer, expert));
        let matrices = |expert| names(expert).map(|name| base.weight(&name)).collect::<Result<Vec<_>>>();
        let all = (0..count).map(matrices).collect::<Result<Vec<_>>>()?;
        let parts: &[Weight<'_>] = all.first().map_or(&[], |parts| parts);
        let outputs = parts.iter().map(|part| part.rows() as u64).sum();
        let inputs = parts.first().map_or(0, |part| part.cols() as u64);
        let stored_bytes = all.iter().flatten().map(|part| part.stored_bytes().len() as u64).sum();
        let (shape, values) = match kind {
            JoinedKind::Weights => {
                let shape = if joined.transposed { [inputs, outputs] } else { [outputs, inputs] };
                (vec![count as u64, shape[0], shape[1]], Values::Experts(joined, all))
            }
            JoinedKind::Biases => {
                let mut values = Vec::new();
                for expert in 0..count {
                    let parts = names(expert).map(|name| base.vector(&format!("{name}.bias")));
                    let parts = parts.collect::<Result<Vec<_>>>()?;
                    values.extend(one(joined, &parts, 1, |part| part.len(), |part, i, out| out[0] = part[i]));
                }
                (vec![count as u64, outputs], Values::Vector(values))
            }
        };
        let first = joined.parts.first().copied();
        let number = base.architecture().names().position(|line| Some(line.canonical) == first);
        let place = (1, layer, number.unwrap_or(0));
        Ok(Tensor { place, name: joined.name(layer, kind), shape, stored_bytes, values, kept_in: None })
    }
}

/// The values of an expert's matrices as transformers joins them.
pub(super) fn matrices(joined: &JoinedExperts, parts: &[Weight<'_>]) -> Vec<f32> {
    let inputs = parts.first().map_or(0, Weight::cols);
    one(joined, parts, inputs, Weight::rows, Weight::decode_row)
}

/// The outputs of parts, each of `width` numbers that `read` gives, in the order and layout of the joined tensor.
fn one<P>(
    joined: &JoinedExperts,
    parts: &[P],
    width: usize,
    rows: impl Fn(&P) -> usize,
    read: impl Fn(&P, usize, &mut [f32]),
) -> Vec<f32> {
    let outputs: usize = parts.iter().map(&rows).sum();
    let mut values = vec![0.0; outputs * width];
    let mut row = vec![0.0; width];
    let mut before = 0;
    for (number, part) in parts.iter().enumerate() {
        for output in 0..rows(part) {
            read(part, output, &mut row);
            let place = if joined.interleaved { output * parts.len() + number } else { before + output };
            for (input, value) in row.iter().enumerate() {
                let at = if joined.transposed { input * outputs + place } else { place * width + input };
                values[at] = *value;
            }
        }
        before += rows(part);
    }
    values
}
