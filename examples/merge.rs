//! Merges an adapter into its base and prints how much of the change survived rounding:
//!
//! `cargo run --release --example merge -- fixtures/demo/model.gguf adapter.safetensors merged.gguf`

#![allow(clippy::print_stdout, reason = "this program talks to a terminal")]

use std::path::Path;

use curmerge::cur::fingerprint;
use curmerge::{Adapter, Base, Error, MergeOptions, Result, Source};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, adapter, out] = &arguments[..] else {
        return Err(Error::request("three arguments are needed", "give BASE ADAPTER OUT"));
    };
    let base = Base::open(Path::new(base))?;
    let adapter_path = Path::new(adapter);
    let adapter = Adapter::read(adapter_path)?;

    // An adapter that was trained on other values of the base, such as another quantization, is merged with a
    // warning.
    match fingerprint::check(&base, &adapter, false) {
        Err(Error::OtherValues { tensor, made_on, .. }) => {
            println!("'{tensor}' has other values than in '{made_on}': merging anyway");
            fingerprint::check(&base, &adapter, true)?;
        }
        other => drop(other?),
    }

    // Tensors keep the types of the base. The output never replaces an input.
    let options = MergeOptions { protect: vec![adapter_path.into()], ..Default::default() };
    let sources = [(Source::Cur(&adapter), 1.0)];
    let report = curmerge::merge(&base, &sources, &options, Path::new(out), |done, of| {
        if done == of {
            println!("{of} steps done");
        }
    })?;
    for tensor in report.worst_first().iter().take(3) {
        println!("{}: {:.1} % of the change survived", tensor.label(), 100.0 * tensor.share);
    }
    Ok(())
}
