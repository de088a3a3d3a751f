//! Writes small valid inputs of each kind to `corpus/`, from which the fuzzer starts.

use std::io::Result;
use std::path::Path;

use curmerge_fuzz::fixture;

fn main() -> Result<()> {
    for family in ["llama2", "llama3", "gemma3", "phi3", "qwen3"] {
        let file = fixture("arch").join(family).join("hf/tokenizer.json");
        write("tokenizer", family, &std::fs::read(file)?)?;
    }
    for template in
        ["alternating", "documents", "ended", "headers", "marked", "python", "reasoning", "renamed"]
    {
        write("template", template, &std::fs::read(fixture("chat").join(format!("{template}.jinja")))?)?;
    }
    let rows: [(&str, &[u8]); 5] = [
        ("texts", b"{\"text\": \"a cat\"}\n{\"text\": \"a dog\"}\n"),
        ("completions", b"{\"prompt\": \"a\", \"completion\": \" b\", \"choices\": [\" b\", \" c\"]}\n"),
        ("messages", b"[{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}]"),
        ("table", b"prompt,completion\n\"a, b\",c\n"),
        ("plain", b"a cat is an animal.\n"),
    ];
    rows.into_iter().try_for_each(|(name, bytes)| write("data", name, bytes))
}

fn write(target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), bytes)
}
