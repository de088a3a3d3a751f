//! `build --show-sample`: prints one example with its loss tokens marked, and writes nothing.

use std::fs;

use serde_json::Value;

use super::folder;
use crate::support::fixture::{demo, family};
use crate::support::folder::copy;
use crate::support::program::run;

#[test]
fn the_first_example_is_shown_with_its_loss_marked() {
    let folder = folder();
    let (base, data) = (demo("model.gguf"), folder.path().join("chat.jsonl"));
    let line = "{\"messages\": [{\"role\": \"user\", \"content\": \"a bird\\u001b[2J\\u202e\"}, \
        {\"role\": \"assistant\", \"content\": \"a duck\\nor so\"}, {\"role\": \"user\", \"content\": \"another\"}, \
        {\"role\": \"assistant\", \"content\": \"a swan\"}]}\n";
    fs::write(&data, line.repeat(3)).unwrap();
    let ran = curmerge!("build", base, "--data", data, "--show-sample").done();
    let shown = "«a duck\nor so<|im_end|>»";
    assert!(ran.stdout.contains(shown) && ran.stdout.contains("«a swan<|im_end|>»"), "{}", ran.stdout);
    assert!(ran.stdout.contains("a bird\\u{1b}[2J\\u{202e}"), "{}", ran.stdout);
    assert!(!ran.stdout.contains('\u{1b}') && ran.stdout.matches('«').count() == 3, "{}", ran.stdout);
    assert!(ran.stdout.contains("first example: ") && !ran.stdout.contains("cut"), "{}", ran.stdout);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was written");

    let answer = curmerge!("build", base, "--data", data, "--show-sample", "--json").json();
    let (tokens, loss) = (answer["tokens"].as_array().unwrap(), answer["loss"].as_array().unwrap());
    assert_eq!(tokens.len(), loss.len());
    let learnt = loss.iter().filter(|target| *target == true).count();
    assert_eq!(answer["loss_tokens"], learnt);
    assert!(answer["text"].as_str().unwrap().contains("a duck\nor so"));
    assert!(ran.stdout.contains(&format!("{} tokens, loss on {learnt} ", tokens.len())), "{}", ran.stdout);

    let most = (tokens.len() - 4).to_string();
    let cut = curmerge!("build", base, "--data", data, "--show-sample", "--max-seq-len", most).done();
    let said = format!(": {most} tokens, loss on ");
    assert!(cut.stdout.contains(&said) && cut.stdout.contains("cut to --max-seq-len"), "{}", cut.stdout);
}

#[test]
fn data_is_read_only_up_to_the_first_example() {
    let folder = folder();
    let data = folder.path().join("data.jsonl");
    fs::write(
        &data,
        "\u{feff}\n{\"prompt\": \"a\", \"completion\": \"\"}\n{\"text\": \"a bird\"}\nno JSON\n",
    )
    .unwrap();
    let ran =
        curmerge!("build", demo("model.gguf"), "--data", &data, "--show-sample", "--no-append-eos").done();
    assert!(ran.stdout.contains("bird"), "{}", ran.stdout);
    fs::write(&data, "{\"text\": \"\"}\n\nno JSON\n").unwrap();
    let ran = curmerge!("build", demo("model.gguf"), "--data", &data, "--show-sample", "--no-append-eos");
    assert!(ran.status == Some(1) && ran.stderr.contains("data.jsonl:3: bad JSON"), "{}", ran.stderr);
    // Only the beginning of a plain text is tokenized.
    let text = folder.path().join("text.txt");
    fs::write(&text, format!("  a duck {}", "and a bird ".repeat(100_000))).unwrap();
    let ran = curmerge!("build", demo("model.gguf"), "--data", &text, "--show-sample", "--max-seq-len", "20")
        .done();
    assert!(ran.stdout.contains("a duck") && ran.stdout.contains("20 tokens"), "{}", ran.stdout);
}

#[test]
fn show_sample_excludes_the_options_of_training() {
    let options: [&[&str]; 5] =
        [&["--valid", "v"], &["--init", "a"], &["--resume"], &["--output", "a"], &["--lr", "1"]];
    for option in options {
        let mut words = vec!["build", "b", "--data", "d", "--show-sample"];
        words.extend(option);
        let words: Vec<&std::ffi::OsStr> = words.iter().map(std::ffi::OsStr::new).collect();
        let ran = crate::support::program::run(&words);
        assert!(
            ran.status == Some(2) && ran.stderr.contains("cannot be used with"),
            "{option:?} {}",
            ran.stderr
        );
    }
}

#[test]
fn without_show_sample_an_output_is_needed() {
    let ran = curmerge!("build", demo("model.gguf"), "--data", demo("train.jsonl"));
    assert!(ran.status == Some(2) && ran.stderr.contains("--output"), "{}", ran.stderr);
}

#[test]
fn a_chat_template_is_chosen_by_name_or_file() {
    let folder = folder();
    let (base, data) = (folder.path().join("base"), folder.path().join("chat.jsonl"));
    copy(&family("qwen2", "hf"), &base);
    let one = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    fs::write(&data, one).unwrap();
    let template = |mark: &str| {
        format!("{{% for m in messages %}}{mark} {{{{ m.role }}}}: {{{{ m.content }}}}\n{{% endfor %}}")
    };
    fs::write(base.join("chat_template.jinja"), template("first")).unwrap();
    fs::create_dir(base.join("additional_chat_templates")).unwrap();
    fs::write(base.join("additional_chat_templates/rag.jinja"), template("rag")).unwrap();
    let own = folder.path().join("own.jinja");
    fs::write(&own, template("own")).unwrap();
    let shown = |words: &[&str]| {
        let mut all = vec!["build".as_ref(), base.as_os_str(), "--data".as_ref(), data.as_os_str()];
        all.extend(["--show-sample", "--json"].iter().chain(words).map(std::ffi::OsStr::new));
        let ran = run(&all);
        match ran.status {
            Some(0) => serde_json::from_str::<Value>(&ran.stdout).unwrap()["text"].to_string() + &ran.stderr,
            _ => ran.refusal(),
        }
    };
    assert!(shown(&[]).contains("first user: a"), "{}", shown(&[]));
    assert!(shown(&["--chat-template", "rag"]).contains("rag user: a"));
    assert!(shown(&["--system", "Be brief."]).contains("first system: Be brief.\\nfirst user: a"));
    assert!(shown(&["--chat-template", own.to_str().unwrap()]).contains("own user: a"));
    let line = shown(&["--chat-template", "none"]);
    assert!(line.contains("'none'") && line.contains("default, rag"), "{line}");
    // Two files of one folder that differ.
    fs::write(base.join("tokenizer_config.json"), r#"{"chat_template": "x"}"#).unwrap();
    let line = shown(&[]);
    assert!(line.contains("first user: a") && line.contains("hold different chat templates"), "{line}");
    let line = curmerge!("eval", base, "--perplexity", data, "--chat-template", "rag").refusal();
    assert!(line.contains("--chat-template and --system have no effect"), "{line}");
}
