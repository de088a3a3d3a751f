//! `--config`, `--print-config`, and the recipe that an adapter records.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::folder;
use crate::support::fixture::demo;
use crate::support::program::{Ran, program, run};

/// A recipe that trains for a few steps, in a folder of its own beside links to its inputs.
fn experiment(folder: &Path, further: &str) -> std::path::PathBuf {
    for (from, to) in [("model.gguf", "model.gguf"), ("train.jsonl", "train.jsonl")] {
        fs::copy(demo(from), folder.join(to)).unwrap();
    }
    let file = folder.join("run.toml");
    let text = format!(
        "base = \"model.gguf\"\nthreads = 1\n\n[build]\ndata = [\"train.jsonl\"]\noutput = \"a.safetensors\"\n\
         targets = \"q,blk.0.ffn_down\"\nrank = 4\nmax_steps = 2\nbatch-size = 4\nlr = 1e-2\nanchor = \"none\"\n{further}"
    );
    fs::write(&file, text).unwrap();
    file
}

/// Checks that the usage was wrong, and that the error says all of these. Nothing is written.
#[track_caller]
fn wrong(ran: Ran, parts: &[&str]) {
    assert_eq!(ran.status, Some(2), "{}: {}", ran.words, ran.stderr);
    assert!(parts.iter().all(|part| ran.stderr.contains(part)), "{}: {}", ran.words, ran.stderr);
    assert!(ran.stdout.is_empty(), "{}", ran.stdout);
}

#[test]
fn an_experiment_is_one_file() {
    let scratch = folder();
    let file = experiment(
        scratch.path(),
        "\n[merge]\nadapter = [\"a.safetensors\"]\noutput = \"m.gguf\"\nscale = 0.5\n\n[eval]\nadapter = \
         [\"a.safetensors\"]\ndata = \"train.jsonl\"\n",
    );
    // Whatever the current folder, and wherever --config stands.
    curmerge!("build", "--config", file).done();
    let direct = scratch.path().join("direct.safetensors");
    let (base, data) = (demo("model.gguf"), demo("train.jsonl"));
    curmerge!(
        "build",
        base,
        "--data",
        data,
        "-o",
        direct,
        "--targets",
        "q,blk.0.ffn_down",
        "--rank",
        "4",
        "--max-steps",
        "2",
        "--batch-size",
        "4",
        "--lr",
        "0.01",
        "--anchor",
        "none"
    )
    .done();
    let bytes = |name: &str| fs::read(scratch.path().join(name)).unwrap();
    assert_eq!(bytes("a.safetensors"), bytes("direct.safetensors"));
    curmerge!("--config", file, "merge").done();
    let answer = curmerge!("eval", "--config", file, "--json").json();
    assert!(answer["loss"].as_f64().unwrap() > 0.0, "{answer}");
    let half = scratch.path().join("half.gguf");
    curmerge!("merge", base, direct, "-o", half, "--scale", "0.5").done();
    assert_eq!(bytes("m.gguf"), bytes("half.gguf"));
}

#[test]
fn the_command_line_comes_before_the_file() {
    let scratch = folder();
    let file = experiment(scratch.path(), "valid-split = 0.5\nvalid-every = 1\n");
    let other = scratch.path().join("other.jsonl");
    fs::write(&other, "{\"text\": \"a bird\"}\n").unwrap();
    let printed = |words: &[&std::ffi::OsStr]| {
        let first = ["build".as_ref(), "--config".as_ref(), file.as_os_str(), "--print-config".as_ref()];
        let text = run(&[&first, words].concat()).done().stdout;
        text.parse::<toml::Table>().unwrap()["build"].clone()
    };
    let plain = printed(&[]);
    assert_eq!(plain["lr"].as_float(), Some(0.01), "{plain}");
    assert_eq!(plain["epochs"].as_integer(), Some(2), "a default: {plain}");
    // A list replaces the file's, and what excludes an option of the file takes its place.
    let changed = printed(&["--data".as_ref(), other.as_ref(), "--valid".as_ref(), other.as_ref()]);
    assert_eq!(changed["data"].as_array().unwrap().len(), 1, "{changed}");
    assert_eq!(changed["data"][0].as_str(), other.to_str());
    assert!(
        changed.get("valid-split").is_none() && changed["valid-every"].as_integer() == Some(1),
        "{changed}"
    );
    let further = printed(&["--init".as_ref(), "x.safetensors".as_ref()]);
    assert!(further.get("rank").is_none() && further.get("targets").is_none(), "{further}");
    assert!(!scratch.path().join("a.safetensors").exists(), "--print-config ran");
}

