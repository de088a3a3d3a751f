//! `curmerge select`: an adapter with its columns and rows chosen and U = 0.

use std::path::PathBuf;

use clap::Args;
use curmerge_formats::adapter::Adapter;
use serde_json::json;

use crate::Result;
use crate::base::Base;
use crate::cur::{Selection, binding};
use crate::report::terminal;

/// Options of `curmerge select`.
#[derive(Clone, Debug, Args)]
pub struct SelectArgs {
    /// Base model: a GGUF file, a Hugging Face folder, or ollama:NAME[:TAG].
    pub base: PathBuf,
    /// The adapter to write.
    #[arg(short, long, value_name = "ADAPTER")]
    pub output: PathBuf,
    /// Columns and rows of each matrix.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub rank: u32,
    /// Matrices to adapt: q k v o gate up down, all, or canonical names, with commas between.
    #[arg(long, default_value = "q,k,v")]
    pub targets: String,
    /// How columns and rows are drawn.
    #[arg(long, value_enum, default_value_t = Selection::Reference)]
    pub select: Selection,
    /// Seed of the draw.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// Choose and write.
pub fn run(args: &SelectArgs, json: bool) -> Result<()> {
    let base = Base::open(&args.base)?;
    let names = base.targets(&args.targets)?;
    let targets = binding::prepare(&base, &names, args.rank, args.select, args.seed)?;
    let adapter = Adapter {
        base: binding::base_info(&base, &targets),
        rank: args.rank,
        scale: 1.0,
        selection: args.select.to_string(),
        seed: args.seed,
        training: None,
        targets,
    };
    adapter.write(&args.output, &[base.path()])?;
    if json {
        let targets =
            adapter.targets.iter().map(|t| json!({ "name": t.name, "cols": t.cols, "rows": t.rows }));
        return terminal::print_json(&json!({
            "adapter": args.output,
            "rank": adapter.rank,
            "selection": adapter.selection,
            "seed": adapter.seed,
            "targets": targets.collect::<Vec<_>>(),
        }));
    }
    terminal::print(&format!(
        "chose {} columns and rows of each of {} matrices ({} selection, seed {})\nadapter {}\n",
        adapter.rank,
        adapter.targets.len(),
        adapter.selection,
        adapter.seed,
        args.output.display(),
    ))
}
