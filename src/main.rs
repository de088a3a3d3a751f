//! The program: parses the command line, runs the command, prints its error.

use std::process::ExitCode;

use curmerge::commands::report::errors;
use curmerge::commands::{self, interrupt, recipe};

/// The packages' allocator. Static binaries link musl, whose own has one lock for all threads.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "only the program prints its error")]
fn main() -> ExitCode {
    let line = recipe::command_line(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match commands::run(&line) {
        Ok(()) if interrupt::stopped() => ExitCode::from(interrupt::STATUS),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", errors::line(&error));
            ExitCode::FAILURE
        }
    }
}
