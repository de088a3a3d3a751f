//! A merge that is killed leaves the whole output, or what was there before, never a part of one. A merge that
//! is interrupted leaves no hidden file either. `CURMERGE_KILLS` sets the number of moments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use curmerge_formats::OutputFile;
use curmerge_formats::dtype::DType;
use curmerge_formats::onnx::{Onnx, RewriteOptions, rewrite};

use crate::support::onnx_writer::Graph;
use crate::support::program::{interrupt, program};
use crate::support::{folder, tiny};

/// The number of moments at which a merge is ended, spread over the time that it takes.
fn kills() -> u32 {
    std::env::var("CURMERGE_KILLS").map_or(12, |number| number.parse().unwrap())
}

/// The program with these arguments, silent.
fn curmerge(arguments: &[&Path]) -> Command {
    let mut command = program();
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The file or folder at a path: every file with its bytes. `None` if it does not exist.
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
        interrupt(child);
        child.wait().unwrap();
        let hidden: Vec<_> = folder::names(folder).into_iter().filter(|name| name.starts_with('.')).collect();
        assert!(hidden.is_empty(), "{hidden:?}");
    });
}

/// Writes a model of two matrices whose weights are in a file of their own.
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

/// Merges into every container, whole and in shards. Starts each merge [`kills`] times where nothing is, and as
/// often where an older output is, and calls `end` with the process and the folder at increasingly late
/// moments.
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
        // A model and the file of its weights, or one file or folder.
        let outputs = [out.clone(), out.with_extension("onnx.data")];
        let snapshots = || outputs.each_ref().map(|path| snapshot(path));
        let complete = snapshots();
        let moments = kills();
        for kill in 0..2 * moments {
            let (kill, replaces) = (kill / 2, kill % 2 == 1);
            outputs.iter().zip(&complete).for_each(|(path, new)| {
                remove(path);
                if replaces && new.is_some() {
                    write_old(path, complete[0].as_ref().is_some_and(|new| new[0].0 != out));
                }
            });
            let before = snapshots();
            let mut child = curmerge(&arguments).spawn().unwrap();
            std::thread::sleep(whole_run * kill / moments);
            end(&mut child, folder.path());
            child.wait().unwrap();
            // The next command finishes what was begun.
            curmerge(&["inspect".as_ref(), &out]).status().unwrap();
            let left = snapshots();
            let case = format!("{}, replaces {replaces}, {kill}/{moments} of {whole_run:?}", out.display());
            assert!(left == before || left == complete, "{case}: neither the old output nor the new one");
        }
    }
}

fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else if path.exists() {
        fs::remove_file(path).unwrap();
    }
}

fn write_old(path: &Path, is_folder: bool) {
    if is_folder {
        fs::create_dir(path).unwrap();
        fs::write(path.join("model.safetensors"), "old").unwrap();
    } else {
        fs::write(path, "old").unwrap();
    }
}
