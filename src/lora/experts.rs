//! LoRAs of experts, of which a file has those of all experts of a layer in one tensor.
//!
//! PEFT trains a parameter of all experts (`target_parameters`) `[experts, out, in]` by A `[experts * rank,
//! in]`, the rows of an expert together, and B `[out, rank * experts]`, the columns of an expert `experts`
//! apart. A module with two such parameters is wrapped twice: the first parameter is the innermost
//! `base_layer`. Rows of `gate_up_proj` are the gate's, then the up projection's; of gpt-oss they alternate.
//! llama.cpp's A and B have a third dimension, the experts. Sources: `ParamWrapper` in peft;
//! `convert_lora_to_gguf.py`.

use std::ops::Range;
use std::path::Path;

use super::Stored;
use crate::base::Base;
use crate::{Error, Result};

/// The parameters of all experts in the order of their module, with the tensors whose rows each of them has, if the
/// architecture says nothing else.
const PARAMETERS: [(&str, &[&str]); 3] = [
    ("gate_up_proj", &["ffn_gate_exps", "ffn_up_exps"]),
    // Of experts without gates.
    ("up_proj", &["ffn_up_exps"]),
    ("down_proj", &["ffn_down_exps"]),
];

/// Some numbers of each row of a tensor, as bytes.
#[derive(Clone, Debug)]
pub(super) struct Strided {
    /// Bytes of a whole row.
    row: usize,
    /// Where the first number of a row is.
    first: usize,
    /// From one number to the next.
    step: usize,
    /// How many numbers there are in a row.
    count: usize,
    /// Bytes of a number.
    element: usize,
}

impl Strided {
    /// The numbers of all rows, one behind the other.
    pub(super) fn gather(&self, bytes: &[u8]) -> Vec<u8> {
        let of_row = |row: &[u8]| -> Vec<u8> {
            let numbers = row[self.first..].chunks(self.step).take(self.count);
            numbers.flat_map(|chunk| &chunk[..self.element]).copied().collect()
        };
        bytes.chunks_exact(self.row).flat_map(of_row).collect()
    }
}

/// The parameter of all experts that a module's A and B belong to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    layer: usize,
    tensors: &'static [&'static str],
}

/// The parameter of a module `...layers.N...experts(.base_layer)`, where the adapter trains these
/// `target_parameters`. `None` for any other module.
pub(super) fn parameter(module: &str, trained: &[String]) -> Option<Parameter> {
    let mut segments: Vec<&str> = module.split('.').collect();
    let mut depth = 0;
    while segments.last() == Some(&"base_layer") {
        segments.pop();
        depth += 1;
    }
    if segments.last() != Some(&"experts") {
        return None;
    }
    let layers = segments.iter().position(|segment| *segment == "layers")?;
    let layer = segments.get(layers + 1)?.parse().ok()?;
    let is_trained =
        |name: &str| trained.iter().any(|target| target.rsplit('.').next().is_some_and(|own| own == name));
    let outermost_first = PARAMETERS.iter().rev().filter(|(name, _)| is_trained(name));
    let (name, tensors) = outermost_first.clone().nth(depth)?;
    Some(Parameter { name, layer, tensors })
}

