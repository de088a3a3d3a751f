//! A pipe, device, socket or folder in place of an input is refused at once. To open a pipe waits for ever.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{folder, small_adapter};
use crate::support::fixture::{demo, family};
use crate::support::folder::copy;
use crate::support::program::program;

/// Runs the program, which must refuse within half a minute with one line that names `file`.
#[track_caller]
fn refused(file: &Path, words: &[&OsStr]) {
    let mut child = program()
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("{words:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {errors}");
    let line = errors.lines().last().unwrap();
    assert!(errors.lines().filter(|line| line.starts_with("error: ")).count() == 1, "{words:?}: {errors}");
    assert!(line.contains(file.file_name().unwrap().to_str().unwrap()), "{words:?}: {errors}");
    assert!(!errors.contains("panicked"), "{words:?}: {errors}");
}

#[test]
fn no_input_may_be_a_pipe_device_socket_or_folder() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (adapter, out) = (at("adapter.st"), at("out.gguf"));
    small_adapter(&adapter);
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let _listener = UnixListener::bind(at("socket")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    let (model, data) = (demo("model.gguf"), demo("train.jsonl"));
    for special in [at("pipe"), at("socket"), at("folder"), PathBuf::from("/dev/zero")] {
        let [model, data, adapter, out, special] =
            [&model, &data, &adapter, &out, &special].map(|path| path.as_os_str());
        let word = OsStr::new;
        let build = [word("build"), model, word("-o"), out, word("--max-steps"), word("1")];
        let uses: [&[&OsStr]; 13] = [
            &[word("inspect"), special],
            &[word("eval"), special, word("--data"), data],
            &[word("eval"), model, word("--data"), special],
            &[word("eval"), model, word("--perplexity"), special],
            &[word("eval"), model, word("--adapter"), special, word("--data"), data],
            &[word("verify"), special],
            &[word("convert"), special, out],
            &[word("convert"), model, out, word("--type"), word("q4_k_m"), word("--imatrix"), special],
            &[word("merge"), model, special, word("-o"), out],
            &[word("merge"), special, adapter, word("-o"), out],
            &[word("--data"), special],
            &[word("--data"), data, word("--valid"), special],
            &[word("--data"), data, word("--anchor"), special],
        ];
        for words in uses {
            let words: Vec<&OsStr> = match words[0] == "--data" {
                true => build.iter().chain(words).copied().collect(),
                false => words.to_vec(),
            };
            refused(Path::new(special), &words);
        }
    }
    let left = crate::support::folder::names(folder.path());
    assert_eq!(left, ["adapter.st", "folder", "pipe", "socket"]);
}

#[test]
fn no_file_of_a_model_s_folder_may_be_a_pipe_or_absurdly_long() {
    let folder = folder();
    let data = folder.path().join("data.jsonl");
    fs::write(&data, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n").unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        for is_pipe in [true, false] {
            let model = folder.path().join(format!("{name}-{is_pipe}"));
            copy(&family("qwen2", "hf"), &model);
            let file = model.join(name);
            let _ = fs::remove_file(&file);
            if is_pipe {
                assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
            } else {
                fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
            }
            refused(&file, &["eval".as_ref(), model.as_os_str(), "--data".as_ref(), data.as_os_str()]);
        }
    }
}
