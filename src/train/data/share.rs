//! The part of a large data set that a run takes. Every row is read and checked, but only what is trained or
//! held out becomes tokens, and only that is held in memory.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use super::order::{is_spread, shuffle};
use super::rows::Content;
use super::{
    DataOptions, Dataset, Example, check, files, joined, making, nothing_to_learn, reading, records,
};
use crate::chat::ChatTemplate;
use crate::compressed::uncompressed_name;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Data of more bytes of text are not made into tokens as a whole, if a run takes a part of them.
const LARGE: u64 = 1 << 30;
/// How many times larger the text of a compressed file may be, about.
const COMPRESSION: u64 = 8;

/// What a run takes of its data.
#[derive(Clone, Copy)]
pub struct Share<'s> {
    /// Upper limit of the examples that are trained: the steps of the run times the examples of a step.
    pub trained: usize,
    /// Seed of the order of examples.
    pub seed: u64,
    /// Use as many rows, evenly spread. All if `None`.
    pub max_rows: Option<usize>,
    /// How many of so many rows are held out, evenly spread.
    pub held_out: &'s dyn Fn(usize) -> Result<usize>,
}

impl fmt::Debug for Share<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trained, seed, max_rows, .. } = self;
        f.debug_struct("Share")
            .field("trained", trained)
            .field("seed", seed)
            .field("max_rows", max_rows)
            .finish_non_exhaustive()
    }
}

/// Whether these files are so large that a run should read a [`Share`] of them.
///
/// # Errors
/// A file that cannot be read.
pub fn is_large<P: AsRef<Path>>(paths: &[P]) -> Result<bool> {
    let text = |path: &P| {
        let path = path.as_ref();
        let is_compressed = uncompressed_name(path) != path || files::is_parquet(path)?;
        let factor = if is_compressed { COMPRESSION } else { 1 };
        Ok(files::stored_bytes(path)?.saturating_mul(factor))
    };
    let all = paths.iter().map(text).collect::<Result<Vec<u64>>>()?;
    Ok(all.into_iter().fold(0, u64::saturating_add) > LARGE)
}

/// A row that a run takes.
#[derive(Clone, Copy)]
struct Taken {
    /// Its number, over all files.
    row: usize,
    /// Its place among the examples that are trained; `None` if it is held out.
    place: Option<usize>,
}

impl Dataset {
    /// The share of files that a run takes, and what it holds out. Every row counts as one example. The
    /// examples are those of a [whole](Self::read_all) data set, in the order in which its first epoch takes
    /// them; of a run that takes all that is not held out, in the files' order. `None` if a file is plain text,
    /// which has no rows.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), but a row that is not taken is never made into tokens; those of
    /// [`Share::held_out`].
    pub fn read_share<P: AsRef<Path>>(
        paths: &[P],
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        options: &DataOptions,
        share: Share<'_>,
    ) -> Result<Option<(Self, Option<Self>)>> {
        let Some((rows, described)) = count(paths, options)? else { return Ok(None) };
        let used = share.max_rows.map_or(rows, |most| most.min(rows));
        let held_out = (share.held_out)(used)?;
        let kept = used.saturating_sub(held_out);
        let mut wanted = share.trained.min(kept);
        loop {
            let taken = choose(rows, used, held_out, wanted, share.seed)?;
            let (mut data, mut held) = (Self::empty(options), Self::empty(options));
            // In the order of places, or of rows.
            let mut trained: Vec<(usize, Vec<Example>)> = Vec::new();
            each(paths, &taken, options, |path, chosen, rows| {
                let records = reading::records(path, &rows, &options.columns)?;
                let made = making::all(path, records, tokenizer, template, options)?;
                for (taken, made) in chosen.iter().zip(made) {
                    match taken.place {
                        Some(place) => trained.push((place, data.count(made))),
                        None => {
                            let mut learned = held.count(made);
                            held.examples.append(&mut learned);
                        }
                    }
                }
                Ok(())
            })?;
            trained.sort_by_key(|(place, _)| *place);
            data.examples = trained.into_iter().flat_map(|(_, examples)| examples).collect();
            data.in_order = wanted < kept;
            // Rows without anything to learn leave a run short of examples.
            if data.in_order && data.examples.len() < share.trained {
                wanted = wanted.saturating_mul(2).min(kept);
                continue;
            }
            // Others are in the order of the file, and the run's own order chooses among them.
            if data.in_order {
                data.examples.truncate(share.trained);
            }
            if data.examples.is_empty() {
                return Err(nothing_to_learn(paths[0].as_ref()));
            }
            (data.sha256, data.layout) = described;
            data.layout += &format!(", {rows} rows, of which the run takes {wanted}");
            held.sha256.clone_from(&data.sha256);
            held.layout.clone_from(&data.layout);
            return Ok(Some((data, (held_out > 0).then_some(held))));
        }
    }
}

