//! Progress bars on standard error, if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::train::{Observer, Step, Validation};

/// A bar with this label over `length` pieces of work.
pub fn bar(label: &'static str, length: u64) -> ProgressBar {
    let template = "{prefix} {bar:32} {pos}/{len} {msg} {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    let bar = ProgressBar::new(length).with_style(style).with_prefix(label);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// A bar with this label over bytes. Its length is set when it is known.
pub fn bytes(label: &'static str) -> ProgressBar {
    let template = "{prefix} {bar:32} {bytes}/{total_bytes} {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    let bar = ProgressBar::new(0).with_style(style).with_prefix(label);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
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
    let style =
        ProgressStyle::with_template("{prefix} {spinner} {elapsed}").expect("the template is a constant");
    let spinner = ProgressBar::new_spinner().with_style(style).with_prefix(label);
    spinner.enable_steady_tick(Duration::from_millis(500));
    spinner
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
