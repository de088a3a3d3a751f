//! Progress on standard error: a bar on a terminal, and else a line every half minute, for the logs of runs that
//! nobody watches.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::train::{Observer, Step, Validation};

/// A bar with this label over `length` pieces of work.
pub fn bar(label: &'static str, length: u64) -> ProgressBar {
    shown(ProgressBar::new(length), label, ["{prefix} {bar:32}", "{pos}/{len} {msg} {eta} left"])
}

/// A bar with this label over bytes. Its length is set when it is known.
pub fn bytes(label: &'static str) -> ProgressBar {
    shown(ProgressBar::new(0), label, ["{prefix} {bar:32}", "{bytes}/{total_bytes} {eta} left"])
}

/// A callback that shows the finished amount, and the whole, on a bar.
pub fn follow(bar: &ProgressBar) -> impl Fn(u64, u64) {
    |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    }
}

/// A spinner with this label and the elapsed time, for work of unknown length.
pub fn spinner(label: &'static str) -> ProgressBar {
    shown(ProgressBar::new_spinner(), label, ["{prefix} {spinner}", "{elapsed}"])
}

/// Shows a bar: the parts of its template, of which a line in a log has the second alone.
fn shown(bar: ProgressBar, label: &'static str, [drawn, said]: [&str; 2]) -> ProgressBar {
    let (template, target) = match io::stderr().is_terminal() {
        true => (format!("{drawn} {said}"), ProgressDrawTarget::stderr()),
        false => (format!("{{prefix}}: {said}"), Lines::target(label)),
    };
    bar.set_draw_target(target);
    let style = ProgressStyle::with_template(&template).expect("the template is a constant");
    let bar = bar.with_style(style).with_prefix(label);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// The environment variable with the seconds between two lines; 0 for no lines.
const SECONDS: &str = "CURMERGE_PROGRESS";
const USUAL_SECONDS: u64 = 30;

/// What a bar is drawn on where there is no terminal: it prints the bar's line now and then.
#[derive(Debug)]
struct Lines {
    /// How the bar's line begins; others are messages beside it.
    label: &'static str,
    every: Duration,
    state: Mutex<Printed>,
}

#[derive(Debug)]
struct Printed {
    at: Instant,
    line: String,
}

impl Lines {
    fn target(label: &'static str) -> ProgressDrawTarget {
        let seconds = std::env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok());
        let seconds: u64 = seconds.unwrap_or(USUAL_SECONDS);
        if seconds == 0 {
            return ProgressDrawTarget::hidden();
        }
        let state = Mutex::new(Printed { at: Instant::now(), line: String::new() });
        ProgressDrawTarget::term_like(Box::new(Lines { label, every: Duration::from_secs(seconds), state }))
    }
}

/// Moves of the cursor have no meaning.
impl TermLike for Lines {
    fn width(&self) -> u16 {
        200
    }
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        match text.trim() {
            "" => Ok(()),
            bar if bar.starts_with(self.label) => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                bar.clone_into(&mut state.line);
                Ok(())
            }
            message => writeln!(io::stderr(), "{message}"),
        }
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.line.is_empty() || state.at.elapsed() < self.every {
            return Ok(());
        }
        let line = std::mem::take(&mut state.line);
        state.at = Instant::now();
        drop(state);
        writeln!(io::stderr(), "{line}")
    }
}

/// The bar of a training run: loss, tokens a second, time left.
#[derive(Debug)]
pub struct TrainingProgress {
    bar: ProgressBar,
    tokens: u64,
}

impl TrainingProgress {
    /// The bar of a run of `steps` steps, the first `done` of them finished.
    pub fn new(steps: u64, done: u64) -> Self {
        let bar = bar("training", steps).with_position(done);
        bar.reset_eta();
        Self { bar, tokens: 0 }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for TrainingProgress {
    fn step(&mut self, step: &Step) {
        self.tokens += step.tokens;
        let rate = self.tokens as f64 / self.bar.elapsed().as_secs_f64().max(1e-3);
        self.bar.set_message(format!("loss {:.4}, {rate:.0} tokens/s,", step.recent_loss));
        self.bar.set_position(step.done);
    }

    fn validation(&mut self, validation: &Validation) {
        let Validation { done, loss, .. } = validation;
        let when = if *done == 0 { "before training".into() } else { format!("after {done} steps") };
        self.bar.println(format!("validation loss {loss:.4} {when}"));
    }
}
