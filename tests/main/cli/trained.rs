//! build, eval, inspect and demo: kinds of data, `--init`, numbers of steps, validation and printed results.

use std::fs;
use std::path::Path;

use curmerge_formats::adapter::Adapter;
use serde_json::json;

use super::{folder, small_adapter};
use crate::support::fixture::demo;
use crate::support::program::run;

#[test]
fn every_kind_of_data_trains() {
    let folder = folder();
    let text = "a small bird that lives near water and eats fish";
    // A file, a line of it, and whether that has more than the 24 tokens of --max-seq-len.
    let kinds = [
        ("text.jsonl", format!("{{\"text\": \"{text}\"}}\n"), false),
        ("long.jsonl", format!("{{\"text\": \"{text}; {text}\"}}\n"), true),
        (
            "pairs.jsonl",
            format!("{{\"prompt\": \"Definition: {text}\\nKind:\", \"completion\": \" animal\"}}\n"),
            false,
        ),
        (
            "long-pairs.jsonl",
            format!("{{\"prompt\": \"{text}; {text}\", \"completion\": \" animal\"}}\n"),
            true,
        ),
        (
            "chat.jsonl",
            format!(
                "{{\"messages\": [{{\"role\": \"user\", \"content\": \"a bird\"}}, \
                 {{\"role\": \"assistant\", \"content\": \"{text}\"}}]}}\n"
            ),
            true,
        ),
        ("plain.txt", format!("{text}\n"), false),
        ("no-ending", format!("{text}\n"), false),
    ];
    for (name, content, long) in kinds {
        let (data, out) = (folder.path().join(name), folder.path().join("adapter.st"));
        fs::write(&data, content.repeat(8)).unwrap();
        let base = demo("model.gguf");
        let answer = curmerge!(
            "build",
            base,
            "--data",
            data,
            "--valid",
            data,
            "-o",
            out,
            "--targets",
            "all",
            "--lr",
            "0.02",
            "--epochs",
            "6",
            "--batch-size",
            "4",
            "--max-seq-len",
            "24",
            "--json"
        )
        .json();
        let losses: Vec<f64> = serde_json::from_value(answer["losses"].clone()).unwrap();
        assert_eq!(losses.len() as u64, answer["steps"].as_u64().unwrap(), "{name}");
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(last < 0.9 * first, "{name}: loss from {first} to {last}");
        let validation = answer["validation"].as_array().unwrap();
        assert_eq!(validation.len(), 6, "{name}: not one validation an epoch");
        let valid = |i: usize| validation[i]["loss"].as_f64().unwrap();
        assert!(valid(5) < valid(0), "{name}: {validation:?}");
        let cut = answer["examples_cut"].as_u64().unwrap();
        assert_eq!(cut, if long { 8 } else { 0 }, "{name}: examples cut");
        assert_eq!(Adapter::read(&out).unwrap().training.unwrap().losses, Some(losses));
    }
}

#[test]
fn init_continues_training_on_the_same_values_only() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (first, second) = (path("first.st"), path("second.st"));
    small_adapter(&first);
    let (base, data) = (demo("model.gguf"), demo("train.jsonl"));
    curmerge!(
        "build",
        base,
        "--data",
        data,
        "-o",
        second,
        "--init",
        first,
        "--max-steps",
        "1",
        "--lr",
        "1e-9"
    )
    .done();
    let (a, b) = (Adapter::read(&first).unwrap(), Adapter::read(&second).unwrap());
    assert_eq!((a.rank, a.targets.len()), (b.rank, b.targets.len()));
    for (a, b) in a.targets.iter().zip(&b.targets) {
        assert_eq!((&a.name, &a.rows, &a.cols), (&b.name, &b.rows, &b.cols));
        assert!(a.u.iter().any(|u| *u != 0.0));
        let moved = a.u.iter().zip(&b.u).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(moved < 1e-6, "{}: U moved by {moved} in a step of nearly zero length", a.name);
    }
    // An adapter of a base with other values is refused.
    let other = path("other.gguf");
    let mut bytes = fs::read(&base).unwrap();
    let tensor =
        curmerge_formats::gguf::Gguf::open(&base).unwrap().tensor("blk.0.attn_q.weight").unwrap().offset;
    bytes[tensor as usize + 2] ^= 1;
    fs::write(&other, bytes).unwrap();
    let line = curmerge!("build", other, "--data", data, "-o", path("third.st"), "--init", first).refusal();
    assert!(line.contains("'blk.0.attn_q'"), "{line}");
}

