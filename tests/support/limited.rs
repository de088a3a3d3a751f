//! The program with limits, for files that ask for too much.

use std::process::Command;

/// The program's limit of address space, in KiB: enough for valid models, too little for gigabytes.
const MEMORY: u32 = 2 << 20;

/// The program with little memory and one thread.
pub fn limited() -> Command {
    let program = env!("CARGO_BIN_EXE_curmerge");
    if cfg!(target_os = "linux") {
        let mut command = Command::new("sh");
        let limit = format!("ulimit -v {MEMORY}; exec \"$0\" --threads 1 \"$@\"");
        command.args(["-c", &limit, program]);
        command
    } else {
        let mut command = Command::new(program);
        command.args(["--threads", "1"]);
        command
    }
}
