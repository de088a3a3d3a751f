//! What `curmerge build` prints before training.

use super::examples::Examples;
use super::method::Trainee;
use crate::Result;
use crate::base::Base;
use crate::commands::report::terminal;

/// Prints what will be trained. `resumed_at` are the steps of the run that is resumed.
pub(super) fn print(
    base: &Base,
    examples: &Examples,
    trainee: &Trainee,
    steps: u64,
    resumed_at: Option<u64>,
) -> Result<()> {
    let config = base.config();
    let data = &examples.data;
    let tokens: usize = data.examples.iter().map(|e| e.tokens.len()).sum();
    let mut text = format!(
        "base     {} ({}, {}, {} blocks of width {})\n",
        terminal::plain(&base.name()),
        base.architecture().name,
        base.container(),
        config.layers,
        config.d_model,
    );
    let count = data.examples.len();
    text += &format!(
        "data     {}: {count} examples, {tokens} tokens, loss on {}\n",
        data.layout,
        data.target_tokens()
    );
    if let (Some(valid), true) = (&examples.valid, examples.held_out) {
        let count = valid.examples.len();
        text += &format!("         {count} more are held out to measure what is learned (--no-hold-out)\n");
    }
    if data.cut > 0 {
        text += &format!("         {} examples were longer than --max-seq-len and cut\n", data.cut);
    }
    if data.dropped > 0 {
        text += &format!("         {} examples have no target tokens and were left out\n", data.dropped);
    }
    text += &format!("targets  {}\n", trainee.description());
    if let Some(tasks) = trainee.kept_tasks() {
        text += &format!("         what --keep-fisher kept of {tasks}\n");
    }
    text += &format!("steps    {steps}\n");
    if let Some(done) = resumed_at {
        text += &format!("resumed  after step {done} of {steps}\n");
    }
    terminal::print(&text)
}
