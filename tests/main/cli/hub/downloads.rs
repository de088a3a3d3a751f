//! What arrives, in which order, over how many connections, and what the cache looks like after it.

use std::fs;

use super::{FILE, MODEL, error, inspect, names, server, stored};
use crate::cli::folder;
use crate::support::fixture::demo;
use crate::support::hub::{TOKEN, git_sha1, sha256};
use crate::support::program::finish;

#[test]
fn a_model_is_downloaded_once() {
    let (server, home) = (server(), folder());
    let name = "hf:some-one/tiny-GGUF:q4_k_m";
    let ran = inspect(&server, home.path(), name).done();
    assert!(
        ran.stderr.contains("some-one/tiny-GGUF: downloading tiny-Q4_K_M.gguf (3.00 MB)"),
        "{}",
        ran.stderr
    );
    assert!(ran.stdout.contains("GGUF"), "{}", ran.stdout);
    let commit = server.commit(MODEL);
    let resolve = format!("/some-one/tiny-GGUF/resolve/{commit}/{FILE}");
    let storage = format!("storage GET /{MODEL}/{FILE}?X-Amz-Signature=secret");
    let listing = "GET /api/models/some-one/tiny-GGUF/revision/main".to_owned();
    let expected = [listing.clone(), format!("HEAD {resolve}"), format!("GET {resolve}"), storage];
    assert_eq!(server.asked(), expected);

    let bytes = fs::read(demo("model.gguf")).unwrap();
    let folder = stored(home.path());
    assert_eq!(names(&folder.join("blobs")), [sha256(&bytes)]);
    assert_eq!(fs::read(folder.join("blobs").join(sha256(&bytes))).unwrap(), bytes);
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), commit);
    let file = folder.join("snapshots").join(&commit).join(FILE);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    #[cfg(unix)]
    assert_eq!(fs::read_link(&file).unwrap().to_str().unwrap(), format!("../../blobs/{}", sha256(&bytes)));

    let again = inspect(&server, home.path(), name).done();
    assert_eq!(again.stderr, "");
    assert_eq!(server.asked(), [listing]);
    // A file of a commit does not change: nobody is asked. What else may be meant depends on what the commit has.
    inspect(&server, home.path(), &format!("hf:some-one/tiny-GGUF:{FILE}@{commit}")).done();
    assert_eq!(server.asked(), [""; 0]);
    inspect(&server, home.path(), &format!("hf:some-one/tiny-GGUF:Q4_K_M@{commit}")).done();
    assert_eq!(server.asked(), [format!("GET /api/models/some-one/tiny-GGUF/revision/{commit}")]);
}

#[test]
fn a_new_commit_is_found_and_shares_what_has_not_changed() {
    let (server, home) = (server(), folder());
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
    let first = server.commit(MODEL);
    server.add(MODEL, "README.md", "changed\n");
    server.asked();
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
    let second = server.commit(MODEL);
    assert_ne!(first, second);
    assert!(server.asked().iter().all(|asked| !asked.starts_with("storage")), "the blob is there already");
    let folder = stored(home.path());
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), second);
    let mut commits = [first, second];
    commits.sort();
    assert_eq!(names(&folder.join("snapshots")), commits);
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF@refs/pr/1").done();
    assert!(folder.join("refs/refs/pr/1").is_file());
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let (server, home) = (server(), folder());
    server.close(MODEL, false);
    let run = |token: Option<&str>| {
        let mut program = server.program(home.path());
        token.map(|token| program.env("HF_TOKEN", token));
        finish(program, &["inspect", "hf:some-one/tiny-GGUF"].map(std::ffi::OsStr::new))
    };
    let without = error(&run(None));
    assert!(without.contains("no such repository") && without.contains("HF_TOKEN"), "{without}");
    let wrong = error(&run(Some("hf_other")));
    assert!(wrong.contains("the token that you have") && !wrong.contains("hf_other"), "{wrong}");
    server.asked();
    run(Some(TOKEN)).done();
    let state = server.state();
    assert!(state.requests.iter().any(|request| request.at_storage));
    for request in &state.requests {
        let sent = request.headers.get("authorization");
        assert_eq!(sent.is_some(), !request.at_storage, "{} {}", request.method, request.path);
    }
}

#[test]
fn the_token_of_a_login_is_used() {
    let (server, home) = (server(), folder());
    server.close(MODEL, true);
    fs::write(home.path().join("token"), format!("{TOKEN}\n")).unwrap();
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
}

