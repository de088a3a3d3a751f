//! Real models, and programs that are too large to install for a test: torch, transformers, PEFT, onnxruntime-genai, Ollama.
//!
//! Every test is ignored by default; one test says loudly what that misses. To run them all, set the variables of
//! [`support::environment::VARIABLES`] and run
//!
//! ```text
//! cargo test --release --test real -- --ignored --nocapture --test-threads=1
//! ```

#![allow(clippy::print_stdout, reason = "tests print the figures they measure")]

#[allow(dead_code)] // Each test binary uses a part.
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod architectures;
mod chat_templates;
mod ollama;
mod onnx_conversions;
mod onnx_exports;
mod onnx_written;
mod peft;
mod smollm2;
mod vocabularies;

use std::io::Write;

use support::environment::VARIABLES;

/// Says on standard error, which no test run hides, what a run without `--ignored` misses.
#[test]
fn what_a_default_run_skips_is_said_loudly() {
    if std::env::args().any(|word| word == "--ignored" || word == "--include-ignored") {
        return;
    }
    let mut lines = vec![
        "========================================================================================"
            .to_string(),
        "SKIPPED: every test against real models, torch, transformers, PEFT, onnxruntime-genai and Ollama."
            .into(),
        "To run them: cargo test --release --test real -- --ignored --nocapture --test-threads=1".into(),
        "with these variables:".into(),
    ];
    lines.extend(VARIABLES.iter().map(|(name, what)| {
        let state = if std::env::var_os(name).is_some() { "set    " } else { "NOT SET" };
        format!("  {state}  {name}: {what}")
    }));
    lines.push(lines[0].clone());
    // Not `eprintln!`, whose output the test harness keeps to itself.
    std::io::stderr().write_all(format!("\n{}\n", lines.join("\n")).as_bytes()).unwrap();
}
