//! The limits that the system sets to this process.

use crate::{Error, Result};

/// More threads than any machine has processors, and still few enough to start.
const MAX_THREADS: usize = 1024;

/// Prepares for the limits: a file that grows beyond its limit fails as a full disk does and leaves nothing,
/// where the signal would end the program with its temporary files; and as many files may be open as the user
/// may ask for. It is called before any thread starts, since threads inherit what signals are blocked.
pub(super) fn prepare() {
    #[cfg(unix)]
    {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        use nix::sys::signal::{SigSet, Signal};
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGXFSZ);
        // Where this fails, the defaults stay.
        let _ = signals.thread_block();
        if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
            // macOS takes no more than OPEN_MAX, whatever the hard limit.
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(10240).max(soft), hard);
        }
    }
}

/// The number of threads that is not given: 0 for all processors, or what rayon's own variable says.
pub(super) fn default_threads() -> Result<usize> {
    let Some(given) = std::env::var_os("RAYON_NUM_THREADS") else { return Ok(0) };
    match given.to_str().and_then(|given| given.parse().ok()) {
        Some(threads @ 0..=MAX_THREADS) => Ok(threads),
        _ => {
            let problem = format!("RAYON_NUM_THREADS is {}", given.to_string_lossy().escape_debug());
            Err(Error::request(problem, format!("unset it, or use a number from 1 to {MAX_THREADS}")))
        }
    }
}
