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

/// Handles signals from now on. A second call has no effect.
#[expect(clippy::print_stderr, reason = "the message is for whoever pressed Ctrl-C")]
pub fn listen() -> Result<()> {
    let handler = || {
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

/// A new message: what was stopped before is past. Returns the flag that a signal sets.
pub fn next_answer() -> &'static AtomicBool {
    STOP_ANSWER.store(false, Ordering::Relaxed);
    &STOP_ANSWER
}
