//! Merges an adapter into its base and prints how much of the change survived rounding:
//!
//! `cargo run --release --example merge -- fixtures/demo/model.gguf adapter.safetensors merged.gguf`

#![allow(clippy::print_stdout, reason = "this program talks to a terminal")]

use curmerge::{Adapter, Base, BaseCheck, Error, MergeOptions, Result, Source};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, path, out] = &arguments[..] else {
        return Err(Error::request("three arguments are needed", "give BASE ADAPTER OUT"));
    };
    let base = Base::open(base)?;
    let adapter = Adapter::read(path)?;
    let sources = [(Source::Cur(&adapter), 1.0)];

    // Tensors keep the types of the base. The library does not know where the adapter was read from:
    // `protect` keeps the output from replacing it.
    let mut options = MergeOptions { protect: vec![path.into()], ..Default::default() };
    let report = match curmerge::merge(&base, &sources, &options, out, |_, _| ()) {
        // By default the base must have the values that the adapter was trained on. Another quantization of
        // the same model is the caller's decision.
        Err(Error::OtherValues { tensor, made_on, .. }) => {
            println!("'{tensor}' has other values than in '{made_on}': merging anyway");
            options.base_check = BaseCheck::AllowOtherValues;
            curmerge::merge(&base, &sources, &options, out, |_, _| ())?
        }
        other => other?,
    };
    for deviation in &report.deviations {
        println!("{} of {} tensors have other values", deviation.differing, deviation.targets);
    }
    for tensor in report.worst_first().iter().take(3) {
        let (share, fidelity) = (100.0 * tensor.share, tensor.fidelity);
        println!("{}: {share:.1} % of the change survived, fidelity {fidelity:.3}", tensor.label());
    }
    Ok(())
}
