//! The matrices of single experts within the tensors in which a folder has those of all experts of a block.

use std::path::Path;

use super::config::Config;
use super::quantized::QuantizedTensors;
use super::row_order::RowOrder;
use super::tensor::{BaseTensor, Slice};
use crate::arch::{Architecture, JoinedExperts, JoinedKind};
use crate::{Error, Result};

/// Splits a tensor into one for each matrix, or bias, of each expert: their canonical names, and how they are
/// stored. `stem` is Hugging Face's name without an ending. `None` if it is no such tensor.
///
/// # Errors
/// Another shape than the configuration says.
pub(super) fn split(
    path: &Path,
    (architecture, config): (&'static Architecture, &Config),
    stem: &str,
    tensor: &BaseTensor,
) -> Result<Option<Vec<(String, BaseTensor)>>> {
    let Some((joined, layer, kind)) = architecture.joined_experts(stem) else { return Ok(None) };
    // A folder may have a few blocks more, which predict further tokens.
    if layer > config.layers + usize::from(u8::MAX) {
        return Ok(None);
    }
    let experts = config.experts.map_or(0, |experts| experts.count) as u64;
    let sizes = |part: &&str| {
        let line = architecture.names().find(|line| line.canonical == *part)?;
        let [outputs, inputs] = line.shape else { return None };
        Some([outputs, inputs].map(|&size| config.size(size, Some(layer)) as u64))
    };
    let sizes: Vec<[u64; 2]> = joined.parts.iter().filter_map(sizes).collect();
    let outputs: u64 = sizes.iter().map(|[outputs, _]| outputs).sum();
    let inputs = sizes.first().map_or(0, |[_, inputs]| *inputs);
    let wanted = match (kind, joined.transposed) {
        (JoinedKind::Biases, _) => vec![experts, outputs],
        // What is quantized is so as [out, in].
        (JoinedKind::Weights, _) if tensor.quantized.is_some() => vec![experts * outputs, inputs],
        (JoinedKind::Weights, true) => vec![experts, inputs, outputs],
        (JoinedKind::Weights, false) => vec![experts, outputs, inputs],
    };
    if tensor.shape != wanted || !tensor.bytes.is_multiple_of(experts.max(1)) {
        let problem = format!("shape {:?} where the configuration says {wanted:?}", tensor.shape);
        let place = format!("tensor '{}'", tensor.stored_name.escape_debug());
        let help = "the file is damaged or of another architecture; download it again";
        return Err(Error::input(path, place, problem, help));
    }
    let mut found = Vec::new();
    for expert in 0..experts {
        let mut first = 0;
        for (number, (part, [own, _])) in joined.parts.iter().zip(&sizes).enumerate() {
            let start = if joined.interleaved { number as u64 } else { first };
            first += own;
            let place = Place { joined, kind, expert, experts, start, outputs, own: [*own, inputs] };
            let ending = if kind == JoinedKind::Biases { ".bias" } else { "" };
            let name = JoinedExperts::part(part, layer, expert as usize) + ending;
            found.push((name, place.tensor(tensor)));
        }
    }
    Ok(Some(found))
}

/// Where a matrix is in a joined tensor.
struct Place<'j> {
    joined: &'j JoinedExperts,
    kind: JoinedKind,
    expert: u64,
    experts: u64,
    /// Its first output among those of its expert, of which there are `outputs`.
    start: u64,
    outputs: u64,
    /// Its outputs and inputs.
    own: [u64; 2],
}

impl Place<'_> {
    fn tensor(&self, whole: &BaseTensor) -> BaseTensor {
        let Self { joined, kind, expert, experts, start, outputs, own: [own, inputs] } = *self;
        let step = if joined.interleaved { joined.parts.len() as u64 } else { 1 };
        let quantized: Option<QuantizedTensors> = whole.quantized.clone();
        // The scales of codes lie apart, so that codes are found from the start of the whole tensor.
        let (start, of) = match quantized {
            Some(_) => (expert * outputs + start, experts * outputs),
            None => (start, outputs),
        };
        let bytes = if quantized.is_some() { whole.bytes } else { whole.bytes / experts };
        let transposed = kind == JoinedKind::Weights && joined.transposed && quantized.is_none();
        BaseTensor {
            shape: match (kind, transposed) {
                (JoinedKind::Biases, _) => vec![own],
                (JoinedKind::Weights, true) => vec![inputs, own],
                (JoinedKind::Weights, false) => vec![own, inputs],
            },
            offset: if quantized.is_some() { whole.offset } else { whole.offset + expert * bytes },
            bytes,
            rotary_halves: None,
            orders: [RowOrder::CANONICAL; 2],
            transposed,
            unit_offset: false,
            log_of_negative: false,
            slice: Some(Slice { start, of, step }),
            quantized,
            ..whole.clone()
        }
    }
}
