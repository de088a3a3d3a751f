//! Runs that are stopped and resumed, runs that stop early, and the logs of runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use curmerge_formats::SafeTensors;
use curmerge_formats::adapter::Adapter;
use serde_json::Value;

use super::folder;
use crate::support::fixture::demo;
use crate::support::program::{Ran, interrupt, program, run};

/// A small run with few tokens a step, and validations during and after each epoch.
struct Run {
    folder: tempfile::TempDir,
    words: Vec<String>,
}

impl Run {
    /// A run on 24 examples, 6 steps an epoch.
    fn new(words: &[&str]) -> Self {
        let folder = folder();
        let lines = |name: &str, count: usize| {
            let all = fs::read_to_string(demo(name)).unwrap();
            let path = folder.path().join(name);
            fs::write(&path, all.lines().take(count).fold(String::new(), |text, line| text + line + "\n"))
                .unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (data, valid) = (lines("train.jsonl", 24), lines("valid.jsonl", 6));
        let base = demo("model.gguf");
        let fixed = ["build", base.to_str().unwrap(), "--data", &data, "--valid", &valid, "--rank", "4"];
        let few = ["--targets", "q,blk.0.ffn_down", "--batch-size", "4", "--lr", "0.01", "--json"];
        let words = fixed.iter().chain(&few).chain(words).map(|word| word.to_string()).collect();
        Run { folder, words }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The adapter of this name.
    fn adapter(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.st"))
    }

    fn checkpoint(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.st.checkpoint"))
    }

    /// Removes these options and their values.
    fn without(mut self, options: &[&str]) -> Self {
        for option in options {
            let at = self.words.iter().position(|word| word == option).unwrap();
            self.words.drain(at..at + 2);
        }
        self
    }

    /// All arguments of a run that writes this adapter. A repeated option replaces the earlier one.
    fn words(&self, adapter: &str, more: &[&str]) -> Vec<String> {
        let mut words = self.words.clone();
        let mut more = more.iter();
        while let Some(word) = more.next() {
            match words.iter().position(|known| word.starts_with("--") && known == word) {
                Some(at) => words[at + 1] = more.next().unwrap().to_string(),
                None => words.push(word.to_string()),
            }
        }
        words.extend(["-o".to_owned(), self.adapter(adapter).to_str().unwrap().to_owned()]);
        words
    }

    fn ran(&self, adapter: &str, more: &[&str]) -> Ran {
        let words = self.words(adapter, more);
        run(&words.iter().map(std::ffi::OsStr::new).collect::<Vec<_>>())
    }

    fn bytes(&self, adapter: &str) -> Vec<u8> {
        fs::read(self.adapter(adapter)).unwrap()
    }

    /// Starts a run and waits until it saves a checkpoint that differs from the existing one.
    fn until_saved(&self, adapter: &str, more: &[&str]) -> Child {
        let before = fs::read(self.checkpoint(adapter)).ok();
        let mut child = program()
            .args(self.words(adapter, more))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while fs::read(self.checkpoint(adapter)).ok() == before {
            assert!(start.elapsed() < Duration::from_secs(120), "no checkpoint");
            assert!(child.try_wait().unwrap().is_none(), "the run ended before it saved a checkpoint");
            std::thread::sleep(Duration::from_millis(2));
        }
        child
    }

    /// Starts a run and kills it after it has saved a checkpoint.
    fn killed(&self, adapter: &str, more: &[&str]) {
        let mut child = self.until_saved(adapter, more);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// The lines of a complete JSON Lines file.
fn jsonl(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'), "the last line is incomplete");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of metrics without times.
fn timeless(lines: &[Value]) -> Vec<Value> {
    let mut lines = lines.to_vec();
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        line.retain(|key, _| key != "seconds" && key != "tokens_per_s");
    }
    lines
}

const EVERY: [&str; 6] = ["--save-every", "3", "--valid-every", "4", "--patience", "100"];

#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let run = Run::new(&["--epochs", "40"]);
    let whole_log = run.path("whole.jsonl");
    let mut words = EVERY.to_vec();
    words.extend(["--metrics", whole_log.to_str().unwrap(), "--threads", "2"]);
    let whole = run.ran("whole", &words).json();
    assert_eq!((&whole["resumed_at"], &whole["checkpoint"]), (&Value::Null, &Value::Null));

    let (log, events) = (run.path("log.jsonl"), run.path("events"));
    let mut words = EVERY.to_vec();
    words.extend(["--metrics", log.to_str().unwrap(), "--tensorboard", events.to_str().unwrap()]);
    run.killed("adapter", &words);
    assert!(!run.path("adapter.st").exists());
    let line = run.ran("adapter", &words).refusal();
    assert!(line.contains("adapter.st.checkpoint: ") && line.contains("--resume"), "{line}");
    words.push("--resume");
    run.killed("adapter", &words);
    let again = run.ran("adapter", &[&words[..], &["--threads", "1"]].concat()).json();
    assert!(run.bytes("adapter") == run.bytes("whole"), "the resumed run wrote another adapter");
    let resumed_at = again["resumed_at"].as_u64().unwrap();
    assert!(resumed_at >= 6 && resumed_at.is_multiple_of(3), "{resumed_at}");
    for key in ["losses", "validation", "tokens", "steps", "kept_steps", "loss"] {
        assert_eq!(again[key], whole[key], "{key}");
    }
    assert!(!run.checkpoint("adapter").exists(), "the checkpoint is still there");
    assert_eq!(timeless(&jsonl(&log)), timeless(&jsonl(&whole_log)));
    assert_eq!(fs::read_dir(&events).unwrap().count(), 3, "each run writes an event file");

    let line = run.ran("adapter", &words).refusal();
    assert!(line.contains("adapter.st.checkpoint: ") && line.contains("no checkpoint"), "{line}");
}

#[test]
fn a_killed_run_with_a_penalty_resumes_to_the_same_bytes() {
    for protect in ["fisher", "replay"] {
        let run = Run::new(&["--epochs", "20", "--protect", protect, "--anchor-texts", "12"]);
        run.ran("whole", &["--threads", "2"]).done();
        run.killed("adapter", &["--save-every", "3"]);
        run.ran("adapter", &["--save-every", "3", "--threads", "1", "--resume"]).done();
        assert!(
            run.bytes("adapter") == run.bytes("whole"),
            "{protect}: the resumed run wrote another adapter"
        );
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_resumes_to_the_same_bytes() {
    // Starts from a trained adapter, so that U shrinks towards its starting value.
    let run = Run::new(&["--epochs", "40"]);
    run.ran("first", &["--epochs", "1"]).done();
    let run = run.without(&["--rank", "--targets"]);
    let first = run.path("first.st");
    let init = ["--init", first.to_str().unwrap()];
    run.ran("whole", &init).done();

    let words = [&init[..], &["--save-every", "7"]].concat();
    let child = run.until_saved("adapter", &words);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps = answer["steps"].as_u64().unwrap();
    assert!((7..240).contains(&steps) && answer["end"] == "stopped", "{answer}");
    assert!(answer["checkpoint"].as_str().unwrap().ends_with("adapter.st.checkpoint"), "{answer}");
    // The run writes its adapter, and a checkpoint of the same step, although that is no seventh step.
    let stopped = Adapter::read(run.path("adapter.st")).unwrap();
    assert_eq!(stopped.training.unwrap().steps, steps);
    let again = run.ran("adapter", &[&words[..], &["--resume"]].concat()).json();
    assert_eq!(again["resumed_at"], steps);
    assert!(run.bytes("adapter") == run.bytes("whole"), "the resumed run wrote another adapter");
}

#[test]
fn resuming_with_other_inputs_or_options_is_refused() {
    let run = Run::new(&["--epochs", "40", "--save-every", "1", "--precision", "f32"]);
    run.killed("adapter", &[]);
    let saved = fs::read(run.checkpoint("adapter")).unwrap();
    let path = |name: &str| run.path(name).to_str().unwrap().to_owned();
    fs::write(path("other.jsonl"), fs::read_to_string(path("train.jsonl")).unwrap() + "\n").unwrap();
    let mut base = fs::read(demo("model.gguf")).unwrap();
    let gguf = curmerge_formats::gguf::Gguf::open(&demo("model.gguf")).unwrap();
    base[gguf.tensor("blk.2.ffn_up.weight").unwrap().offset as usize + 2] ^= 1;
    fs::write(path("other.gguf"), base).unwrap();
    let other = path("other.jsonl");
    let differences: &[(&[&str], &[&str])] = &[
        (&["--data", &other], &["--data: ", "SHA-256"]),
        (&["--valid", &other], &["--valid: ", "SHA-256"]),
        (&["--lr", "0.02"], &["--lr: ", "began with 0.01", "is 0.02"]),
        (&["--epochs", "41"], &["--epochs: ", "began with 40", "is 41"]),
        (&["--max-steps", "9"], &["--max-steps: ", "began with none", "is 9"]),
        (&["--rank", "5"], &["--rank: "]),
        (&["--seed", "1"], &["--seed: "]),
        (&["--shrink", "0.5"], &["--shrink: the run began with 1, and now it is 0.5", "--protect: "]),
        (&["--lambda", "3"], &["--lambda: ", "began with 110", "is 3"]),
        (&["--batch-size", "8"], &["--batch-size", "began with 4", "is 8"]),
        (&["--grad-accum", "2"], &["--grad-accum: ", "began with 4", "is 8"]),
        (&["--patience", "2"], &["--patience: "]),
        (&["--precision", "bf16"], &["--precision: ", "f32"]),
        (&["--targets", "q"], &["--targets: ", "began with 'blk.0.ffn_down'"]),
        (&["--targets", "q,v,blk.0.ffn_down"], &["--targets: ", "began without 'blk.0.attn_v'"]),
    ];
    for (words, says) in differences {
        let line = run.ran("adapter", &[words, &["--resume"][..]].concat()).refusal();
        assert!(line.contains("adapter.st.checkpoint: "), "{line}");
        assert!(says.iter().all(|part| line.contains(part)), "{words:?}: {line}");
    }
    let mut on_other = Run { folder: folder(), words: run.words.clone() };
    on_other.words[1] = path("other.gguf");
    fs::write(on_other.checkpoint("adapter"), &saved).unwrap();
    let line = on_other.ran("adapter", &["--resume"]).refusal();
    assert!(line.contains("base: ") && line.contains("'blk.2.ffn_up'"), "{line}");
    assert!(fs::read(run.checkpoint("adapter")).unwrap() == saved, "a refusal changed the checkpoint");

    // Without --save-every a run neither reads nor removes an existing checkpoint.
    let run = run.without(&["--save-every"]);
    run.ran("adapter", &["--max-steps", "1"]).done();
    assert!(fs::read(run.checkpoint("adapter")).unwrap() == saved);
    // A checkpoint does not replace an input.
    let data = run.checkpoint("data");
    fs::copy(demo("train.jsonl"), &data).unwrap();
    let line = run.ran("data", &["--data", data.to_str().unwrap(), "--save-every", "1"]).refusal();
    assert!(line.contains("input"), "{line}");
}

#[test]
fn a_damaged_checkpoint_is_named() {
    let run = Run::new(&["--epochs", "40", "--save-every", "1", "--patience", "9", "--valid-every", "1"]);
    run.killed("adapter", &[]);
    let path = run.checkpoint("adapter");
    let saved = fs::read(&path).unwrap();
    let file = SafeTensors::open(&path).unwrap();
    let places: Vec<(usize, String)> = ["u", "mean", "square", "best"]
        .map(|part| file.tensor(&format!("blk.0.ffn_down.{part}")).unwrap())
        .map(|tensor| (tensor.offset as usize + 5, format!("'{}'", tensor.name)))
        .into();
    let start = u64::from_le_bytes(*saved.first_chunk().unwrap()) as usize;
    drop(file);
    let refusal = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let line = run.ran("adapter", &["--resume"]).refusal();
        assert!(line.contains("adapter.st.checkpoint: "), "{line}");
        line
    };
    for (at, name) in places {
        let mut bytes = saved.clone();
        bytes[at] ^= 1;
        let line = refusal(&bytes);
        assert!(line.contains(&name) && line.contains("damaged") && line.contains("delete"), "{line}");
    }
    for at in (0..start).step_by(start / 12) {
        let mut bytes = saved.clone();
        bytes[at] ^= 1;
        refusal(&bytes);
    }
    for length in [0, 7, start, saved.len() - 1] {
        refusal(&saved[..length]);
    }
    run.ran("other", &["--save-every", "100", "--max-steps", "1"]).done();
    let line = refusal(&run.bytes("other"));
    assert!(line.contains("no checkpoint"), "{line}");
}

#[test]
fn accumulated_batches_equal_one_batch() {
    let run = Run::new(&["--epochs", "2"]);
    run.ran("one", &["--batch-size", "12"]).done();
    run.ran("three", &["--grad-accum", "3"]).done();
    run.ran("four", &["--batch-size", "3", "--grad-accum", "4"]).done();
    assert!(run.bytes("one") == run.bytes("three") && run.bytes("one") == run.bytes("four"));
    assert_eq!(Adapter::read(run.path("three.st")).unwrap().training.unwrap().batch_size, 12);
}

#[test]
fn patience_ends_a_run_and_keeps_the_best() {
    // The model soon overfits on so few examples.
    let run = Run::new(&[
        "--epochs",
        "100",
        "--shrink",
        "1",
        "--valid-every",
        "2",
        "--no-append-eos",
        "--precision",
        "f32",
    ]);
    let patient = ["--targets", "all", "--lr", "0.1", "--patience", "2"];
    let answer = run.ran("adapter", &patient).json();
    let number = |value: &Value| value.as_f64().unwrap();
    let losses: Vec<(u64, f64)> = answer["validation"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["steps"].as_u64().unwrap(), number(&entry["loss"])))
        .collect();
    assert_eq!(answer["end"], "patience", "{losses:?}");
    let best = *losses.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let steps = answer["steps"].as_u64().unwrap();
    assert_eq!((answer["kept_steps"].as_u64().unwrap(), steps), (best.0, best.0 + 4), "{losses:?}");
    assert!(losses.iter().enumerate().all(|(i, (steps, _))| *steps == 2 * (i as u64 + 1)), "{losses:?}");

    let training = Adapter::read(run.path("adapter.st")).unwrap().training.unwrap();
    assert_eq!((training.steps, training.valid_loss), (best.0, Some(best.1)));
    assert_eq!(training.losses.unwrap().len() as u64, best.0);
    let (base, adapter, valid) = (demo("model.gguf"), run.path("adapter.st"), run.path("valid.jsonl"));
    let evaluated = curmerge!("eval", base, "--adapter", adapter, "--data", valid, "--json").json();
    assert!((number(&evaluated["loss"]) - best.1).abs() < 1e-9, "{evaluated} {best:?}");

    // With more patience than there are validations, the run reaches its end and keeps the best adapter.
    let steps_text = steps.to_string();
    let to_its_end = ["--targets", "all", "--lr", "0.1", "--patience", "99", "--max-steps", &steps_text];
    let answer = run.ran("other", &to_its_end).json();
    assert_eq!((answer["end"].as_str(), answer["steps"].as_u64()), (Some("planned"), Some(steps)));
    let lowest = answer["validation"]
        .as_array()
        .unwrap()
        .iter()
        .min_by(|a, b| number(&a["loss"]).total_cmp(&number(&b["loss"])));
    assert_eq!(lowest.unwrap()["steps"], answer["kept_steps"]);

    for option in ["--patience", "--valid-every"] {
        let (base, data) = (demo("model.gguf"), demo("train.jsonl"));
        let ran = curmerge!("build", base, "--data", data, "-o", "x", option, "1");
        assert!(ran.status == Some(2) && ran.stderr.contains("--valid"), "{ran:?}");
    }
}

/// The number of records of an event file. Their lengths must add up to the size of the file.
fn records(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap();
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        let length = u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        (at, count) = (at + 16 + length as usize, count + 1);
    }
    assert_eq!(at, bytes.len());
    count
}

#[test]
fn metrics_and_events_are_complete() {
    let run = Run::new(&["--epochs", "2"]);
    let (log, events) = (run.path("log.jsonl"), run.path("logs/events"));
    fs::write(&log, "{\"step\": 1}\n").unwrap();
    let words = ["--metrics", log.to_str().unwrap(), "--tensorboard", events.to_str().unwrap()];
    let answer = run.ran("adapter", &words).json();
    let lines = jsonl(&log);
    let (steps, validations): (Vec<&Value>, Vec<&Value>) =
        lines.iter().partition(|line| line.get("valid_loss").is_none());
    assert_eq!(steps.len(), 12);
    for (i, line) in steps.iter().enumerate() {
        assert_eq!((&line["step"], &line["loss"]), (&Value::from(i + 1), &answer["losses"][i]));
        assert_eq!(line["epoch"], (i + 1) as f64 / 6.0);
        for key in ["learning_rate", "gradient_norm", "tokens", "tokens_per_s", "seconds"] {
            assert!(line[key].as_f64().unwrap() > 0.0, "{key}: {line}");
        }
    }
    let tokens: u64 = steps.iter().map(|line| line["tokens"].as_u64().unwrap()).sum();
    assert_eq!(answer["tokens"], tokens);
    let found: Vec<_> = validations.iter().map(|line| (&line["step"], &line["valid_loss"])).collect();
    let (start, reported) = (Value::from(0), answer["validation"].as_array().unwrap());
    let initial = std::iter::once((&start, &answer["initial_validation"]));
    let reported = initial.chain(reported.iter().map(|entry| (&entry["steps"], &entry["loss"])));
    assert_eq!(found, reported.collect::<Vec<_>>());

    let files: Vec<PathBuf> = fs::read_dir(&events).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    assert!(files[0].to_str().unwrap().contains("events.out.tfevents."));
    assert_eq!(records(&files[0]), 2 + 12 + 3);

    // A log replaces neither an input nor the adapter.
    for path in [run.path("train.jsonl"), run.path("adapter.st")] {
        let line = run.ran("adapter", &["--metrics", path.to_str().unwrap()]).refusal();
        assert!(line.contains(path.to_str().unwrap()), "{line}");
    }
}
