//! `curmerge cache`: what is kept from one run to the next.

use clap::{Args, Subcommand};
use serde_json::json;

use super::kept::user_cache;
use super::report::terminal;
use crate::Result;

/// Options of `curmerge cache`.
#[derive(Clone, Debug, Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Remove all of it. The next run makes what it needs again.
    Clear,
}

/// Characters of a line's text about a file.
const SHOWN: usize = 80;

/// Lists the files of the user's cache, the last used first, or removes them.
pub fn run(args: &CacheArgs, json: bool) -> Result<()> {
    let Some(cache) = user_cache()? else {
        let help = "there is no folder for a cache; CURMERGE_CACHE names one\n";
        return if json { terminal::print_json(&json!({ "folder": null })) } else { terminal::print(help) };
    };
    let folder = cache.folder();
    if matches!(args.action, Some(Action::Clear)) {
        let cleared = cache.clear()?;
        return match json {
            true => terminal::print_json(
                &json!({ "folder": folder, "removed": cleared.files, "bytes": cleared.bytes }),
            ),
            false => terminal::print(&format!(
                "removed {} files of {} from {}\n",
                cleared.files,
                size(cleared.bytes),
                terminal::plain(&folder.display().to_string()),
            )),
        };
    }
    let entries: Vec<_> = cache.entries()?.into_iter().map(|entry| (entry.of(), entry)).collect();
    let bytes: u64 = entries.iter().map(|(_, entry)| entry.bytes).sum();
    if json {
        let files = entries.iter().map(
            |(of, entry)| json!({ "file": entry.path, "kind": entry.kind, "of": of, "bytes": entry.bytes }),
        );
        return terminal::print_json(&json!({
            "folder": folder, "limit": cache.limit(), "bytes": bytes, "files": files.collect::<Vec<_>>(),
        }));
    }
    let mut text = format!(
        "{}: {} files, {} of at most {}\n",
        terminal::plain(&folder.display().to_string()),
        entries.len(),
        size(bytes),
        size(cache.limit()),
    );
    for (of, entry) in &entries {
        let of = of.as_deref().unwrap_or("damaged");
        text += &format!("{:>10}  {:<8} {}\n", size(entry.bytes), entry.kind, terminal::shortened(of, SHOWN));
    }
    terminal::print(&text)
}

/// A number of bytes for people, in powers of 1000.
fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= 1000.0 && unit + 1 < units.len() {
        (size, unit) = (size / 1000.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{size:.1} {}", units[unit]) }
}