#[test]
fn epochs_and_max_steps_set_the_number_of_steps() {
    let folder = folder();
    let (data, out) = (folder.path().join("data.txt"), folder.path().join("adapter.st"));
    fs::write(&data, "one two three four five six seven eight nine ten ".repeat(20)).unwrap();
    let steps = |words: [&str; 4]| {
        let base = demo("model.gguf");
        let [a, b, c, d] = words;
        let ran = curmerge!(
            "build",
            base,
            "--data",
            data,
            "-o",
            out,
            "--max-seq-len",
            "32",
            "--batch-size",
            "2",
            a,
            b,
            c,
            d,
            "--json"
        );
        let answer = ran.json();
        (answer["steps"].as_u64().unwrap(), answer["examples"].as_u64().unwrap())
    };
    let (one, examples) = steps(["--epochs", "1", "--seed", "0"]);
    assert_eq!(one, examples.div_ceil(2));
    assert_eq!(steps(["--epochs", "2", "--seed", "0"]).0, 2 * one);
    assert_eq!(steps(["--epochs", "2", "--max-steps", "3"]).0, 3);
}

#[test]
fn eval_prints_perplexity_accuracy_and_loss() {
    let folder = folder();
    let (base, text, test) = (demo("model.gguf"), demo("text.txt"), demo("test.jsonl"));
    let both = curmerge!(
        "eval",
        base,
        "--perplexity",
        text,
        "--ctx",
        "128",
        "--chunks",
        "4",
        "--data",
        test,
        "--json"
    )
    .json();
    assert_eq!(both["chunks"], 4);
    assert_eq!(both["perplexity_predictions"], 4 * 63);
    let perplexity = both["perplexity"].as_f64().unwrap();
    assert!(perplexity > 1.0 && perplexity < 500.0, "{perplexity}");
    let lines = fs::read_to_string(&test).unwrap().lines().count();
    assert_eq!(both["examples"], lines);
    let accuracy = both["accuracy"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&accuracy) && (accuracy * lines as f64).fract() < 1e-9);

    let ran = curmerge!("eval", base, "--perplexity", text, "--ctx", "128", "--chunks", "4").done();
    assert!(ran.stdout.starts_with(&format!("perplexity {perplexity:.4} +/- ")), "{}", ran.stdout);
    let ran = curmerge!("eval", base, "--data", test).done();
    assert!(
        ran.stdout.starts_with(&format!("accuracy {accuracy:.4} of {lines} examples\n")),
        "{}",
        ran.stdout
    );
    let pairs = demo("train.jsonl");
    let few = folder.path().join("few.jsonl");
    let first: Vec<String> =
        fs::read_to_string(&pairs).unwrap().lines().take(40).map(str::to_owned).collect();
    fs::write(&few, first.join("\n")).unwrap();
    let loss = curmerge!("eval", base, "--data", few, "--json").json();
    assert_eq!(loss["examples"], 40);
    assert!(loss["loss"].as_f64().unwrap() > 0.0);
    let line = curmerge!("eval", base, "--perplexity", few, "--ctx", "1000000").refusal();
    assert!(line.contains("--ctx"), "{line}");
}

#[test]
fn the_demo_trains_evaluates_merges_and_exports() {
    let folder = folder();
    let out = folder.path().join("demo");
    let ran = curmerge!("demo", "-o", out).done();
    for line in ["$ curmerge build ", "$ curmerge merge ", "$ curmerge export ", "\nmerged ", "\ndone in "] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
    let score = |name: &str| -> (f64, f64) {
        let line = ran.stdout.lines().rev().find(|line| line.starts_with(name));
        let numbers: Vec<f64> =
            line.unwrap().split_whitespace().filter_map(|word| word.parse().ok()).collect();
        (numbers[0], numbers[1])
    };
    let [base, adapted, merged] = ["base  ", "base + adapter", "merged  "].map(score);
    println!("accuracy and perplexity: base {base:?}, with the adapter {adapted:?}, merged {merged:?}");
    assert!(
        adapted.0 > base.0 + 0.1 && merged.0 > base.0 + 0.1,
        "the demo does not improve accuracy: {base:?} {merged:?}"
    );
    assert!((merged.0 - adapted.0).abs() <= 0.02, "merged model and adapter differ: {adapted:?} {merged:?}");
    for name in ["base.gguf", "adapter.safetensors", "merged.gguf", "lora.gguf"] {
        curmerge!("inspect", out.join(name)).done();
    }
    curmerge!("verify", out.join("adapter.safetensors"), "--base", out.join("base.gguf")).done();
    assert!(fs::read(out.join("base.gguf")).unwrap() == fs::read(demo("model.gguf")).unwrap());
}

