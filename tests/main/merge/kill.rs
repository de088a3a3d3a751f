//! A merge that is killed leaves the old output or none, never a part of one; interrupted, not even a hidden file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::support::onnx_writer::Graph;
use crate::support::tiny;
use curmerge_formats::OutputFile;
use curmerge_formats::dtype::DType;
use curmerge_formats::onnx::{Onnx, RewriteOptions, rewrite};

/// Moments, spread over the time a merge takes, at which one is killed.
const KILLS: u32 = 25;

fn curmerge(arguments: &[&Path]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curmerge"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Every file under a path with its bytes; `None` when nothing stands there.
fn snapshot(path: &Path) -> Option<Vec<(PathBuf, Vec<u8>)>> {
    if !path.exists() {
        return None;
    }
    if path.is_file() {
        return Some(vec![(path.into(), fs::read(path).unwrap())]);
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    Some(entries.iter().flat_map(|e| snapshot(e).unwrap()).collect())
}

#[test]
fn a_killed_merge_leaves_nothing_half_written() {
    for_every_moment(|child, _| child.kill().unwrap());
}

#[cfg(unix)]
#[test]
fn an_interrupted_merge_leaves_nothing_hidden_either() {
    for_every_moment(|child, folder| {
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        child.wait().unwrap();
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let hidden: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with('.')).collect();
        assert!(hidden.is_empty(), "{hidden:?}");
    });
}

/// A model of two matrices, which are in a file beside it.
fn write_onnx(path: &Path) {
    let mut graph = Graph::default();
    for name in ["first", "second"] {
        graph.floats(&format!("{name}.weight"), &[256, 512]);
        graph.node("MatMul", "", &["x", &format!("{name}.weight")], &[]);
    }
    let whole = path.with_extension("whole");
    fs::write(&whole, graph.model()).unwrap();
    let options = RewriteOptions { max_model_bytes: 0, ..RewriteOptions::new("tiny.onnx.data") };
    for file in rewrite(&Onnx::open(&whole).unwrap(), &[], &options).unwrap() {
        let name = file.location.as_deref().unwrap_or("tiny.onnx");
        let mut out = OutputFile::create(&path.with_file_name(name), &[]).unwrap();
        file.pieces.write(&mut out, |_| unreachable!("nothing changes")).unwrap();
        out.commit().unwrap();
    }
}

/// Merges a file and a folder, whole and in shards, again and again, and calls `end` with the process at one moment after the other.
fn for_every_moment(end: impl Fn(&mut Child, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    tiny::write_gguf(&at("tiny.gguf"), DType::Q4_K);
    tiny::write_folder(&at("tiny-hf"));
    write_onnx(&at("tiny.onnx"));
    let (whole, shards) = (&[][..], &["--max-shard-size", "200K"][..]);
    for (base, out, size, targets) in [
        ("tiny.gguf", "out.gguf", whole, "q,k,v"),
        ("tiny.gguf", "out-splits", shards, "q,k,v"),
        ("tiny-hf", "out-hf", whole, "q,k,v"),
        ("tiny-hf", "out-shards", shards, "q,k,v"),
        ("tiny.onnx", "out.onnx", whole, "first,second"),
    ] {
        let (base, adapter, out) = (at(base), at("adapter.safetensors"), at(out));
        let mut select = vec!["select".as_ref(), base.as_path(), "-o".as_ref(), adapter.as_path()];
        select.extend(["--rank", "4", "--targets", targets].map(Path::new));
        assert!(curmerge(&select).status().unwrap().success());
        let mut arguments =
            vec!["merge".as_ref(), base.as_path(), &adapter, "-o".as_ref(), &out, "--force".as_ref()];
        arguments.extend(size.iter().map(Path::new));
        let start = Instant::now();
        assert!(curmerge(&arguments).status().unwrap().success());
        let whole_run = start.elapsed();
        let complete = snapshot(&out);
        // Of a model with its weights beside it both are there, or not the model.
        let beside = out.with_extension("onnx.data");
        let complete_beside = snapshot(&beside);
        if out.is_dir() {
            fs::remove_dir_all(&out).unwrap()
        } else {
            fs::remove_file(&out).unwrap()
        }

        for kill in 0..KILLS {
            let mut child = curmerge(&arguments).spawn().unwrap();
            std::thread::sleep(whole_run * kill / KILLS);
            end(&mut child, folder.path());
            child.wait().unwrap();
            let left = snapshot(&out);
            assert!(left.is_none() || left == complete, "killed after {kill}/{KILLS} of {whole_run:?}");
            assert!(left.is_none() || snapshot(&beside) == complete_beside, "killed after {kill}/{KILLS}");
        }
    }
}