#[test]
fn printing_opens_nothing_and_needs_nothing() {
    let words = ["build", "none.gguf", "--data", "ollama.jsonl", "--lr", "auto", "--print-config"];
    let text = run(&words.map(std::ffi::OsStr::new)).done().stdout;
    let table = text.parse::<toml::Table>().unwrap();
    assert_eq!(table["build"]["base"].as_str(), Some("none.gguf"));
    assert!(table["build"].get("output").is_none() && text.contains("\n# output = \"ADAPTER\"\n"), "{text}");
    assert!(text.contains("# clip = \"CLIP\"    # default: 1, or 10 with --protect fisher"), "{text}");
    curmerge!("inspect", "--print-config").done();
    curmerge!("merge", "--print-config", "--json").done();
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let scratch = folder();
    let file = scratch.path().join("run.toml");
    for (text, parts) in [
        ("[build]\nbase = \"m\"\nepoch = 3\n", &["run.toml:3: epoch: ", "similar key exists: 'epochs'"][..]),
        ("[build]\nfidelity = 0.5\n", &["run.toml:2: fidelity", "a key of"]),
        ("[bild]\nbase = \"m\"\n", &["run.toml:1: bild: there is no such command", "'build'"]),
        ("quark = 1\n[build]\nbase = \"m\"\n", &["run.toml:1: quark"]),
        ("[build]\nlr = \"fast\"\n", &["run.toml:2: lr: ", "use a number such as 2e-3, or auto"]),
        ("[build]\n\nselect = \"magic\"\n", &["run.toml:3: select: ", "leverage"]),
        ("[build]\nforce = 1\n", &["run.toml:2: force: it is true or false"]),
        ("[build]\nmetrics = true\n", &["run.toml:2: metrics: it has a value, FILE"]),
        ("[build]\nlr = [1, 2]\n", &["run.toml:2: lr: it has one value"]),
        ("[build]\nlr = 1979-05-27\n", &["run.toml:2: lr: ", "a date"]),
        ("[build]\nlr = { a = 1 }\n", &["run.toml:2: lr: ", "a table"]),
        ("[build]\nmax-steps = 1\nmax_steps = 2\n", &["run.toml:3: max_steps: max-steps is set twice"]),
        ("[build]\nlr = 1\nlr = 2\n", &["run.toml:3: ", "duplicate"]),
        ("[build]\nlr = \n", &["run.toml:2: "]),
        (
            "[build]\nbase = \"m\"\n",
            &["--output <ADAPTER>  (key output)", "--data <FILE|FOLDER|->  (key data)"],
        ),
        ("[merge]\nadapter = [\"a\"]\n[build]\n", &["<BASE>  (key base)"]),
        (
            "[build]\nvalid = \"a\"\nno-hold-out = true\nbase = \"m\"\ndata = \"d\"\noutput = \"o\"\n",
            &["run.toml: ", "cannot be used with"],
        ),
        ("[build]\nconfig = \"x\"\n", &["run.toml:2: config"]),
        // Clap leaves control characters out.
        ("[build]\nlr = \"a\\u001b[2Jb\"\n", &["invalid value 'ab'"]),
    ] {
        fs::write(&file, text).unwrap();
        let command = if text.starts_with("[merge]") { "merge" } else { "build" };
        wrong(curmerge!(command, "--config", file), parts);
    }
    fs::write(&file, "[build]\n[merge]\n").unwrap();
    wrong(curmerge!("--config", file), &["build --config", "merge --config"]);
    fs::write(&file, [b'a', 0xff]).unwrap();
    wrong(curmerge!("build", "--config", file), &["run.toml:1: it is not UTF-8"]);
    wrong(
        curmerge!("build", "--config", scratch.path().join("none.toml")),
        &["none.toml", "read the configuration"],
    );
    wrong(curmerge!("build", "--config", scratch.path()), &["it is a folder"]);
    fs::write(&file, format!("x = {}", "[".repeat(100_000))).unwrap();
    wrong(curmerge!("build", "--config", file), &["run.toml:1: "]);
}