impl Parameter {
    /// The tensors of a layer whose experts' rows it has, in this base.
    fn tensors(&self, base: &Base) -> Vec<&'static str> {
        let mut joined = base.architecture().tensors.joined_experts.iter();
        let own = joined.find(|joined| joined.hugging_face.rsplit('.').next() == Some(self.name));
        let part = |part: &&'static str| part.strip_prefix("blk.{}.")?.strip_suffix("[{}]");
        own.map_or(self.tensors.to_vec(), |joined| joined.parts.iter().filter_map(part).collect())
    }

    /// The matrices of each expert in A (0) or B (1): canonical names and places.
    ///
    /// # Errors
    /// A base without these experts; a tensor whose shape is not of so many.
    pub(super) fn matrices(
        &self,
        base: &Base,
        path: &Path,
        (whole, part): (Stored, usize),
    ) -> Result<Vec<(String, Stored)>> {
        let refuse = |problem: String| {
            let place = format!("tensor '{}'", whole.name.escape_debug());
            Error::input(path, place, problem, "use the base that it was trained on")
        };
        let tensors = self.tensors(base);
        let names = tensors.iter().map(|tensor| format!("blk.{}.{tensor}", self.layer));
        let mut matrices = Vec::new();
        let mut row = 0;
        for (number, name) in names.enumerate() {
            let joined = base.architecture().joined_with(&format!("{name}[0]"));
            let alternate = joined.is_some_and(|(joined, _)| joined.interleaved);
            let experts = base.config().experts.map_or(0, |experts| experts.count);
            let first = base.place(&format!("{name}[0]")).filter(|_| experts > 0);
            if first.is_none() {
                return Err(refuse(format!("belongs to '{name}', which the base does not have")));
            }
            let rows = base.weight(&format!("{name}[0]"))?.rows();
            let shared = if part == 0 { whole.rows } else { whole.cols };
            let odd = alternate && rows * tensors.len() != whole.rows;
            let misfit = part == 1 && (odd || row + rows > whole.rows || whole.dtype.block_elements() != 1);
            if !shared.is_multiple_of(experts) || misfit {
                let shape = [whole.rows, whole.cols];
                return Err(refuse(format!("is {shape:?}, for {experts} experts of {rows} rows")));
            }
            let own = (0..experts).map(|expert| {
                let stored = match part {
                    0 => whole.rows_of(expert * (shared / experts)..(expert + 1) * (shared / experts)),
                    _ if alternate => whole.clone().every([tensors.len(), experts], [number, expert]),
                    _ => whole.rows_of(row..row + rows).every([1, experts], [0, expert]),
                };
                (format!("{name}[{expert}]"), stored)
            });
            matrices.extend(own);
            row += rows;
        }
        // Rows that no tensor has would be lost.
        match part == 1 && row != whole.rows {
            true => Err(refuse(format!("has {} rows, and the experts' matrices {row}", whole.rows))),
            false => Ok(matrices),
        }
    }
}

impl Stored {
    /// These rows. The numbers of a row must be whole bytes.
    pub(super) fn rows_of(&self, rows: Range<usize>) -> Self {
        let row = (self.place.end - self.place.start) / self.rows.max(1) as u64;
        let start = self.place.start + rows.start as u64 * row;
        Self { rows: rows.len(), place: start..start + rows.len() as u64 * row, ..self.clone() }
    }

    /// The rows `row`, `row + rows`, and so on, and of each the columns `column`, `column + columns`, and so on, of
    /// numbers that are not in blocks.
    fn every(self, [rows, columns]: [usize; 2], [row, column]: [usize; 2]) -> Self {
        let (element, count) = (self.dtype.block_bytes(), self.cols / columns);
        let strided = Strided {
            row: rows * self.cols * element,
            first: (row * self.cols + column) * element,
            step: columns * element,
            count,
            element,
        };
        Self { rows: self.rows / rows, cols: count, strided: Some(strided), ..self }
    }
}

/// The experts of a tensor `[experts, rows, cols]` of llama.cpp: canonical names and places.
pub(super) fn stacked(name: &str, experts: u64, whole: Stored) -> Vec<(String, Stored)> {
    let experts = experts as usize;
    let rows = whole.rows / experts.max(1);
    (0..experts)
        .map(|expert| (format!("{name}[{expert}]"), whole.rows_of(expert * rows..(expert + 1) * rows)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_layer_is_the_first_parameter() {
        let both = ["mlp.experts.gate_up_proj".to_owned(), "mlp.experts.down_proj".to_owned()];
        let found = |module: &str, trained: &[String]| {
            parameter(module, trained).map(|parameter| (parameter.layer, parameter.tensors[0]))
        };
        let module = "model.layers.3.mlp.experts";
        assert_eq!(found(module, &both), Some((3, "ffn_down_exps")));
        assert_eq!(found(&format!("{module}.base_layer"), &both), Some((3, "ffn_gate_exps")));
        assert_eq!(found(&format!("{module}.base_layer.base_layer"), &both), None);
        assert_eq!(found(module, &both[..1]), Some((3, "ffn_gate_exps")));
        assert_eq!(found(module, &[]), None);
        assert_eq!(found("model.layers.3.mlp.down_proj", &both), None);
    }

    #[test]
    fn the_columns_of_an_expert_are_apart() {
        let strided = Strided { row: 12, first: 2, step: 6, count: 2, element: 2 };
        let bytes: Vec<u8> = (0..24).collect();
        assert_eq!(strided.gather(&bytes), [2, 3, 8, 9, 14, 15, 20, 21]);
        // The first of two rows.
        let strided = Strided { row: 24, count: 2, ..strided };
        assert_eq!(strided.gather(&bytes), [2, 3, 8, 9]);
    }
}
