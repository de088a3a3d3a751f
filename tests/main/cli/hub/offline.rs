//! Without the network: what the cache has is used, and it is said.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::{FILE, MODEL, error, inspect, server, stored};
use crate::cli::folder;
use crate::support::hub::Server;
use crate::support::program::{Ran, finish};

fn offline(server: &Server, home: &Path, variable: &str, name: &str) -> Ran {
    let mut program = server.program(home);
    program.env(variable, "1");
    finish(program, &["inspect", "--no-checksums", name].map(OsStr::new))
}

#[test]
fn offline_the_cache_is_used_without_a_word_and_nobody_is_asked() {
    let (server, home) = (server(), folder());
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
    server.asked();
    for variable in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
        for name in [
            "hf:some-one/tiny-GGUF",
            "hf:some-one/tiny-GGUF:Q4_K_M",
            &format!("hf:some-one/tiny-GGUF:{FILE}"),
        ] {
            let ran = offline(&server, home.path(), variable, name).done();
            assert_eq!(ran.stderr, "");
        }
        let line = error(&offline(&server, home.path(), variable, "hf:some-one/tiny-GGUF:Q8_0"));
        assert!(line.contains("no file, folder or quantization 'Q8_0'") && line.contains(FILE), "{line}");
        let line = error(&offline(&server, home.path(), variable, "hf:some-one/other"));
        assert!(line.contains(variable) && line.contains("no copy in"), "{line}");
        let line = error(&offline(&server, home.path(), variable, "hf:some-one/tiny-GGUF@v2"));
        assert!(line.contains("no copy in"), "{line}");
    }
    assert_eq!(server.asked(), [""; 0]);
}

#[test]
fn without_the_hub_the_cache_is_used_and_it_is_said() {
    let (server, home) = (server(), folder());
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
    let words = ["inspect", "--no-checksums", "hf:some-one/tiny-GGUF"].map(OsStr::new);
    let nobody = || {
        let mut program = server.program(home.path());
        // The port of a listener that is gone.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        program.env("HF_ENDPOINT", format!("http://{free}"));
        program
    };
    let ran = finish(nobody(), &words).done();
    let warned = ran.stderr.starts_with("warning: hf:some-one/tiny-GGUF: the Hub cannot be reached (");
    assert!(warned && ran.stderr.lines().count() == 1, "{}", ran.stderr);

    server.state().failing = vec![("revision", 503, "0"); 4];
    let ran = inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
    assert!(ran.stderr.contains("(status 503); the copy in the cache is used"), "{}", ran.stderr);

    fs::remove_dir_all(stored(home.path())).unwrap();
    let line = error(&finish(nobody(), &words));
    assert!(line.contains("cannot be used") && line.contains("try again later"), "{line}");
}

#[test]
fn a_refusal_is_not_hidden_by_the_cache() {
    let (server, home) = (server(), folder());
    inspect(&server, home.path(), "hf:some-one/tiny-GGUF").done();
    server.close(MODEL, true);
    let line = error(&inspect(&server, home.path(), "hf:some-one/tiny-GGUF"));
    assert!(line.contains("is gated"), "{line}");
}

#[test]
fn a_part_of_a_folder_is_no_model_offline() {
    let (server, home) = (server(), folder());
    let repository = "models/some-one/folder";
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    server.add(repository, "config.json", "{}");
    server.add(repository, "model.safetensors.index.json", index);
    for (shard, byte) in [("model-00001-of-00002.safetensors", 1), ("model-00002-of-00002.safetensors", 2)] {
        server.add(repository, shard, vec![byte; 20_000]);
    }
    // The second shard does not arrive.
    server.state().cuts = vec![20_000, 0, 0, 0, 0, 0];
    error(&inspect(&server, home.path(), "hf:some-one/folder"));
    let commit = server.commit(repository);
    let line =
        error(&offline(&server, home.path(), "HF_HUB_OFFLINE", &format!("hf:some-one/folder@{commit}")));
    assert!(line.contains("model-00002-of-00002.safetensors is missing"), "{line}");
}