#[test]
fn an_adapter_records_a_recipe_that_makes_it_again() {
    let scratch = folder();
    let file = experiment(
        scratch.path(),
        "grad-accum = 2\nno-append-eos = true\nsystem = \"Be \\\"brief\\\".\\n\"\n",
    );
    curmerge!("build", "--config", file).done();
    let adapter = scratch.path().join("a.safetensors");
    let shown = curmerge!("inspect", adapter).done().stdout;
    assert!(shown.contains("\nrecipe, for --config\n") && shown.contains("  lr = 0.01\n"), "{shown}");
    let answer = curmerge!("inspect", adapter, "--json").json();
    let Value::String(recipe) = &answer["recipe"] else { panic!("{answer}") };
    let own = scratch.path().to_str().unwrap();
    assert!(
        !recipe.contains(own) && !recipe.contains("a.safetensors") && !recipe.contains("threads"),
        "{recipe}"
    );
    assert!(recipe.contains("batch-size = 8\n"), "4 times 2: {recipe}");
    let recorded = scratch.path().join("recorded.toml");
    fs::write(&recorded, recipe).unwrap();
    let again = scratch.path().join("again.safetensors");
    let (base, data) = (demo("model.gguf"), demo("train.jsonl"));
    curmerge!("build", base, "--config", recorded, "--data", data, "-o", again).done();
    assert_eq!(fs::read(adapter).unwrap(), fs::read(again).unwrap());
}

#[test]
fn init_writes_a_recipe_that_trains() {
    let scratch = folder();
    let init = |words: &[&str]| {
        let mut command = program();
        command.current_dir(scratch.path()).arg("init").args(words).stdin(std::process::Stdio::null());
        let out = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    };
    fs::copy(demo("model.gguf"), scratch.path().join("base.gguf")).unwrap();
    let lines: Vec<String> =
        fs::read_to_string(demo("train.jsonl")).unwrap().lines().take(60).map(Into::into).collect();
    fs::write(scratch.path().join("train.jsonl"), lines.join("\n")).unwrap();
    let (status, _, error) = init(&["--base", "base.gguf"]);
    assert!(status == Some(1) && error.contains("--data is missing, and there is no terminal"), "{error}");
    let (status, _, error) = init(&["--base", "none.gguf", "--data", "train.jsonl"]);
    assert!(status == Some(1) && error.contains("none.gguf"), "{error}");
    fs::create_dir(scratch.path().join("exp")).unwrap();
    let words =
        ["--base", "base.gguf", "--data", "train.jsonl", "--memory", "2G", "-o", "exp/run.toml", "--adapter"];
    let words = [&words[..], &["exp/tone.safetensors"]].concat();
    let (status, said, error) = init(&words);
    assert_eq!(status, Some(0), "{error}");
    assert!(said.contains("60 examples") && said.contains("curmerge build --config exp/run.toml"), "{said}");
    let file = scratch.path().join("exp/run.toml");
    let text = fs::read_to_string(&file).unwrap();
    let table = text.parse::<toml::Table>().unwrap();
    assert_eq!(table["base"].as_str(), Some("../base.gguf"), "{text}");
    assert_eq!(table["build"]["output"].as_str(), Some("tone.safetensors"), "{text}");
    assert!(table["build"]["memory"].as_str().is_some_and(|size| size.ends_with('M')), "{text}");
    // What it wrote is kept.
    let (status, _, error) = init(&words);
    assert!(status == Some(1) && error.contains("--force"), "{error}");
    curmerge!("build", "--config", file, "--max-steps", "1", "--anchor", "none").done();
    curmerge!("merge", "--config", file).done();
    assert!(scratch.path().join("exp/tone-merged.gguf").is_file());
    let least = ["--base", "base.gguf", "--data", "train.jsonl", "--memory", "1M", "-o", "small.toml"];
    let (status, said, error) = init(&[&least[..], &["--task", "facts"]].concat());
    assert!(status == Some(0) && error.contains("more than the 1M"), "{said}{error}");
    let text = fs::read_to_string(scratch.path().join("small.toml")).unwrap();
    assert!(text.contains("\nepochs = 6\n") && text.contains("\nanchor = \"none\"\n"), "{text}");
}
