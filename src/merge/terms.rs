//! What adapters add to a tensor of the base: changes of all of it, or of the parts that it holds, each at its place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use curmerge_formats::adapter::AdapterTarget;

use super::Source;
use crate::base::{Base, Weight};
use crate::cur::Factors;
use crate::lora::Lora;
use crate::{Error, Result};

/// One adapter's change of one matrix.
#[derive(Clone, Debug)]
pub(super) struct Term<'a> {
    change: Change<'a>,
    scale: f32,
    /// The matrix that it changes: a tensor, or a part of one.
    weight: Weight<'a>,
    /// The tensor's canonical rows that the matrix is.
    rows: Range<usize>,
    /// The part's name within the tensor.
    part: Option<&'a str>,
}

#[derive(Clone, Copy, Debug)]
enum Change<'a> {
    /// `scale C U R`
    Cur(&'a AdapterTarget),
    /// `scale` times the LoRA's own change of the matrix of this name.
    Lora(&'a Lora, &'a str),
}

/// What each tensor gets, by its canonical name, in the order of the sources.
pub(super) fn by_tensor<'a>(
    base: &'a Base,
    sources: &[(Source<'a>, f32)],
) -> Result<BTreeMap<&'a str, Vec<Term<'a>>>> {
    let mut terms = BTreeMap::<&str, Vec<Term<'_>>>::new();
    for &(source, factor) in sources {
        let scale = if let Source::Cur(adapter) = source { adapter.scale * factor } else { factor };
        if !scale.is_finite() {
            return Err(Error::request(
                format!("a scale of {scale} cannot be used"),
                "give a finite --scale",
            ));
        }
        let mut put = |name: &'a str, change| -> Result<()> {
            let (place, weight) = (base.find(name)?, base.weight(name)?);
            let part =
                name.strip_prefix(place.name).and_then(|rest| rest.strip_prefix('[')?.strip_suffix(']'));
            let rows = place.rows.map_or(0..weight.rows(), |rows| rows.start as usize..rows.end as usize);
            terms.entry(place.name).or_default().push(Term { change, scale, weight, rows, part });
            Ok(())
        };
        match source {
            Source::Cur(adapter) => adapter.targets.iter().try_for_each(|t| put(&t.name, Change::Cur(t))),
            Source::Lora(lora) => lora.targets().try_for_each(|name| put(name, Change::Lora(lora, name))),
        }?;
    }
    Ok(terms)
}

/// The parts that the terms change, in the order of their rows; none where one changes the whole tensor.
pub(super) fn parts(terms: &[Term<'_>]) -> Vec<String> {
    let mut parts: Vec<(usize, &str)> = Vec::new();
    for term in terms {
        let Some(part) = term.part else { return Vec::new() };
        parts.push((term.rows.start, part));
    }
    parts.sort_unstable();
    parts.dedup();
    parts.into_iter().map(|(_, part)| part.to_string()).collect()
}

/// The same by the tensors that the container stores, which may hold several of these: name, and what each gets, its rows
/// counted within all that is stored.
pub(super) fn by_stored_tensor<'a>(
    base: &'a Base,
    terms: BTreeMap<&'a str, Vec<Term<'a>>>,
) -> BTreeMap<&'a str, Vec<Term<'a>>> {
    let mut stored = BTreeMap::<&str, Vec<Term<'_>>>::new();
    for (name, terms) in terms {
        let tensor = &base.tensors()[name];
        let all = stored.entry(&tensor.stored_name).or_default();
        let Some(slice) = &tensor.slice else {
            all.extend(terms);
            continue;
        };
        let (start, part) = (slice.start as usize, name.rsplit('.').next());
        all.extend(terms.into_iter().map(|term| Term {
            rows: term.rows.start + start..term.rows.end + start,
            part,
            ..term
        }));
    }
    stored
}

/// The change of a whole tensor, its rows as they are stored: thin factors, each within its rows and columns.
pub(super) struct Sum(Vec<Placed>);

struct Placed {
    rows: Range<usize>,
    cols: Range<usize>,
    factors: Factors,
}

impl Sum {
    /// That of the terms; of the transpose, if that is how the tensor is stored. `path` is the base that errors name.
    pub(super) fn of(terms: &[Term<'_>], transposed: bool, path: &Path) -> Result<Self> {
        let placed = terms.iter().map(|term| {
            let factors = match term.change {
                Change::Cur(target) => Factors::of_target(path, &term.weight, target, term.scale)?,
                Change::Lora(lora, name) => lora.factors(name, &term.weight, term.scale)?,
            };
            // Of permuted rows a term changes all.
            let factors = match term.weight.is_permuted() {
                true => factors.with_rows_moved(|row| term.weight.stored_row(row)),
                false => factors,
            };
            let (rows, cols) = (term.rows.clone(), 0..term.weight.cols());
            Ok(match transposed {
                false => Placed { rows, cols, factors },
                true => Placed { rows: cols, cols: rows, factors: factors.transposed() },
            })
        });
        placed.collect::<Result<_>>().map(Sum)
    }

    /// The change of one stored row into `out`: term by term.
    pub(super) fn of_row(&self, row: usize, out: &mut [f32]) {
        out.fill(0.0);
        for placed in self.0.iter().filter(|placed| placed.rows.contains(&row)) {
            placed.factors.add_to_row(row - placed.rows.start, &mut out[placed.cols.clone()]);
        }
    }
}
