//! Model files with bytes turned over where they describe themselves: refused or run, but never a panic, a crash or a
//! huge allocation.

use std::fs;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::fixture::demo;
use crate::folder;
use crate::limited::limited;

/// Where the demo model's metadata, vocabulary and list of tensors lie, and the first of its weights.
const HEADER: u32 = 64 << 10;
const FILES: usize = 300;

#[test]
fn models_with_bytes_turned_over_are_refused_or_run() {
    let folder = folder();
    let whole = fs::read(demo("model.gguf")).unwrap();
    let small = folder.path().join("data.jsonl");
    fs::write(&small, "{\"prompt\": \"a cat\", \"completion\": \" is\", \"choices\": [\" is\", \" was\"]}\n")
        .unwrap();
    let next = AtomicUsize::new(0);
    let statuses = Mutex::new([0usize; 2]);
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= FILES {
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
        for words in [vec!["inspect"], vec!["eval", "--data", small.to_str().unwrap()], convert] {
            let mut command = limited();
            command.args(&words[..1]);
            // The input stands before the output.
            let places = if words[0] == "convert" { (Some(&file), None) } else { (None, Some(&file)) };
            let output = command.args(places.0).args(&words[1..]).args(places.1);
            let output = output.stdin(Stdio::null()).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            let told = format!("file {number}, bytes {places:?}, {words:?}: {:?}: {errors}", output.status);
            match output.status.code() {
                Some(0) => statuses.lock().unwrap()[0] += 1,
                Some(1) => {
                    assert!(errors.starts_with("error: ") && errors.lines().count() == 1, "{told}");
                    assert!(errors.len() < 1000, "{told}");
                    statuses.lock().unwrap()[1] += 1;
                }
                _ => panic!("{told}"),
            }
            assert!(!errors.contains("panicked"), "{told}");
            assert!(errors.chars().all(|c| c == '\n' || !c.is_control()), "{told:?}");
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
    assert!(run > 20 && refused > 20, "{run} runs succeeded, {refused} were refused: the test shows little");
}
