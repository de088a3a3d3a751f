//! The program with little memory, for files that ask for too much.

use std::process::Command;

/// The limit on address space in KiB: enough for valid models, too little to allocate gigabytes.
const MEMORY: u32 = 2 << 20;
/// The limit on time in seconds: much more than valid models take, too little to hang.
const SECONDS: u32 = 600;

/// The program with one thread and, on Linux, limited address space.
pub fn limited() -> Command {
    limited_to(MEMORY, SECONDS)
}

/// The program with one thread and, on Linux, at most this address space in KiB and this time on the
/// processor in seconds. Beyond them a signal ends it.
pub fn limited_to(memory: u32, seconds: u32) -> Command {
    let program = env!("CARGO_BIN_EXE_curmerge");
    if cfg!(target_os = "linux") {
        let mut command = Command::new("sh");
        let limit = format!("ulimit -v {memory}; ulimit -t {seconds}; exec \"$0\" --threads 1 \"$@\"");
        command.args(["-c", &limit, program]);
        command
    } else {
        let mut command = Command::new(program);
        command.args(["--threads", "1"]);
        command
    }
}
