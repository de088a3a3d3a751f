//! Trains an adapter and measures its loss on other examples:
//!
//! `cargo run --release --example train -- fixtures/demo/model.gguf fixtures/demo/train.jsonl
//! fixtures/demo/valid.jsonl adapter.safetensors`

#![allow(clippy::print_stdout, reason = "this program talks to a terminal")]

use std::path::Path;

use curmerge::train::mean_loss;
use curmerge::{
    Base, DataOptions, Dataset, Error, Result, SelectionOptions, TrainOptions, Trainer, Transformer,
};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, data, valid, out] = &arguments[..] else {
        return Err(Error::request("four arguments are needed", "give BASE DATA VALID ADAPTER"));
    };
    let base = Base::open(Path::new(base))?;
    let tokenizer = base.tokenizer()?;
    let template = base.chat_template(&tokenizer)?;
    let data = Dataset::read(Path::new(data), &tokenizer, template.as_ref(), &DataOptions::default())?;
    let valid = Dataset::read(Path::new(valid), &tokenizer, template.as_ref(), &DataOptions::default())?;

    // Selects matrices, and their columns and rows, which the seed determines.
    let selection = SelectionOptions { targets: "all".into(), seed: 7, ..Default::default() };
    let mut adapter = curmerge::new_adapter(&base, &selection)?;

    // The frozen model, with U = 0.
    let mut model = Transformer::new(&base)?;
    model.attach(&adapter.targets, adapter.scale)?;
    println!("loss {:.4} before training", mean_loss(&model, &valid));

    let options = TrainOptions { epochs: 1, learning_rate: 5e-3, seed: 7, ..Default::default() };
    let mut trainer = Trainer::new(&mut model, &data, Some(&valid), &options)?;
    loop {
        // A validation that is due comes first, because it may end the run.
        if trainer.validation_is_due() {
            println!("loss {:.4} on other examples", trainer.validate()?.loss);
        }
        if trainer.end().is_some() {
            break;
        }
        let step = trainer.step()?;
        if step.done.is_multiple_of(10) {
            println!("step {}: loss {:.4}, {:.0} tokens/s", step.done, step.recent_loss, step.tokens_per_s());
        }
    }
    let report = trainer.finish();

    model.store(&mut adapter.targets);
    adapter.training = Some(report.record(&data, &options));
    adapter.write(Path::new(out), &base.inputs())?;
    println!("wrote {out} after {} steps", report.kept_steps);
    Ok(())
}
