//! Trains an adapter and measures it on examples that it was not trained on:
//!
//! `cargo run --release --example train -- fixtures/demo/model.gguf fixtures/demo/train.jsonl
//! fixtures/demo/valid.jsonl adapter.safetensors`

#![allow(clippy::print_stdout, reason = "this program talks to a terminal")]

use curmerge::{
    Base, DataOptions, Dataset, Error, Event, Result, SelectionOptions, TrainOptions, Trainer, Transformer,
    mean_loss,
};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, data, valid, out] = &arguments[..] else {
        return Err(Error::request("four arguments are needed", "give BASE DATA VALID ADAPTER"));
    };
    let base = Base::open(base)?;
    let tokenizer = base.tokenizer()?;
    let template = base.chat_template(&tokenizer)?;
    let data = Dataset::read(data, &tokenizer, template.as_ref(), &DataOptions::default())?;
    let valid = Dataset::read(valid, &tokenizer, template.as_ref(), &DataOptions::default())?;

    // The seed decides which columns and rows are drawn.
    let selection = SelectionOptions { targets: "all".into(), seed: 7, ..Default::default() };
    let mut adapter = curmerge::new_adapter(&base, &selection)?;

    // With U = 0 the model computes what the base does.
    let mut model = Transformer::new(&base)?;
    model.attach(&adapter.targets, adapter.scale)?;
    println!("loss {:.4} before training", mean_loss(&model, &valid));

    let options = TrainOptions { epochs: 1, learning_rate: 5e-3, seed: 7, ..Default::default() };
    let mut trainer = Trainer::new(&mut model, &data, Some(&valid), &options)?;
    while let Some(event) = trainer.advance()? {
        match event {
            Event::Step(step) if step.done.is_multiple_of(10) => {
                let (done, loss, rate) = (step.done, step.recent_loss, step.tokens_per_s());
                println!("step {done}: loss {loss:.4}, {rate:.0} tokens/s");
            }
            Event::Step(_) => {}
            Event::Validation(validation) => println!("loss {:.4} on other examples", validation.loss),
        }
    }
    let report = trainer.finish();

    model.store(&mut adapter.targets);
    adapter.training = Some(report.record(&data, &options));
    adapter.write(out, &base.inputs())?;
    println!("wrote {out} after {} steps", report.kept_steps);
    Ok(())
}
