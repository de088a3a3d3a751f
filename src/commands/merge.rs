//! `curmerge merge`: W + C U R into a new model file.

use std::path::PathBuf;

use clap::Args;
use curmerge_formats::dtype::DType;
use serde_json::json;

use crate::Result;
use crate::base::Base;
use crate::merge::{MergeOptions, MergeReport, merge};
use crate::report::{progress, terminal};

/// Tensors that the report lists; the others are like the last of them or better.
const LISTED: usize = 10;

/// Options of `curmerge merge`.
#[derive(Clone, Debug, Args)]
pub struct MergeArgs {
    /// Base model: a GGUF file, a Hugging Face folder, or ollama:NAME[:TAG].
    pub base: PathBuf,
    /// The adapter.
    pub adapter: PathBuf,
    /// The model to write: a name ending in .gguf for a GGUF base, a folder for a Hugging Face folder.
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// How to store the changed tensors: f32, f16, bf16, q8_0, q6_k, q5_k, q4_k, q5_1, q5_0, q4_1, q4_0 [default: as the base stores them].
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    pub dtype: Option<DType>,
    /// Multiplies the adapter's own scale.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub scale: f32,
    /// Replace a folder that stands.
    #[arg(long)]
    pub force: bool,
    /// Merge an adapter that was trained on other values of this model, such as another quantization.
    #[arg(long)]
    pub allow_other_base: bool,
}

fn parse_type(name: &str) -> std::result::Result<DType, String> {
    DType::parse(name)
        .filter(|dtype| dtype.can_encode() && *dtype != DType::F64)
        .ok_or_else(|| "use f32, f16, bf16, q8_0, q6_k, q5_k, q4_k, q5_1, q5_0, q4_1 or q4_0".into())
}

/// Merge and report.
pub fn run(args: &MergeArgs, json: bool) -> Result<()> {
    let base = Base::open(&args.base)?;
    let adapter = super::adapter_of(&base, &args.adapter, args.allow_other_base)?;
    let options = MergeOptions {
        dtype: args.dtype,
        scale: args.scale,
        force: args.force,
        protect: vec![args.adapter.clone()],
    };
    let bar = progress::bar("merging", adapter.targets.len() as u64);
    let report = merge(&base, &adapter, &options, &args.output, |done, _| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    for line in report.warnings() {
        terminal::warn(&line);
    }
    if json {
        return terminal::print_json(&json!({
            "output": args.output,
            "tensors": report.worst_first(),
            "notes": report.notes,
        }));
    }
    terminal::print(&(table(&report) + &format!("merged   {}\n", args.output.display())))
}

fn table(report: &MergeReport) -> String {
    let worst = report.worst_first();
    let width = worst.iter().take(LISTED).map(|t| t.name.len()).max().unwrap_or(0);
    let mut text = format!("{:width$}  type   survived  noise  change\n", "tensor");
    for t in worst.iter().take(LISTED) {
        let (share, change) = (100.0 * t.share, 100.0 * t.change);
        text += &format!("{:width$}  {:5} {share:7.1} %  {:5.2}  {change:.3} %\n", t.name, t.dtype, t.noise);
    }
    if worst.len() > LISTED {
        text += &format!("and {} more that kept as much or more\n", worst.len() - LISTED);
    }
    text + "survived: share of the change W + s C U R - W left after rounding; noise: what rounding added across it,\n\
            in sizes of the change; change: its size beside W\n"
}
