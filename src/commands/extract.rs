//! `curmerge extract`: the difference of two models as a LoRA.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::arguments::{LayerRange, parse_layers};
use crate::base::Base;
use crate::commands::report::{progress, terminal};
use crate::export::{Format, Trained, export, no_cur, refuse_unloaded};
use crate::extract::{ExtractOptions, Extracted, Rest, extract};
use crate::{Error, Result};

/// Upper limit of the matrices in the table.
const MAX_LISTED: usize = 10;
/// Upper limit of the names in a warning.
const MAX_NAMED: usize = 6;
/// The largest rank where an error decides, if none is given.
const LARGEST_RANK: usize = 256;

/// Options of `curmerge extract`.
#[derive(Clone, Debug, Args)]
pub struct ExtractArgs {
    /// The model that the LoRA will belong to: a GGUF file, a Hugging Face folder, an ONNX file,
    /// `ollama:NAME[:TAG]`, or of the Hugging Face Hub `hf:OWNER/NAME[:FILE|QUANT][@REVISION]`.
    pub base: PathBuf,
    /// The same model with other values, in any container.
    pub tuned: PathBuf,
    /// The LoRA: a folder for PEFT, or a name that ends in .gguf for llama.cpp.
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// Rank of each matrix [default: 32]; with --max-error the largest one [default: 256].
    #[arg(long, value_name = "N")]
    pub rank: Option<u32>,
    /// Give each matrix the smallest rank that leaves at most this part of its difference, such as 0.1.
    #[arg(long, value_name = "ERROR")]
    pub max_error: Option<f64>,
    /// Matrices to extract, as for build; and output, the head, if it is not tied to the embedding.
    #[arg(long, default_value = "all")]
    pub targets: String,
    /// Only matrices of these blocks, counted from 0, such as 24-29.
    #[arg(long, value_name = "FIRST-LAST", value_parser = parse_layers)]
    pub layers: Option<LayerRange>,
    /// Replace an existing folder.
    #[arg(long)]
    pub force: bool,
}

impl ExtractArgs {
    fn options(&self) -> Result<ExtractOptions> {
        if let Some(error) = self.max_error
            && !(error > 0.0 && error < 1.0)
        {
            let problem = format!("--max-error {error} is not a part of the difference");
            return Err(Error::request(problem, "give a number between 0 and 1, such as 0.1"));
        }
        let default = self.max_error.map_or(ExtractOptions::default().rank, |_| LARGEST_RANK);
        let rank = self.rank.map_or(default, |rank| rank as usize);
        if rank == 0 {
            return Err(Error::request("a rank of 0 holds nothing", "give --rank at least 1"));
        }
        Ok(ExtractOptions {
            rank,
            max_error: self.max_error,
            targets: self.targets.clone(),
            layers: self.layers.clone(),
        })
    }
}

/// Extracts, and prints a report.
pub fn run(args: &ExtractArgs, json: bool) -> Result<()> {
    let options = args.options()?;
    let format = Format::of_output(&args.output);
    if format == Format::Curmerge {
        return Err(no_cur(&args.output));
    }
    let (base, tuned) = (super::open_any(&args.base)?, super::open_any(&args.tuned)?);
    if format != Format::Gguf {
        base.must_be_known()?;
    }
    let bar = progress::bar("extracting", 0);
    let found = extract(&base, &tuned, &options, progress::follow(&bar))?;
    bar.finish_and_clear();
    let trained = Trained::Lora(&found.lora);
    refuse_unloaded(&base, trained, format)?;
    export(&base, trained, format, &args.output, &tuned.inputs(), args.force)?;
    for line in warnings(&found, &tuned, &options) {
        terminal::warn(&line);
    }
    if json {
        return terminal::print_json(&json!({
            "output": args.output,
            "error": found.error(),
            "matrices": found.worst_first(),
            "equal": found.equal,
            "rest": found.rest,
        }));
    }
    terminal::print(&(table(&found) + &format!("extracted {}\n", args.output.display())))
}

/// The matrices with the largest errors, and the error over all.
fn table(found: &Extracted) -> String {
    let worst = found.worst_first();
    let width = worst.iter().take(MAX_LISTED).map(|m| m.name.len()).max().unwrap_or(0);
    let mut text = format!("{:width$}  rank     error    change\n", "matrix");
    for m in worst.iter().take(MAX_LISTED) {
        let change = 100.0 * m.change;
        text += &format!("{:width$}  {:4}  {:8.2e}  {change:6.3} %\n", m.name, m.rank, m.error);
    }
    if worst.len() > MAX_LISTED {
        text += &format!("and {} more with an error as small or smaller\n", worst.len() - MAX_LISTED);
    }
    let equal = match found.equal {
        0 => String::new(),
        equal => format!("; {equal} more are equal in both models"),
    };
    let (error, count) = (found.error(), worst.len());
    text + &format!(
        "error: |D - B A| / |D|, of all {count} matrices together {error:.2e}{equal}; change: |D| / |W|\n"
    )
}

/// What a user of the LoRA should know, one line each.
fn warnings(found: &Extracted, tuned: &Base, options: &ExtractOptions) -> Vec<String> {
    let mut lines = Vec::new();
    let path = tuned.path().display();
    let is_quantized =
        |name: &str| tuned.weight(name).is_ok_and(|w| !w.is_plain() || w.dtype().block_elements() > 1);
    if found.matrices.iter().any(|m| is_quantized(&m.name)) {
        lines.push(format!(
            "{path}: it is quantized, and its rounding is a part of the difference; use it unquantized if you can"
        ));
    }
    if let Some(error) = options.max_error {
        let over: Vec<_> = found.matrices.iter().filter(|m| m.error > error).collect();
        if let Some(worst) = over.iter().max_by(|a, b| a.error.total_cmp(&b.error)) {
            lines.push(format!(
                "{} of {} matrices have an error above {error} at rank {}, most {} ({:.3}); give a larger --rank",
                over.len(),
                found.matrices.len(),
                options.rank,
                worst.name,
                worst.error
            ));
        }
    }
    let of = |what: &str, pick: &dyn Fn(&Rest) -> Option<String>| {
        let names: Vec<String> = found.rest.iter().filter_map(pick).collect();
        let more = names.len().saturating_sub(MAX_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!names.is_empty())
            .then(|| format!("{what}: {}{more}", names[..names.len().min(MAX_NAMED)].join(", ")))
    };
    let differs = of("not in the LoRA, though the models differ there", &|rest| match rest {
        Rest::Differs { name, change } => Some(format!("{name} ({:.2} %)", 100.0 * change)),
        _ => None,
    });
    let shape =
        of("not in the LoRA, since the shapes differ or a value cannot be read", &|rest| match rest {
            Rest::OtherShape { name } => Some(name.clone()),
            _ => None,
        });
    let single = of("not in the LoRA, since one model alone has them", &|rest| match rest {
        Rest::OnlyBase { name } | Rest::OnlyTuned { name } => Some(name.clone()),
        _ => None,
    });
    lines.extend([differs, shape, single].into_iter().flatten());
    lines
}
