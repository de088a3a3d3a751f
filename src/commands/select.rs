//! `curmerge select`: an adapter with its columns and rows chosen and U = 0.

use std::path::PathBuf;

use clap::Args;
use curmerge_formats::adapter::Adapter;
use serde_json::json;

use super::arguments::SelectionArgs;
use crate::Result;
use crate::base::Base;
use crate::commands::report::{progress, terminal};
use crate::cur::new_adapter;

/// Options of `curmerge select`.
#[derive(Clone, Debug, Args)]
pub struct SelectArgs {
    /// Base model: a GGUF file, a Hugging Face folder, an ONNX file, or `ollama:NAME[:TAG]`.
    pub base: PathBuf,
    /// The adapter to write.
    #[arg(short, long, value_name = "ADAPTER")]
    pub output: PathBuf,
    /// Which columns and rows.
    #[command(flatten)]
    pub selection: SelectionArgs,
}

/// A new adapter of the base, with a spinner on a terminal.
pub(super) fn select(base: &Base, args: &SelectionArgs) -> Result<Adapter> {
    let spinner = progress::spinner("choosing columns and rows");
    let adapter = new_adapter(base, &args.options());
    spinner.finish_and_clear();
    adapter
}

/// Chooses columns and rows, and writes the adapter.
pub fn run(args: &SelectArgs, json: bool) -> Result<()> {
    let base = Base::open_any(&args.base)?;
    let adapter = select(&base, &args.selection)?;
    adapter.write(&args.output, &base.inputs())?;
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
