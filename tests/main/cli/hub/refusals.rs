//! What the Hub refuses, and what a hostile or broken server sends.

use std::fs;

use super::{FILE, MODEL, error, inspect, names, server, stored};
use crate::cli::folder;

#[test]
fn what_does_not_exist_is_said_with_what_to_do() {
    let (server, home) = (server(), folder());
    let refused = |name: &str| error(&inspect(&server, home.path(), name));
    let line = refused("hf:some-one/nothing");
    assert!(
        line.contains("hf:some-one/nothing: there is no such repository") && line.contains("hf auth login")
    );
    let line = refused("hf:some-one/tiny-GGUF@v2");
    assert!(line.contains("no revision 'v2'") && line.contains("/tree/main"), "{line}");
    let line = refused("hf:some-one/tiny-GGUF:Q8_0");
    assert!(line.contains("'Q8_0'") && line.contains(FILE), "{line}");
    let line = refused("hf:../tiny");
    assert!(line.contains("is no name of the Hub") && line.contains("write hf:OWNER/NAME"), "{line}");
    server.close(MODEL, true);
    let line = refused("hf:some-one/tiny-GGUF");
    let page = format!("{}/some-one/tiny-GGUF", server.address);
    assert!(line.contains("is gated") && line.contains(&page) && line.contains("HF_TOKEN"), "{line}");
    assert!(!home.path().join("hub").exists(), "nothing is made for what there is not");
}

#[test]
fn a_file_of_another_size_or_digest_is_no_file() {
    let (server, home) = (server(), folder());
    let refused = || error(&inspect(&server, home.path(), "hf:some-one/tiny-GGUF"));
    server.state().damages = true;
    let line = refused();
    assert!(line.contains(FILE) && line.contains("another digest") && line.contains("try again"), "{line}");
    server.state().damages = false;
    server.state().size = Some(100);
    let line = refused();
    assert!(line.contains("bytes come of a file of 100"), "{line}");
    server.state().size = None;
    server.state().adds = true;
    let line = refused();
    assert!(line.contains("more bytes come than the file has"), "{line}");
    let folder = stored(home.path());
    assert!(!folder.join("snapshots").exists() && !folder.join("refs").exists());
    assert!(names(&folder.join("blobs")).iter().all(|name| name.ends_with(".incomplete")));
    server.state().adds = false;
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
}

#[test]
fn no_name_of_a_server_leads_out_of_the_cache() {
    let (server, home) = (server(), folder());
    let hostile =
        ["../../../../x.gguf", "/etc/x.gguf", "a/../../x.gguf", "C:\\x.gguf", "a\\..\\x.gguf", "a\n/x.gguf"];
    server.state().names = hostile.into();
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
    for name in ["x.gguf", "x"] {
        let line = error(&inspect(&server, home.path(), &format!("hf:some-one/tiny-GGUF:{name}")));
        assert!(line.contains("no file") && !line.contains(".."), "{line}");
    }
    let again = folder();
    for etag in ["../../../x", "a/b", "", "..", &"a".repeat(500)] {
        server.state().etag = Some(etag.into());
        let line = error(&inspect(&server, again.path(), "hf:some-one/tiny-GGUF"));
        assert!(line.contains("no ETag that can name a file"), "{line}");
    }
    server.state().etag = None;
    for commit in ["../../x", "main", "", &"A".repeat(40)] {
        server.state().commit = Some(commit.into());
        let line = error(&inspect(&server, again.path(), "hf:some-one/tiny-GGUF"));
        assert!(line.contains("names no commit"), "{line}");
    }
    assert_eq!(names(again.path()), [""; 0]);
}

#[test]
fn an_index_cannot_name_files_elsewhere() {
    let (server, home) = (server(), folder());
    let repository = "models/some-one/folder";
    server.add(repository, "config.json", "{}");
    server.add(repository, "model.safetensors.index.json", r#"{"weight_map": {"a": "model-1.safetensors"}}"#);
    let line = error(&inspect(&server, home.path(), "hf:some-one/folder"));
    assert!(line.contains("names model-1.safetensors, which the repository does not have"), "{line}");
    server.add(repository, "model.safetensors.index.json", r#"{"weight_map": {"a": "../../../x"}}"#);
    let line = error(&inspect(&server, home.path(), "hf:some-one/folder"));
    assert!(line.contains("x"), "{line}");
    assert!(fs::read_dir(home.path()).unwrap().count() == 1);
}

#[test]
fn redirects_end() {
    let (server, home) = (server(), folder());
    server.state().redirect = Some("/some-one/tiny-GGUF/resolve/main/x");
    let line = error(&inspect(&server, home.path(), "hf:some-one/tiny-GGUF"));
    assert!(line.contains("more than 10 redirects"), "{line}");
    server.state().redirect = Some("");
    let line = error(&inspect(&server, home.path(), "hf:some-one/tiny-GGUF"));
    assert!(line.contains("cannot be used"), "{line}");
}

#[test]
fn another_server_than_a_hub_is_noticed() {
    let (server, home) = (server(), folder());
    let mut program = server.program(home.path());
    program.env("HF_ENDPOINT", "huggingface.co");
    let ran = crate::support::program::finish(program, &["inspect", "hf:a/b"].map(std::ffi::OsStr::new));
    assert!(error(&ran).contains("HF_ENDPOINT 'huggingface.co' is no address"));
}
