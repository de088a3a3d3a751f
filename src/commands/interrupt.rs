//! Ctrl-C and the other signals that ask a program to end: no partial output remains, a training run ends after its
//! current step and keeps what it has learnt, and a chat on a terminal goes on after the answer that it stops.

use std::sync::atomic::{AtomicBool, Ordering};

use curmerge_formats::output::remove_unfinished;

use crate::{Error, Result};

/// The exit status of an interrupted program, as shells have it for Ctrl-C.
pub const STATUS: u8 = 130;

static TRAINING: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);
static ANSWERING: AtomicBool = AtomicBool::new(false);
static STOP_ANSWER: AtomicBool = AtomicBool::new(false);
static AT_PROMPT: AtomicBool = AtomicBool::new(false);

/// Handles signals from now on. A second call has no effect.
#[expect(clippy::print_stderr, reason = "the message is for whoever pressed Ctrl-C")]
pub fn listen() -> Result<()> {
    let handler = || {
        if AT_PROMPT.load(Ordering::Relaxed) {
            // Not Ctrl-C, which an editor of lines reads as a key.
            mode::restore();
            remove_unfinished();
            std::process::exit(STATUS.into());
        }
        if ANSWERING.load(Ordering::Relaxed) && !STOP_ANSWER.swap(true, Ordering::Relaxed) {
            eprintln!("\nstopping the answer (Ctrl-C again to end the program)");
            return;
        }
        if !TRAINING.load(Ordering::Relaxed) || STOP.swap(true, Ordering::Relaxed) {
            remove_unfinished();
            std::process::exit(STATUS.into());
        }
        eprintln!("stopping after this step; the adapter will be written (Ctrl-C again to stop at once)");
    };
    match ctrlc::set_handler(handler) {
        Ok(()) | Err(ctrlc::Error::MultipleHandlers) => Ok(()),
        Err(e) => {
            Err(Error::request(format!("cannot listen for Ctrl-C: {e}"), "start curmerge from a shell"))
        }
    }
}

/// Whether Ctrl-C stopped a training.
pub fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Runs a training. It reads the flag after each step, and ends there if it is set.
pub fn while_training<T>(run: impl FnOnce(&AtomicBool) -> T) -> T {
    TRAINING.store(true, Ordering::Relaxed);
    let result = run(&STOP);
    TRAINING.store(false, Ordering::Relaxed);
    result
}

/// From now on someone talks to a model at a terminal: a signal ends an answer, and a second one the program.
pub fn talk() {
    ANSWERING.store(true, Ordering::Relaxed);
}

/// Reads a line from a terminal with `read`, which may set the terminal's mode: a signal that ends the program meanwhile
/// sets it back.
pub fn at_prompt<T>(read: impl FnOnce() -> T) -> T {
    mode::remember();
    AT_PROMPT.store(true, Ordering::Relaxed);
    let line = read();
    AT_PROMPT.store(false, Ordering::Relaxed);
    line
}

/// The mode of the terminal at standard input.
#[cfg(unix)]
mod mode {
    use std::sync::Mutex;

    use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

    static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

    pub(super) fn remember() {
        if let Ok(mut before) = BEFORE.lock() {
            *before = tcgetattr(std::io::stdin()).ok();
        }
    }

    pub(super) fn restore() {
        if let Ok(before) = BEFORE.lock()
            && let Some(before) = &*before
        {
            // Where it fails there is no terminal any more.
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

/// Consoles of Windows get back their mode from the system.
#[cfg(not(unix))]
mod mode {
    pub(super) fn remember() {}
    pub(super) fn restore() {}
}

/// A new message: what was stopped before is past. Returns the flag that a signal sets.
pub fn next_answer() -> &'static AtomicBool {
    STOP_ANSWER.store(false, Ordering::Relaxed);
    &STOP_ANSWER
}