#[test]
fn a_broken_connection_is_taken_up_where_it_ended() {
    let (server, home) = (server(), folder());
    server.state().cuts = vec![1_000_000, 100, 500_000];
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
    let state = server.state();
    let ranges = state.requests.iter().filter(|request| request.at_storage);
    let ranges: Vec<&str> = ranges.map(|request| request.headers.get("range").map_or("", |r| r)).collect();
    assert_eq!(ranges, ["", "bytes=1000000-", "bytes=1000100-", "bytes=1500100-"]);
}

#[test]
fn a_later_run_goes_on_where_an_earlier_one_ended() {
    let (server, home) = (server(), folder());
    server.state().cuts = vec![1_000_000, 0, 0, 0, 0, 0];
    let line = error(&inspect(&server, home.path(), "hf:some-one/tiny-GGUF"));
    assert!(line.contains("what is downloaded already stays"), "{line}");
    let folder = stored(home.path());
    let blob = sha256(&fs::read(demo("model.gguf")).unwrap());
    assert_eq!(names(&folder.join("blobs")), [format!("{blob}.incomplete")]);
    assert!(!folder.join("snapshots").exists() && !folder.join("refs").exists());

    server.state().requests.clear();
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
    let state = server.state();
    let request = state.requests.iter().find(|request| request.at_storage).unwrap();
    assert_eq!(request.headers["range"], "bytes=1000000-");
    assert_eq!(names(&folder.join("blobs")), [blob]);
}

#[test]
fn a_server_that_knows_no_ranges_sends_the_whole_again() {
    let (server, home) = (server(), folder());
    server.state().ignores_ranges = true;
    server.state().cuts = vec![1_000_000];
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
}

#[test]
fn a_part_that_is_not_of_the_file_is_thrown_away() {
    let (server, home) = (server(), folder());
    let bytes = fs::read(demo("model.gguf")).unwrap();
    let blobs = stored(home.path()).join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    for part in [&b"another file"[..], &vec![0; bytes.len()], &vec![0; bytes.len() + 5]] {
        let _ = fs::remove_dir_all(stored(home.path()).join("snapshots"));
        let _ = fs::remove_file(blobs.join(sha256(&bytes)));
        fs::write(blobs.join(format!("{}.incomplete", sha256(&bytes))), part).unwrap();
        inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
        assert_eq!(names(&blobs), [sha256(&bytes)]);
    }
}

#[test]
fn a_damaged_blob_is_downloaded_again() {
    let (server, home) = (server(), folder());
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
    let folder = stored(home.path());
    let blob = folder.join("blobs").join(sha256(&fs::read(demo("model.gguf")).unwrap()));
    fs::write(&blob, "cut").unwrap();
    fs::remove_dir_all(folder.join("snapshots")).unwrap();
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
    assert_eq!(fs::read(&blob).unwrap(), fs::read(demo("model.gguf")).unwrap());
}

#[test]
fn two_programs_download_a_file_once() {
    let (server, home) = (server(), folder());
    server.state().pause = std::time::Duration::from_millis(20);
    std::thread::scope(|scope| {
        let runs = [(); 3].map(|()| scope.spawn(|| inspect(&server, home.path(), "hf:some-one/tiny-GGUF")));
        let said: Vec<String> = runs.map(|run| run.join().unwrap().done().stderr).into();
        assert!(said.iter().any(|said| said.contains("another program downloads")), "{said:?}");
    });
    let whole = server.asked().iter().filter(|asked| asked.starts_with("storage")).count();
    assert_eq!(whole, 1);
}

#[test]
fn a_busy_server_is_asked_again() {
    let (server, home) = (server(), folder());
    let failing =
        [("revision", 429, "0"), ("revision", 503, "0"), ("resolve", 500, "0"), ("resolve", 429, "1")];
    server.state().failing = failing.into();
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
    assert!(server.state().failing.is_empty());
}

#[test]
fn small_and_empty_files_have_git_s_digest() {
    let (server, home) = (server(), folder());
    server.add("datasets/some-one/texts", "a b/é.jsonl", "{\"text\": \"one\"}\n");
    server.add("datasets/some-one/texts", "empty.jsonl", "");
    let words = ["data", "hf:some-one/texts:a b", "hf:datasets/some-one/texts:empty.jsonl"];
    let ran = finish(server.program(home.path()), &words.map(std::ffi::OsStr::new));
    // The empty file arrives, and has no examples.
    assert!(ran.stderr.lines().any(|line| line.contains("downloading empty.jsonl")), "{}", ran.stderr);
    let blobs = names(&home.path().join("hub/datasets--some-one--texts/blobs"));
    let mut expected = [git_sha1(b"{\"text\": \"one\"}\n"), git_sha1(b"")];
    expected.sort();
    assert_eq!(blobs, expected);
}