/// The number of rows of all files, and their digest and layout. Checks what every row holds.
fn count<P: AsRef<Path>>(paths: &[P], options: &DataOptions) -> Result<Option<(usize, (String, String))>> {
    let (mut rows, mut described) = (0, Vec::new());
    for path in paths {
        let path = path.as_ref();
        check(path, options)?;
        let (mut found, mut is_plain) = (BTreeSet::new(), false);
        let read = reading::read(path, &options.columns, &mut |part| {
            let Content::Rows(part) = part else {
                is_plain = true;
                return Ok(ControlFlow::Break(()));
            };
            rows += part.len();
            let records = reading::records(path, &part, &options.columns)?;
            found.extend(records.iter().map(|(_, row)| row.columns));
            Ok(ControlFlow::Continue(()))
        })?;
        if is_plain {
            return Ok(None);
        }
        described.push((read.sha256, records::layout(read.kind, &found, &options.columns)));
    }
    if described.is_empty() {
        return Err(Error::request("there is no file of examples", "name one"));
    }
    Ok(Some((rows, joined(described))))
}

/// Which rows a run takes, ascending: of `rows` it uses `used`, holds out `held_out` of these, and takes the
/// first `wanted` of the others in the order of the seed, or in their own if it takes all.
fn choose(rows: usize, used: usize, held_out: usize, wanted: usize, seed: u64) -> Result<Vec<Taken>> {
    let kept = used.saturating_sub(held_out);
    // Four bytes for each row are all that is held of those that are not taken.
    let Ok(count) = u32::try_from(kept) else {
        return Err(Error::request("the data have more than 4 billion rows", "train on a part of them"));
    };
    let mut order: Vec<u32> = (0..count).collect();
    if wanted < kept {
        shuffle(&mut order, seed, 0);
        order.truncate(wanted);
        order.shrink_to_fit();
    }
    let mut places: Vec<(usize, usize)> =
        order.into_iter().enumerate().map(|(place, i)| (i as usize, place)).collect();
    places.sort_unstable();
    let mut places = places.into_iter().peekable();
    let (mut taken, mut i, mut trained) = (Vec::new(), 0, 0);
    for row in (0..rows).filter(|&row| used == rows || is_spread(row, used, rows)) {
        if is_spread(i, held_out, used) {
            taken.push(Taken { row, place: None });
        } else {
            if let Some((_, place)) = places.next_if(|(at, _)| *at == trained) {
                taken.push(Taken { row, place: Some(place) });
            }
            trained += 1;
        }
        i += 1;
    }
    Ok(taken)
}

/// Rows with their lines.
type Lines<'r> = Vec<(usize, std::borrow::Cow<'r, str>)>;

/// Calls `work` with the rows that are taken, in their order, part after part.
fn each<P: AsRef<Path>>(
    paths: &[P],
    taken: &[Taken],
    options: &DataOptions,
    mut work: impl FnMut(&Path, &[Taken], Lines<'_>) -> Result<()>,
) -> Result<()> {
    let (mut first, mut done) = (0, 0);
    for path in paths {
        let path = path.as_ref();
        reading::read(path, &options.columns, &mut |part| {
            let Content::Rows(rows) = part else { return Err(changed(path)) };
            let end = first + rows.len();
            let count = taken[done..].iter().take_while(|taken| taken.row < end).count();
            let chosen = &taken[done..done + count];
            if count > 0 {
                let mut own = chosen.iter().peekable();
                let rows =
                    (first..).zip(rows).filter(|(row, _)| own.next_if(|own| own.row == *row).is_some());
                work(path, chosen, rows.map(|(_, line)| line).collect())?;
            }
            (first, done) = (end, done + count);
            Ok(if done < taken.len() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        if done == taken.len() {
            return Ok(());
        }
    }
    match paths.last() {
        Some(path) => Err(changed(path.as_ref())),
        None => Ok(()),
    }
}

fn changed(path: &Path) -> Error {
    Error::file(path, "changed while it was read", "run the command again when nothing writes to it")
}
