//! What adapters add to the tensors of a base: deltas of a whole tensor, or of the parts of one that holds
//! several matrices.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use curmerge_formats::adapter::AdapterTarget;

use super::Source;
use crate::base::{Base, Weight};
use crate::cur::Factors;
use crate::error::CallerOption;
use crate::lora::Lora;
use crate::{Error, Result};

/// One adapter's change of one matrix.
#[derive(Clone, Debug)]
pub(super) struct Delta<'a> {
    target: Target<'a>,
    scale: f32,
    /// The matrix that it changes: a tensor, or a part of one.
    weight: Weight<'a>,
    /// The canonical rows of the tensor that the matrix takes, and how many the tensor has.
    rows: Range<usize>,
    of: usize,
    /// The part's name within the tensor.
    part: Option<&'a str>,
}

/// The factors of a delta in the adapter's file.
#[derive(Clone, Copy, Debug)]
enum Target<'a> {
    /// `scale C U R`
    Cur(&'a AdapterTarget),
    /// `scale` times the LoRA's own change of the matrix of this name.
    Lora(&'a Lora, &'a str),
}

/// The deltas of each tensor by its canonical name, in the order of the sources.
pub(super) fn by_tensor<'a>(
    base: &'a Base,
    sources: &[(Source<'a>, f32)],
) -> Result<BTreeMap<&'a str, Vec<Delta<'a>>>> {
    let mut deltas = BTreeMap::<&str, Vec<Delta<'_>>>::new();
    for &(source, factor) in sources {
        let scale = if let Source::Cur(adapter) = source { adapter.scale * factor } else { factor };
        if !scale.is_finite() {
            let error = Error::request(format!("a scale of {scale} cannot be used"), "give a finite one");
            return Err(error.avoidable(CallerOption::Scale));
        }
        let mut put = |name: &'a str, target| -> Result<()> {
            let (place, weight) = (base.find(name)?, base.weight(name)?);
            let part =
                name.strip_prefix(place.name).and_then(|rest| rest.strip_prefix('[')?.strip_suffix(']'));
            let rows = place.rows.map_or(0..weight.rows(), |rows| rows.start as usize..rows.end as usize);
            let whole = place.tensor.slice.as_ref().map(|slice| slice.of);
            let rows_of = place.tensor.shape.get(usize::from(place.tensor.transposed)).copied();
            let of = whole.or(rows_of).unwrap_or(0) as usize;
            deltas.entry(place.name).or_default().push(Delta { target, scale, weight, rows, of, part });
            Ok(())
        };
        match source {
            Source::Cur(adapter) => adapter.targets.iter().try_for_each(|t| put(&t.name, Target::Cur(t))),
            Source::Lora(lora) => lora.targets().try_for_each(|name| put(name, Target::Lora(lora, name))),
        }?;
    }
    Ok(deltas)
}

/// The names of the parts that the deltas change, in the order of their rows (of parts whose rows lie among others',
/// by name); none if a delta changes the
/// whole tensor.
pub(super) fn parts(deltas: &[Delta<'_>]) -> Vec<String> {
    let mut parts: Vec<(usize, &str)> = Vec::new();
    for delta in deltas {
        let Some(part) = delta.part else { return Vec::new() };
        parts.push((delta.rows.start, part));
    }
    parts.sort_unstable();
    parts.dedup();
    parts.into_iter().map(|(_, part)| part.to_string()).collect()
}

/// The deltas of each stored tensor, which may hold several of the base's: by the name in the container, with
/// rows counted within the stored tensor.
pub(super) fn by_stored_tensor<'a>(
    base: &'a Base,
    deltas: &BTreeMap<&'a str, Vec<Delta<'a>>>,
) -> BTreeMap<&'a str, Vec<Delta<'a>>> {
    let mut stored = BTreeMap::<&str, Vec<Delta<'_>>>::new();
    for (&name, deltas) in deltas {
        let (tensor, deltas) = (&base.tensors()[name], deltas.iter().cloned());
        let all = stored.entry(&tensor.stored_name).or_default();
        let Some(slice) = &tensor.slice else {
            all.extend(deltas);
            continue;
        };
        let (start, part) = (slice.start as usize, name.rsplit('.').next());
        all.extend(deltas.map(|delta| Delta {
            rows: delta.rows.start + start..delta.rows.end + start,
            part,
            ..delta
        }));
    }
    stored
}

/// The sum of the deltas of one tensor, its rows in stored order: thin factors, each within its rows and
/// columns.
pub(super) struct DeltaSum(Vec<Placed>);

struct Placed {
    rows: Range<usize>,
    cols: Range<usize>,
    factors: Factors,
}

impl DeltaSum {
    /// The sum of these deltas, or its transpose if the tensor is stored so. `path` is the base that errors
    /// name.
    ///
    /// # Errors
    /// Factors that are not finite.
    pub(super) fn new(deltas: &[Delta<'_>], transposed: bool, path: &Path) -> Result<Self> {
        let placed = deltas.iter().map(|delta| {
            let factors = match delta.target {
                Target::Cur(target) => Factors::of_target(path, &delta.weight, target, delta.scale)?,
                Target::Lora(lora, name) => lora.factors(name, &delta.weight, delta.scale)?,
            };
            // Rows between which others lie are counted from the start of the whole tensor.
            let rows = match delta.weight.has_rows_between() {
                true => 0..delta.of,
                false => delta.rows.clone(),
            };
            let factors = match delta.weight.is_permuted() {
                true => factors.with_rows_moved(rows.len(), |row| delta.weight.stored_row(row)),
                false => factors,
            };
            let factors = match delta.weight.has_permuted_columns() {
                true => factors.with_columns_moved(|col| delta.weight.stored_column(col)),
                false => factors,
            };
            let cols = 0..delta.weight.cols();
            Ok(match transposed {
                false => Placed { rows, cols, factors },
                true => Placed { rows: cols, cols: rows, factors: factors.transposed() },
            })
        });
        placed.collect::<Result<_>>().map(DeltaSum)
    }

    /// Writes one stored row of the sum to `out`, delta by delta.
    pub(super) fn of_row(&self, row: usize, out: &mut [f32]) {
        out.fill(0.0);
        for placed in self.0.iter().filter(|placed| placed.rows.contains(&row)) {
            placed.factors.add_to_row(row - placed.rows.start, &mut out[placed.cols.clone()]);
        }
    }
}
