//! Reports what a default run skips.

use std::io::Write;

use crate::support::environment::VARIABLES;

/// Writes to standard error directly, since the harness captures `eprintln!`.
#[test]
fn a_default_run_says_loudly_what_it_skips() {
    let rule = "=".repeat(100);
    let variables = VARIABLES.iter().map(|(name, what)| {
        let state = if std::env::var_os(name).is_some() { "set" } else { "NOT SET" };
        format!("  {name} ({state}): {what}\n")
    });
    let text = format!(
        "\n{rule}\n\
         SKIPPED: every test against real models, torch, transformers, PEFT, onnxruntime-genai and Ollama.\n\
         To run them: cargo test --release --test real -- --ignored --nocapture --test-threads=1\n\
         with these variables:\n{}{rule}\n",
        variables.collect::<String>()
    );
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}
