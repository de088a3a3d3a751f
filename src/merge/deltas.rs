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
use crate::lora::{Lora, LoraTarget};
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
    /// `scale B A` of a LoRA in memory.
    Trained(&'a LoraTarget),
}

/// The deltas of each tensor by its canonical name, in the order of the sources.
pub(super) fn by_tensor<'a>(
    base: &'a Base,
    sources: &[(Source<'a>, f32)],
) -> Result<BTreeMap<&'a str, Vec<Delta<'a>>>> {
    let mut deltas = BTreeMap::<&str, Vec<Delta<'_>>>::new();
    for &(source, factor) in sources {
        let scale = match source {
            Source::Cur(adapter) => adapter.scale * factor,
            Source::Lora(_) => factor,
            Source::Trained(lora) => lora.options.scale() * factor,
        };
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
            Source::Trained(lora) => lora.targets.iter().try_for_each(|t| put(&t.name, Target::Trained(t))),
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

/// Divides the stored rows of a tensor into ranges, whose deltas have factors of about `most` numbers: those of all
/// experts of a block can take hundreds of MB. Each range comes with its deltas, in their order.
pub(super) fn by_rows<'a>(
    deltas: &[Delta<'a>],
    rows: usize,
    transposed: bool,
    most: usize,
) -> Vec<(Range<usize>, Vec<Delta<'a>>)> {
    let all = |deltas: &[Delta<'a>]| vec![(0..rows, deltas.to_vec())];
    if transposed || deltas.iter().any(|delta| delta.weight.has_rows_between()) {
        return all(deltas);
    }
    let mut starts: Vec<usize> = deltas.iter().map(|delta| delta.rows.start).collect();
    starts.sort_unstable();
    starts.dedup();
    let mut ranges: Vec<(Range<usize>, Vec<Delta<'a>>)> = Vec::new();
    let (mut first, mut numbers) = (0, 0);
    for (number, &start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(rows);
        let own = || deltas.iter().filter(|delta| delta.rows.start < end && start < delta.rows.end);
        if number > 0 && numbers + own().map(Delta::numbers).sum::<usize>() > most {
            ranges.push((first..start, Vec::new()));
            (first, numbers) = (start, 0);
        }
        numbers += own().map(Delta::numbers).sum::<usize>();
    }
    ranges.push((first..rows, Vec::new()));
    for (range, own) in &mut ranges {
        let within =
            deltas.iter().filter(|delta| delta.rows.start < range.end && range.start < delta.rows.end);
        own.extend(within.cloned());
    }
    ranges
}

impl Delta<'_> {
    /// The numbers of its factors.
    fn numbers(&self) -> usize {
        let rank = match self.target {
            Target::Cur(target) => target.cols.len(),
            Target::Lora(lora, name) => lora.rank(name).unwrap_or(0),
            Target::Trained(target) => target.a.nrows(),
        };
        rank * (self.weight.rows() + self.weight.cols())
    }
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
                Target::Trained(target) => target.factors(delta.scale),
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

#[cfg(test)]
mod tests {
    use curmerge_formats::adapter::Adapter;

    use super::*;
    use crate::cur::{Selection, fingerprint, new_targets};

    #[test]
    fn ranges_of_rows_have_the_sum_of_the_whole() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/arch/qwen3moe/model.gguf");
        let base = Base::open(&path).unwrap();
        let names = [3, 0, 2].map(|expert| format!("blk.0.ffn_up_exps[{expert}]"));
        let mut targets = new_targets(&base, &names, 3, Selection::Inverse, 1).unwrap();
        targets.iter_mut().flat_map(|target| &mut target.u).enumerate().for_each(|(i, u)| *u = i as f32);
        let adapter = Adapter {
            base: fingerprint::base_info(&base, &targets),
            rank: 3,
            scale: 1.0,
            selection: Selection::Inverse.to_string(),
            seed: 1,
            training: None,
            targets,
        };
        let deltas = by_tensor(&base, &[(Source::Cur(&adapter), 0.5)]).unwrap();
        let deltas = &deltas["blk.0.ffn_up_exps"];
        let (rows, cols) = (4 * deltas[0].weight.rows(), deltas[0].weight.cols());
        let whole = DeltaSum::new(deltas, false, &path).unwrap();
        let own = deltas[0].numbers();
        for (most, ranges) in [(0, 3), (own, 3), (2 * own, 2), (usize::MAX, 1)] {
            let divided = by_rows(deltas, rows, false, most);
            assert_eq!(divided.len(), ranges, "{most}");
            let mut next = 0;
            for (range, deltas) in divided {
                assert_eq!(range.start, next);
                next = range.end;
                let part = DeltaSum::new(&deltas, false, &path).unwrap();
                for row in range {
                    let [mut expected, mut found] = [vec![0.0; cols], vec![0.0; cols]];
                    whole.of_row(row, &mut expected);
                    part.of_row(row, &mut found);
                    assert_eq!(found, expected, "row {row}");
                }
            }
            assert_eq!(next, rows);
        }
    }
}
