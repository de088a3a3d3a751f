//! `curmerge verify`: every checksum of an adapter, and of the base that it was made on.

use std::path::PathBuf;

use clap::Args;
use curmerge_formats::adapter::Adapter;
use serde_json::json;

use super::adapter_kind;
use crate::commands::report::{progress, terminal};
use crate::cur::fingerprint::{self, Likeness};
use crate::{Error, Result};

/// Options of `curmerge verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// The adapter.
    pub adapter: PathBuf,
    /// The base model that it should belong to.
    #[arg(long)]
    pub base: Option<PathBuf>,
}

/// Computes and compares all checksums. Prints each tensor that differs, then fails if there is one.
pub fn run(args: &VerifyArgs, json: bool) -> Result<()> {
    let spinner = progress::spinner("checking");
    // Reading checks the digest of every tensor and of the file.
    adapter_kind::refuse_others(&args.adapter)?;
    let adapter = Adapter::read(&args.adapter)?;
    let mut text = format!("adapter  {}: sound, {} targets\n", args.adapter.display(), adapter.targets.len());
    let (mut differing, mut others_compared) = (Vec::new(), args.base.is_some());
    if let Some(path) = &args.base {
        let base = super::open_any(path)?;
        let targets = fingerprint::compare_targets(&base, &adapter);
        let count = |kind| targets.iter().filter(|&&l| l == kind).count();
        text += &format!(
            "targets  {} with the same bytes, {} with the same values in another form\n",
            count(Likeness::Bytes),
            count(Likeness::Values)
        );
        for (target, likeness) in adapter.targets.iter().zip(&targets) {
            match likeness {
                Likeness::Bytes | Likeness::Values => continue,
                Likeness::Different => text += &format!("differs  {}\n", terminal::plain(&target.name)),
                Likeness::Unfit => {
                    text += &format!("missing  {} or of another shape\n", terminal::plain(&target.name));
                }
            }
            differing.push(target.name.clone());
        }
        match fingerprint::compare_others(&base, &adapter) {
            None => {
                others_compared = false;
                text += "others   not compared: the adapter was made on another container or type\n";
            }
            Some(names) => {
                let recorded = adapter.base.other_tensors.len();
                text += &format!("others   {recorded} recorded, {} differ\n", names.len());
                for name in names {
                    text += &format!("differs  {}\n", terminal::plain(&name));
                    differing.push(name);
                }
            }
        }
    }
    spinner.finish_and_clear();
    if json {
        terminal::print_json(&json!({
            "adapter": args.adapter,
            "base": args.base,
            "sound": differing.is_empty(),
            "others_compared": others_compared,
            "differing": differing,
        }))?;
    } else {
        terminal::print(&text)?;
    }
    match (differing.first(), &args.base) {
        (Some(first), Some(base)) => Err(Error::input(
            base,
            format!("tensor '{}'", terminal::plain(first)),
            format!("not what the adapter was made on, as are {} tensors in all", differing.len()),
            "use the adapter's own base, or download it again",
        )),
        _ => Ok(()),
    }
}
