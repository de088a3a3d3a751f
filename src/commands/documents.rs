//! `curmerge completions` and `curmerge man`: what shells and manuals need of the command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use curmerge_formats::output::OutputFile;

use super::CommandLine;
use super::report::terminal;
use crate::{Error, Result};

/// Options of `curmerge completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell that reads them.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Options of `curmerge man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// The folder that gets the pages, a page a command; it is created. Pages of the same names are replaced.
    pub folder: PathBuf,
}

/// Prints the completions of a shell.
pub(super) fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut bytes = Vec::new();
    clap_complete::generate(args.shell, &mut CommandLine::command(), "curmerge", &mut bytes);
    terminal::print(&String::from_utf8_lossy(&bytes))
}

/// Writes the pages of a manual.
pub(super) fn man(args: &ManArgs) -> Result<()> {
    std::fs::create_dir_all(&args.folder).map_err(|e| Error::io(&args.folder, "create", e))?;
    let mut command = CommandLine::command();
    command.build();
    let mut pages = vec![("curmerge".to_owned(), command.clone())];
    for own in command.get_subcommands().filter(|own| own.get_name() != "help") {
        pages.push((format!("curmerge-{}", own.get_name()), own.clone()));
    }
    for (name, command) in pages {
        let path = args.folder.join(format!("{name}.1"));
        let mut page = Vec::new();
        let man = clap_mangen::Man::new(command).source(concat!("curmerge ", env!("CARGO_PKG_VERSION")));
        man.render(&mut page).map_err(|e| Error::io(&path, "write", e))?;
        let mut file = OutputFile::create(&path, &[])?;
        file.append(&page)?;
        file.commit()?;
    }
    Ok(())
}
