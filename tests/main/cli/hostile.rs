//! Models with flipped bytes in their header, or absurd configurations. Each is refused or runs. None causes
//! a panic, a crash or a huge allocation.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::json;

use super::folder;
use crate::support::fixture::{demo, family};
use crate::support::folder::copy;
use crate::support::limited::limited;

/// The bytes that hold the demo model's metadata, vocabulary and list of tensors, and its first weights.
const HEADER: u32 = 64 << 10;
/// How many damaged copies of the demo model are tried.
const FILES: usize = 300;

#[test]
fn demo_models_with_flipped_bytes_are_refused_or_run() {
    let [run, refused] = flip_bytes(&demo("model.gguf"), FILES);
    assert!(run > 20 && refused > 20, "{run} runs succeeded, {refused} were refused: the test shows little");
}

#[test]
fn other_architectures_with_flipped_bytes_are_refused_or_run() {
    for name in ["gemma3", "gpt2", "phi3-long", "qwen3moe"] {
        let [run, refused] = flip_bytes(&family(name, "model.gguf"), 60);
        assert!(run > 4 && refused > 4, "{name}: {run} runs succeeded, {refused} were refused");
    }
}

/// Flips bytes in this many copies. Returns how many runs succeeded, and how many were refused.
fn flip_bytes(model: &Path, files: usize) -> [usize; 2] {
    let folder = folder();
    let whole = fs::read(model).unwrap();
    let small = folder.path().join("data.jsonl");
    fs::write(&small, "{\"prompt\": \"a cat\", \"completion\": \" is\", \"choices\": [\" is\", \" was\"]}\n")
        .unwrap();
    let next = AtomicUsize::new(0);
    let statuses = Mutex::new([0usize; 2]);
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= files {
            return;
        }
        let mut stream = ChaCha20Rng::seed_from_u64(number as u64);
        let mut bytes = whole.clone();
        // Half of the places are in the first 3000 bytes, where most numbers and lengths are.
        let places: Vec<(usize, u8)> = (0..1 + number % 3)
            .map(|_| {
                let range = if stream.next_u32() % 2 == 0 { 3000 } else { HEADER };
                ((stream.next_u32() % range) as usize, 1 + (stream.next_u32() % 255) as u8)
            })
            .collect();
        places.iter().for_each(|&(at, bits)| bytes[at] ^= bits);
        let file = folder.path().join(format!("{number}.gguf"));
        fs::write(&file, bytes).unwrap();
        let converted = folder.path().join(format!("{number}"));
        let convert = vec!["convert", "--type", "f32", converted.to_str().unwrap()];
        for words in
            [vec!["inspect", "--second-opinion"], vec!["eval", "--data", small.to_str().unwrap()], convert]
        {
            let mut command = limited();
            command.args(&words[..1]);
            // convert takes its input before its output.
            let (before, after) =
                if words[0] == "convert" { (Some(&file), None) } else { (None, Some(&file)) };
            let output = command.args(before).args(&words[1..]).args(after);
            let output = output.stdin(Stdio::null()).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            let case = format!("file {number}, bytes {places:?}, {words:?}: {:?}: {errors}", output.status);
            match output.status.code() {
                Some(0) => statuses.lock().unwrap()[0] += 1,
                Some(1) => {
                    assert!(errors.starts_with("error: ") && errors.lines().count() == 1, "{case}");
                    assert!(errors.len() < 1000, "{case}");
                    statuses.lock().unwrap()[1] += 1;
                }
                _ => panic!("{case}"),
            }
            assert!(!errors.contains("panicked"), "{case}");
            assert!(errors.chars().all(|c| c == '\n' || !c.is_control()), "{case:?}");
        }
        fs::remove_file(file).unwrap();
        let _ = fs::remove_dir_all(converted);
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let [run, refused] = *statuses.lock().unwrap();
    println!("{run} runs succeeded, {refused} were refused");
    [run, refused]
}

/// Replaces every value of config.json that is no string by absurd ones.
#[test]
fn absurd_configurations_are_refused_or_run() {
    let folder = folder();
    let small = folder.path().join("data.jsonl");
    fs::write(&small, "{\"text\": \"a cat\"}\n").unwrap();
    let mut refused = 0;
    for name in ["gemma3-linear", "gpt2", "phi3-long", "qwen3moe", "granite"] {
        let model = folder.path().join(name);
        copy(&family(name, "hf"), &model);
        let config: serde_json::Value =
            serde_json::from_slice(&fs::read(model.join("config.json")).unwrap()).unwrap();
        for (key, _) in config.as_object().unwrap().iter().filter(|(_, value)| !value.is_string()) {
            for other in [json!(0), json!(-1), json!(1e300), json!(1u64 << 40), json!(null), json!([3, "x"])]
            {
                let mut config = config.clone();
                config[key] = other.clone();
                fs::write(model.join("config.json"), config.to_string()).unwrap();
                let output = limited().arg("eval").arg(&model).arg("--data").arg(&small).output().unwrap();
                let errors = String::from_utf8_lossy(&output.stderr);
                let case = format!("{name}, {key} {other}: {:?}: {errors}", output.status);
                match output.status.code() {
                    Some(0) => {}
                    Some(1) => refused += 1,
                    _ => panic!("{case}"),
                }
                assert!(!errors.contains("panicked") && errors.lines().count() <= 1, "{case}");
            }
        }
    }
    assert!(refused > 100, "{refused} were refused: the test shows little");
}