#[test]
fn layers_limits_the_targets_and_cached_activations_do_not_change_results() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (model, data) = (demo("model.gguf"), demo("train.jsonl"));
    let small = path("small.jsonl");
    let lines: Vec<String> =
        fs::read_to_string(data).unwrap().lines().take(64).map(|line| format!("{line}\n")).collect();
    fs::write(&small, lines.concat()).unwrap();
    let build = |out: &Path, memory: &str| {
        curmerge!(
            "build",
            model,
            "--data",
            small,
            "--valid",
            small,
            "--layers",
            "2-3",
            "--targets",
            "v,down",
            "--epochs",
            "3",
            "--memory",
            memory,
            "-o",
            out,
            "--json"
        )
        .json()
    };
    let (kept, again) = (path("kept.st"), path("again.st"));
    let answer = build(&kept, "1G");
    assert_eq!(answer["steps"], 24);
    let validation = |epoch: usize| answer["validation"][epoch]["loss"].as_f64().unwrap();
    assert!(validation(2) < validation(0), "{answer}");
    // Recomputed activations equal cached ones.
    build(&again, "1");
    let adapters = [&kept, &again].map(|file| Adapter::read(file).unwrap());
    assert_eq!(adapters[0].targets, adapters[1].targets);
    let names: Vec<&str> = adapters[0].targets.iter().map(|target| target.name.as_str()).collect();
    assert_eq!(names, ["blk.2.attn_v", "blk.2.ffn_down", "blk.3.attn_v", "blk.3.ffn_down"]);
    let line = curmerge!("select", model, "-o", path("x"), "--layers", "3-4").refusal();
    assert!(line.contains("no block 4") && line.contains("0 to 3"), "{line}");
}

#[test]
fn eval_generate_counts_the_answers_that_match_exactly() {
    let folder = folder();
    let (base, data) = (demo("model.gguf"), folder.path().join("questions.jsonl"));
    let written = |prompt: &str, chat: bool| {
        let options: &[&str] = if chat { &["--chat"] } else { &[] };
        let mut words = vec!["run", base.to_str().unwrap(), "-p", prompt, "-n", "6", "--exact", "--json"];
        words.extend(options);
        let words: Vec<&std::ffi::OsStr> = words.iter().map(std::ffi::OsStr::new).collect();
        let text = run(&words).json()["text"].as_str().unwrap().to_owned();
        text.trim_start().lines().next().unwrap_or_default().trim().to_owned()
    };
    let prompts = [
        "Definition: a large wild cat with a striped coat\nKind:",
        "a small",
        "Definition: to move fast on foot\nKind:",
        "the",
    ];
    let mut expected: Vec<String> = prompts.iter().map(|prompt| written(prompt, false)).collect();
    expected.push(written(prompts[1], true));
    assert!(expected.iter().all(|answer| !answer.is_empty()), "{expected:?}");
    let mut lines: Vec<String> = prompts
        .iter()
        .zip(&expected)
        .map(|(prompt, answer)| json!({ "prompt": prompt, "completion": format!(" {answer} ") }).to_string())
        .collect();
    let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
    let turns = [turn("user", prompts[1]), turn("assistant", &expected[4])];
    lines.push(json!({ "messages": turns }).to_string());
    // A wrong answer, and one that is only the beginning of what the model writes.
    lines.push(json!({ "prompt": prompts[1], "completion": "Nobody says this" }).to_string());
    lines.push(json!({ "prompt": prompts[1], "completion": &expected[1][..1] }).to_string());
    fs::write(&data, lines.join("\n")).unwrap();
    let found = curmerge!("eval", base, "--data", data, "--generate", "--max-tokens", "6", "--json").json();
    assert!((found["exact_match"].as_f64().unwrap() - 5.0 / 7.0).abs() < 1e-9, "{found}");
    let answers = found["answers"].as_array().unwrap();
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(answer["right"], i < 5, "{i}: {answer}");
        assert_eq!(answer["text"], expected[if i < 5 { i } else { 1 }].as_str(), "{i}");
    }
    let ran = curmerge!("eval", base, "--data", data, "--generate", "--max-tokens", "6").done();
    assert_eq!(ran.stdout, "exact match 0.7143 of 7 answers\n");
}

#[test]
fn eval_generate_refuses_what_has_no_answer() {
    let folder = folder();
    let (base, data) = (demo("model.gguf"), folder.path().join("questions.jsonl"));
    let long = json!({ "prompt": "word ".repeat(3000), "completion": "a" }).to_string();
    for (line, wanted) in [
        (r#"{"text": "a"}"#, "asks nothing"),
        (r#"{"prompt": "a", "completion": " "}"#, "empty or longer than a line"),
        (r#"{"prompt": "a", "completion": "b\nc"}"#, "empty or longer than a line"),
        (r#"{"messages": [{"role": "user", "content": "a"}]}"#, "no answer"),
        (r#"{"messages": [{"role": "assistant", "content": "a"}]}"#, "no answer"),
        (&long, "context"),
    ] {
        fs::write(&data, line).unwrap();
        let refusal = curmerge!("eval", base, "--data", data, "--generate").refusal();
        assert!(refusal.contains(":1: ") && refusal.contains(wanted), "{line}: {refusal}");
    }
    let plain = folder.path().join("plain.txt");
    fs::write(&plain, "no questions").unwrap();
    let refusal = curmerge!("eval", base, "--data", plain, "--generate").refusal();
    assert!(refusal.contains("plain text"), "{refusal}");
}
