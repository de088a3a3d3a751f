//! `curmerge --version`, and with `--verbose` what the program was built with and what it computes with.

use serde_json::json;

use super::report::terminal;
use crate::Result;
use crate::kernels::Cpu;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints the version.
pub(super) fn print(verbose: bool, as_json: bool) -> Result<()> {
    let levels = Cpu::ALL.iter().filter(|level| **level <= Cpu::detected()).map(|level| level.name());
    let levels: Vec<&str> = levels.collect();
    let commit = Some(env!("CURMERGE_COMMIT")).filter(|commit| !commit.is_empty());
    let (target, compiler) = (env!("CURMERGE_TARGET"), env!("CURMERGE_RUSTC"));
    let profile = env!("CURMERGE_PROFILE");
    let threads = rayon::current_num_threads();
    if as_json {
        return terminal::print_json(&json!({
            "version": VERSION, "commit": commit, "target": target, "compiler": compiler, "profile": profile,
            "cpu": { "used": Cpu::current().name(), "available": levels }, "threads": threads,
        }));
    }
    let mut text = format!("curmerge {VERSION}\n");
    if verbose {
        let commit = commit.map_or(String::new(), |commit| format!(", commit {commit}"));
        text += &format!("built for {target} by {compiler}, profile {profile}{commit}\n");
        let (used, levels) = (Cpu::current().name(), levels.join(", "));
        text += &format!(
            "instructions: {used} (this processor has {levels}; --cpu chooses), threads: {threads}\n"
        );
    }
    terminal::print(&text)
}
