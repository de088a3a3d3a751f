//! What is kept in the cache: `CURMERGE_CACHE`, `--no-cache`, `curmerge cache`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::folder;
use crate::support::fixture::demo;
use crate::support::program::{Ran, finish, program};

/// The program with its cache in this folder.
fn with_cache(cache: &Path) -> Command {
    let mut program = program();
    program.env("CURMERGE_CACHE", cache);
    program
}

/// A protected run of one step, with drawn indices. At rank 18 its Fisher information is kept as samples.
fn build(program: Command, out: &Path, words: &[&str]) -> Ran {
    let [base, data] = ["model.gguf", "train.jsonl"].map(|name| demo(name).to_str().unwrap().to_owned());
    let fixed = ["build", &base, "--data", &data, "-o", out.to_str().unwrap(), "--select", "reference"];
    let few = ["--targets", "q,blk.0.ffn_down", "--rank", "18", "--max-steps", "1", "--anchor-texts", "6"];
    finish(program, &fixed.iter().chain(&few).chain(words).map(OsStr::new).collect::<Vec<_>>())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn results_are_the_same_bytes_with_and_without_the_cache() {
    let folder = folder();
    let (cache, out) = (folder.path().join("the/cache"), folder.path().join("adapter.st"));
    let adapter = |ran: Ran| {
        let said = ran.done().stderr;
        let is_warning = |line: &str| line.starts_with("warning: ") && !line.contains("is replaced");
        let warned = said.lines().any(is_warning);
        (fs::read(&out).unwrap(), warned)
    };
    let (right, _) = adapter(build(with_cache(&cache), &out, &["--no-cache"]));
    assert!(!cache.exists(), "--no-cache keeps nothing");
    for _ in 0..2 {
        assert!(adapter(build(with_cache(&cache), &out, &[])) == (right.clone(), false));
    }
    let kept = files(&cache);
    let names: Vec<_> = kept.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert!(
        names.len() == 3
            && names[..2].iter().all(|name| name.starts_with("anchor-"))
            && names[2].starts_with("fisher-")
    );

    let of_cache =
        |words: &[&str]| finish(with_cache(&cache), &words.iter().map(OsStr::new).collect::<Vec<_>>());
    let list = of_cache(&["cache", "--json"]).json();
    let entries = list["files"].as_array().unwrap();
    assert!(entries.len() == 3 && list["limit"] == 4_000_000_000u64, "{list}");
    assert!(entries.iter().all(|entry| entry["bytes"].as_u64() > Some(100) && entry["of"].is_string()));
    let text = of_cache(&["cache"]).done().stdout;
    assert!(text.contains("3 files") && text.contains("fisher") && text.lines().count() == 4, "{text}");

    // Damage is found, said and repaired.
    for path in &kept {
        let whole = fs::read(path).unwrap();
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(path, damaged).unwrap();
        let ran = build(with_cache(&cache), &out, &[]).done();
        assert!(
            ran.stderr.contains(path.to_str().unwrap()) && ran.stderr.contains("made again"),
            "{}",
            ran.stderr
        );
        assert!(fs::read(&out).unwrap() == right && fs::read(path).unwrap() == whole);
    }
    // Another seed is another result.
    assert!(adapter(build(with_cache(&cache), &out, &["--seed", "1"])).0 != right);
    assert_eq!(files(&cache).len(), 6);
    let foreign = cache.join("notes.txt");
    fs::write(&foreign, "the user's").unwrap();
    let cleared = of_cache(&["cache", "clear", "--json"]).json();
    assert!(cleared["removed"] == 6 && files(&cache) == [foreign], "{cleared}");
    assert!(of_cache(&["cache", "clear"]).done().stdout.contains("removed 0 files"));
}

#[test]
fn a_folder_that_cannot_be_used_is_a_warning() {
    let folder = folder();
    let (file, out) = (folder.path().join("file"), folder.path().join("adapter.st"));
    fs::write(&file, "not a folder").unwrap();
    build(with_cache(&file), &out, &["--no-cache"]).done();
    let right = fs::read(&out).unwrap();
    let ran = build(with_cache(&file), &out, &[]).done();
    let of_cache = |line: &&str| line.starts_with("warning: ") && !line.contains("is replaced");
    let warnings: Vec<_> = ran.stderr.lines().filter(of_cache).collect();
    assert!(warnings.len() == 3 && warnings[0].contains("CURMERGE_CACHE"), "{}", ran.stderr);
    assert!(fs::read(&out).unwrap() == right);

    let mut limited = with_cache(folder.path());
    limited.env("CURMERGE_CACHE_LIMIT", "much");
    let line = finish(limited, &["cache".as_ref()]).refusal();
    assert!(line.contains("CURMERGE_CACHE_LIMIT") && line.contains("much"), "{line}");
}

#[test]
fn processes_share_a_cache() {
    let folder = folder();
    let cache = folder.path().join("cache");
    let out = |number: usize| folder.path().join(format!("{number}.st"));
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (cache, out) = (&cache, out(number));
            scope.spawn(move || build(with_cache(cache), &out, &["--threads", "1"]).done());
        }
    });
    assert!(
        files(&cache).len() == 3 && (1..3).all(|i| fs::read(out(i)).unwrap() == fs::read(out(0)).unwrap())
    );
}
