//! An input that another program changes while it is used is an error, and nothing is made of it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use super::folder;
use crate::support::fixture::demo;
use crate::support::folder;
use crate::support::program::{interrupt, program};

#[test]
fn no_adapter_is_written_of_a_base_that_changed() {
    type Change = fn(&std::path::Path);
    let changes: [Change; 3] = [
        |base| File::options().append(true).open(base).unwrap().write_all(b"more").unwrap(),
        |base| {
            // Another file of the same bytes.
            fs::copy(base, base.with_extension("copy")).unwrap();
            fs::rename(base.with_extension("copy"), base).unwrap();
        },
        // What is cut off is alignment or weights. No page is read again before the file is compared.
        |base| {
            let file = File::options().write(true).open(base).unwrap();
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        },
    ];
    for change in changes {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        let (base, metrics) = (path("base.gguf"), path("metrics.jsonl"));
        fs::copy(demo("model.gguf"), &base).unwrap();
        let mut child = program()
            .arg("build")
            .arg(&base)
            .arg("--data")
            .arg(demo("train.jsonl"))
            .arg("-o")
            .arg(path("adapter.st"))
            .args(["--protect", "none", "--anchor", "none", "--targets", "q", "--rank", "2"])
            .args(["--epochs", "1000", "--batch-size", "2", "--metrics"])
            .arg(&metrics)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while !fs::read(&metrics).is_ok_and(|log| !log.is_empty()) {
            assert!(child.try_wait().unwrap().is_none(), "the run ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        change(&base);
        interrupt(&child);
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{errors}");
        let error = errors.lines().last().unwrap();
        assert!(error.starts_with("error: ") && error.contains("base.gguf: it was changed"), "{errors}");
        assert_eq!(folder::names(folder.path()), ["base.gguf", "metrics.jsonl"]);
    }
}
