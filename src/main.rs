//! The program: parses the command line, runs the command, prints its error.

use std::process::ExitCode;

use clap::Parser;
use curmerge::commands::report::errors;
use curmerge::commands::{self, CommandLine, interrupt};

/// The packages' allocator. Static binaries link musl, whose own has one lock for all threads.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "only the program prints its error")]
fn main() -> ExitCode {
    match commands::run(&CommandLine::parse()) {
        Ok(()) if interrupt::stopped() => ExitCode::from(interrupt::STATUS),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", errors::line(&error));
            ExitCode::FAILURE
        }
    }
}
