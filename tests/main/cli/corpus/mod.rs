//! A corpus of hostile files: tokenizers, templates, data, side files, configurations and containers.
//!
//! Each module writes files of its kinds, by hand or by seeded damage, and says with which command the program
//! reads each. A file is refused in one line or read, within 1 GiB and 10 seconds.

mod containers;
mod damage;
mod data;
mod side_files;
mod templates;
mod tokenizers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::folder;
use crate::support::fixture::family;
use crate::support::folder::copy;
use crate::support::limited::limited_to;

/// The limits of one run: KiB of address space, and seconds on the processor.
const MEMORY: u32 = 1 << 20;
const SECONDS: u32 = 10;
/// The limit of one run by the clock, on a machine that does other work.
const WAIT: Duration = Duration::from_secs(60);

/// A hostile file, and the command that reads it.
struct Case {
    name: String,
    words: Vec<String>,
}

/// Where the files of a corpus go.
struct Corpus<'a> {
    root: &'a Path,
    cases: Vec<Case>,
}

impl Corpus<'_> {
    /// A file with these bytes. `words` are the command; `@` stands for the file.
    fn file(&mut self, name: &str, bytes: &[u8], words: &[&str]) {
        let path = self.place(name);
        fs::write(&path, bytes).unwrap();
        self.case(name, &path, words);
    }

    /// The folder of a small model of this family with other content of one file.
    fn model(&mut self, family_name: &str, name: &str, file: &str, bytes: &[u8], words: &[&str]) {
        let path = self.place(name);
        copy(&family(family_name, "hf"), &path);
        fs::create_dir_all(path.join(file).parent().unwrap()).unwrap();
        fs::write(path.join(file), bytes).unwrap();
        self.case(name, &path, words);
    }

    /// A small file with one example, that all cases share.
    fn example(&self) -> String {
        let path = self.root.join("example.jsonl");
        if !path.exists() {
            fs::write(&path, "{\"text\": \"a cat is  small,\\n \\u6771 12 \\u200d and more\"}\n").unwrap();
        }
        path.to_str().unwrap().into()
    }

    fn place(&self, name: &str) -> PathBuf {
        self.root.join(name.replace('/', "-"))
    }

    fn case(&mut self, name: &str, path: &Path, words: &[&str]) {
        let words = words.iter().map(|word| match *word {
            "@" => path.to_str().unwrap().to_owned(),
            word => word.to_owned(),
        });
        self.cases.push(Case { name: name.into(), words: words.collect() });
    }
}

#[test]
fn every_hostile_file_is_refused_in_one_line_or_read() {
    let folder = folder();
    let mut corpus = Corpus { root: folder.path(), cases: Vec::new() };
    tokenizers::write(&mut corpus);
    templates::write(&mut corpus);
    data::write(&mut corpus);
    side_files::write(&mut corpus);
    containers::write(&mut corpus);
    let cases = corpus.cases;
    assert!(cases.len() >= 300, "{} files", cases.len());

    let (next, faults, refused) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(BTreeMap::new()));
    let slowest = Mutex::new((Duration::ZERO, ""));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = Instant::now();
            let outcome = outcome(case);
            let mut slow = slowest.lock().unwrap();
            *slow = (*slow).max((started.elapsed(), &case.name));
            drop(slow);
            match outcome {
                Ok(was_refused) => {
                    let kind = case.name.split('/').next().unwrap().to_owned();
                    let mut refused = refused.lock().unwrap();
                    let [no, yes]: &mut [usize; 2] = refused.entry(kind).or_default();
                    *(if was_refused { yes } else { no }) += 1;
                }
                Err(fault) => faults.lock().unwrap().push(format!("{}: {fault}", case.name)),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} of {} files:\n{}", faults.len(), cases.len(), faults.join("\n"));
    // A corpus whose files are all refused, or none, for a reason of its own shows nothing.
    let refused = refused.into_inner().unwrap();
    println!("read and refused, by kind: {refused:?}; the slowest: {:?}", slowest.into_inner().unwrap());
    assert_eq!(refused.len(), 6, "{refused:?}");
    assert!(refused.values().all(|&[read, refused]| read > 0 && refused > 9), "{refused:?}");
}

/// Whether this is one error, perhaps after warnings.
fn is_one_line(errors: &str) -> bool {
    let mut lines = errors.lines().rev();
    lines.next().is_some_and(|last| last.starts_with("error: "))
        && lines.all(|line| line.starts_with("warning: "))
}

/// Runs the command. Returns whether it refused the file, or what is wrong with how it ended.
fn outcome(case: &Case) -> Result<bool, String> {
    let started = Instant::now();
    let mut command = limited_to(MEMORY, SECONDS);
    command.env("CURMERGE_CACHE", "").args(&case.words).stdin(Stdio::null());
    let output = command.output().unwrap();
    let took = started.elapsed();
    let errors = String::from_utf8_lossy(&output.stderr);
    let shown: String = errors.chars().take(600).collect();
    let fault = |what: &str| Err(format!("{what}: {:?} after {took:.1?}: {shown}", output.status));
    if took > WAIT {
        return fault("too slow");
    }
    match output.status.code() {
        // Warnings may be told.
        Some(0) if !errors.contains("panicked") => Ok(false),
        Some(1) if !is_one_line(&errors) => fault("not one line"),
        Some(1) if errors.len() > 1000 => fault("a long line"),
        Some(1) if errors.chars().any(|c| c != '\n' && c.is_control()) => fault("control characters"),
        Some(1) => Ok(true),
        _ => fault("not a clean end"),
    }
}
