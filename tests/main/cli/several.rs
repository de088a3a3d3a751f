//! Several adapters in use at once.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use curmerge::base::Base;

use super::folder;
use crate::support::adapter::{Recipe, random};
use crate::support::fixture::demo;
use crate::support::program::{Ran, run};

#[test]
fn several_adapters_run_as_their_merge_does() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let model = demo("model.gguf");
    let base = Base::open(&model).unwrap();
    let [first, second, lora, merged] = ["a", "b", "lora.gguf", "merged.gguf"].map(path);
    let whole = Recipe { scale: 1.0, ..Recipe::default() };
    let part = Recipe { targets: "q,down", rank: 3, seed: 5, ..whole };
    whole.adapter(&base, random(0.4, 1)).write(&first, &[]).unwrap();
    part.adapter(&base, random(0.6, 2)).write(&second, &[]).unwrap();
    let other = Recipe { targets: "v,down", seed: 9, ..whole }.adapter(&base, random(0.5, 3));
    other.write(path("c"), &[]).unwrap();
    curmerge!("export", path("c"), "--base", &model, "--format", "gguf", "-o", &lora).done();

    let with = |name: &Path, factor: &str| format!("{}={factor}", name.display());
    let [second, lora] = [with(&second, "-0.5"), with(&lora, "1.5")];
    curmerge!(
        "merge",
        &model,
        &first,
        &second,
        &lora,
        "-o",
        &merged,
        "--type-adapted",
        "f32",
        "--scale",
        "0.8"
    )
    .done();
    let data = demo("valid.jsonl");
    let loss = |ran: Ran| ran.json()["loss"].as_f64().unwrap();
    let beside = |adapters: &[&str]| {
        let mut words =
            vec!["eval", model.to_str().unwrap(), "--data", data.to_str().unwrap(), "--scale", "0.8"];
        words.extend(adapters.iter().flat_map(|adapter| ["--adapter", adapter]));
        words.push("--json");
        loss(run(&words.into_iter().map(OsStr::new).collect::<Vec<_>>()))
    };
    let first = first.to_str().unwrap();
    let right = loss(curmerge!("eval", &merged, "--data", &data, "--json"));
    let all = beside(&[first, &second, &lora]);
    assert!((all - right).abs() < 1e-5, "{all} {right}");
    // Nearly the same in another order, and another model without one of them.
    assert!((beside(&[&lora, &second, first]) - right).abs() < 1e-5);
    for fewer in [&[first, &second][..], &[first, &lora], &[&second, &lora]] {
        assert!((beside(fewer) - right).abs() > 1e-3, "{fewer:?}");
    }
    // The model of --against has adapters of its own.
    let text = path("text.txt");
    fs::write(&text, "A cat is an animal, and a rose is a plant. ".repeat(40)).unwrap();
    let ran = curmerge!(
        "eval",
        &model,
        "--adapter",
        first,
        "--adapter",
        &second,
        "--perplexity",
        &text,
        "--against",
        &model,
        "--against-adapter",
        &second,
        "--against-adapter",
        first,
        "--ctx",
        "64",
        "--json"
    );
    let kl = ran.json()["kl"].as_f64().unwrap();
    assert!(kl.abs() < 1e-6, "{kl}");
}
