//! The program: parse the command line, call a command, print its error.

use std::process::ExitCode;

use clap::Parser;
use curmerge::commands::{self, CommandLine};
use curmerge::report::terminal;

#[expect(clippy::print_stderr, reason = "only the program prints its error")]
fn main() -> ExitCode {
    match commands::run(&CommandLine::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", terminal::plain(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}
