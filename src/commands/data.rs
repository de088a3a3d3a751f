//! `curmerge data`: what files of examples hold.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::build::examples::ExampleArgs;
use super::build::sample;
use super::report::terminal;
use crate::Result;
use crate::train::data::{self, Columns, Dataset, Overview};

/// Samples that are shown.
const SAMPLES: usize = 3;
/// Characters of a sample that are shown without a model.
const SAMPLE_CHARACTERS: usize = 600;
/// The width of the longest bar of a histogram.
const BAR: usize = 40;

/// Options of `curmerge data`.
#[derive(Clone, Debug, Args)]
pub struct DataArgs {
    /// Files of examples, folders of them, or `hf:OWNER/NAME[:FILE|FOLDER|SPLIT]`; `-` is standard input.
    #[arg(required = true, value_name = "FILE|FOLDER|-")]
    pub files: Vec<PathBuf>,
    /// The model that is to learn them: lengths are then in its tokens, and samples show on which tokens the loss is.
    #[arg(long)]
    pub base: Option<PathBuf>,
    /// How examples are made, with --base.
    #[command(flatten)]
    pub examples: ExampleArgs,
}

/// What is shown.
struct Shown {
    /// The unit of the lengths.
    unit: &'static str,
    lengths: Vec<usize>,
    /// Further lines: names and texts.
    lines: Vec<(&'static str, String)>,
    samples: Vec<String>,
    json: serde_json::Value,
}

/// Prints it.
pub fn run(args: &DataArgs, json: bool) -> Result<()> {
    let files = data::files(&args.files)?;
    let shown = match &args.base {
        Some(base) => with_model(args, base, &files)?,
        None => {
            args.examples.template.must_be_unused("--base")?;
            without_model(&files, &args.examples.columns.columns())?
        }
    };
    if json {
        return terminal::print_json(&shown.json);
    }
    let mut text = String::new();
    for (name, line) in &shown.lines {
        text += &format!("{name:11}{}\n", terminal::plain(line));
    }
    text += &format!("{:11}{} {}\n", "lengths", summary(&shown.lengths), shown.unit);
    text += &histogram(&shown.lengths);
    for (number, sample) in shown.samples.iter().enumerate() {
        text += &format!("\n--- sample {} ---\n{sample}\n", number + 1);
    }
    terminal::print(&text)
}

fn without_model(files: &[PathBuf], columns: &Columns) -> Result<Shown> {
    let all = files.iter().map(|file| Overview::read(file, columns)).collect::<Result<Vec<_>>>()?;
    let mut lines = Vec::new();
    for (file, one) in files.iter().zip(&all) {
        lines.push(("file", format!("{}: {}, {} rows", file.display(), one.layout, one.texts.len())));
    }
    let texts: Vec<&String> = all.iter().flat_map(|one| &one.texts).collect();
    let bytes: usize = all.iter().map(|one| one.bytes).sum();
    let mut seen = HashSet::new();
    let duplicates = texts.iter().filter(|text| !seen.insert(text.as_str())).count();
    lines.push(("rows", texts.len().to_string()));
    lines.push(("duplicates", format!("{duplicates} rows have the text of an earlier one")));
    let lengths: Vec<usize> = texts.iter().map(|text| text.chars().count()).collect();
    let shown = |text: &&String| {
        let lines = text.split('\n').map(terminal::plain).collect::<Vec<_>>().join("\n");
        let cut = lines.char_indices().nth(SAMPLE_CHARACTERS).map(|(at, _)| at);
        cut.map_or_else(|| lines.clone(), |at| lines[..at].to_owned() + "...")
    };
    let samples: Vec<String> = spread(texts.len()).map(|at| shown(&texts[at])).collect();
    let layouts: Vec<&String> = all.iter().map(|one| &one.layout).collect();
    let json = json!({
        "files": files.len(), "layouts": layouts, "rows": texts.len(), "bytes": bytes, "duplicates": duplicates,
        "characters": figures(&lengths), "samples": samples,
    });
    Ok(Shown { unit: "characters", lengths, lines, samples, json })
}

fn with_model(args: &DataArgs, base: &Path, files: &[PathBuf]) -> Result<Shown> {
    let mut base = super::open(base)?;
    args.examples.template.apply(&mut base)?;
    let tokenizer = base.tokenizer()?;
    let template = base.chat_template(&tokenizer)?;
    let options = args.examples.options(&base);
    let data = Dataset::read_all(files, &tokenizer, template.as_ref(), &options)?;
    let lengths = lengths(&data);
    let (tokens, targets) = (lengths.iter().sum::<usize>(), data.target_tokens());
    let mut seen = HashSet::new();
    let duplicates = data.examples.iter().filter(|example| !seen.insert(&example.tokens)).count();
    let [begin, end] = sample::marks();
    let samples: Vec<String> = spread(data.examples.len())
        .map(|at| sample::marked(&data.examples[at], &tokenizer, begin, end))
        .collect();
    let share = 100.0 * targets as f64 / tokens.max(1) as f64;
    let lines = vec![
        ("data", data.layout.clone()),
        (
            "examples",
            format!("{} ({} without anything to learn are left out)", data.examples.len(), data.dropped),
        ),
        (
            "tokens",
            format!("{tokens}, loss on {targets} of them ({share:.1} %), between {begin} and {end} below"),
        ),
        ("cut", format!("{} examples are longer than --max-seq-len {}", data.cut, options.max_seq_len)),
        ("duplicates", format!("{duplicates} examples have the tokens of an earlier one")),
    ];
    let json = json!({
        "files": files.len(), "layouts": [data.layout], "examples": data.examples.len(), "dropped": data.dropped,
        "tokens": tokens, "loss_tokens": targets, "cut": data.cut, "duplicates": duplicates,
        "lengths": figures(&lengths), "samples": samples,
    });
    // The marks of a terminal must stay as they are.
    Ok(Shown { unit: "tokens", lengths, lines, samples, json })
}

/// The tokens of each example.
pub(super) fn lengths(data: &Dataset) -> Vec<usize> {
    data.examples.iter().map(|example| example.tokens.len()).collect()
}

/// The first of some, one from the middle, and the last.
fn spread(count: usize) -> impl Iterator<Item = usize> {
    let shown = SAMPLES.min(count);
    (0..shown).map(move |i| if shown < 2 { 0 } else { i * (count - 1) / (shown - 1) })
}

/// The least, the middle, that which one in twenty exceeds, and the greatest.
fn quantiles(lengths: &[usize]) -> [usize; 4] {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    [0, last / 2, last * 19 / 20, last].map(|at| sorted.get(at).copied().unwrap_or(0))
}

/// Lengths in words.
pub(super) fn summary(lengths: &[usize]) -> String {
    let [least, middle, most, greatest] = quantiles(lengths);
    format!("{least} to {greatest}, half of them at most {middle}, 95 % at most {most}")
}

fn figures(lengths: &[usize]) -> serde_json::Value {
    let [least, middle, most, greatest] = quantiles(lengths);
    json!({ "least": least, "median": middle, "95th": most, "greatest": greatest })
}

/// How many lengths are between two powers of two, a line each.
fn histogram(lengths: &[usize]) -> String {
    let class = |length: usize| length.checked_ilog2().map_or(0, |log| log as usize);
    let (mut counts, classes) = ([0usize; usize::BITS as usize], lengths.iter().map(|&length| class(length)));
    classes.for_each(|class| counts[class] += 1);
    let used = |count: &usize| *count > 0;
    let (Some(first), Some(last)) = (counts.iter().position(used), counts.iter().rposition(used)) else {
        return String::new();
    };
    let greatest = counts.iter().max().copied().unwrap_or(1).max(1);
    let line = |class: usize| {
        let from = if class == 0 { 0 } else { 1 << class };
        let count = counts[class];
        let bar = "#".repeat((count * BAR).div_ceil(greatest));
        format!("{from:>11} to {:<8} {count:>7} {bar}\n", (1u64 << (class + 1)) - 1)
    };
    (first..=last).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_counted_between_powers_of_two() {
        let text = histogram(&[1, 2, 3, 3, 9]);
        let counts: Vec<&str> = text.lines().map(|line| line.split_whitespace().nth(3).unwrap()).collect();
        assert_eq!(counts, ["1", "3", "0", "1"], "{text}");
        assert_eq!(quantiles(&(1..=101).collect::<Vec<_>>()), [1, 51, 96, 101]);
        assert_eq!((quantiles(&[]), histogram(&[])), ([0; 4], String::new()));
        assert_eq!(spread(10).collect::<Vec<_>>(), [0, 4, 9]);
        assert_eq!((spread(1).collect::<Vec<_>>(), spread(0).count()), (vec![0], 0));
    }
}
