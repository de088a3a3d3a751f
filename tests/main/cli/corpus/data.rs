//! Files of examples.

use super::Corpus;
use super::damage::damaged;
use crate::support::fixture::{self, demo};

/// Writes the files, read with a small model.
pub fn write(corpus: &mut Corpus<'_>) {
    let model = demo("model.gguf");
    let model = model.to_str().unwrap();
    let deep = "[".repeat(100_000);
    let nested = format!("{{\"text\": {}{}}}", "{\"a\":".repeat(100), "1".to_owned() + &"}".repeat(100));
    let word = format!("{{\"text\": \"{}\"}}", "a".repeat(3_000_000));
    let words = format!("{{\"text\": \"{}\"}}", "a ".repeat(200_000));
    let columns = format!("{}\n{}\n", "a,".repeat(100_000), "b,".repeat(100_000));
    let rows = "x,y\n".repeat(200_000);
    let roles = format!("{{\"messages\": [{}{{}}]}}", "{\"role\": \"user\"},".repeat(1000));
    let files: &[(&str, &[u8])] = &[
        ("sound.jsonl", b"{\"text\": \"a cat is an animal\"}\n"),
        ("empty.jsonl", b""),
        ("blank.jsonl", b"\n\n \n\t\n"),
        ("nul.jsonl", b"\0\0\0\0"),
        ("mark.jsonl", b"\xef\xbb\xbf{\"text\": \"a cat\"}\n"),
        ("utf-16.jsonl", b"\xff\xfe{\0\"\0a\0\"\0:\0"),
        ("latin-1.jsonl", b"{\"text\": \"caf\xe9\"}\n"),
        ("surrogate.jsonl", b"{\"text\": \"\\ud800\"}\n"),
        ("control.jsonl", b"{\"text\": \"a\x01b\x1b[31m\"}\n"),
        ("open.jsonl", b"{\"text\": \"a cat"),
        ("open-object.jsonl", b"{\"text\": \"a cat\""),
        ("two.jsonl", b"{\"text\": \"a\"}{\"text\": \"b\"}\n"),
        ("number.jsonl", b"7\n"),
        ("null.jsonl", b"null\n"),
        ("list.jsonl", b"[1, 2]\n"),
        ("empty-object.jsonl", b"{}\n"),
        ("text-number.jsonl", b"{\"text\": 7}\n"),
        ("text-null.jsonl", b"{\"text\": null}\n"),
        ("text-empty.jsonl", b"{\"text\": \"\"}\n"),
        ("infinite.jsonl", b"{\"prompt\": \"a\", \"completion\": \"b\", \"weight\": 1e999}\n"),
        (
            "weight.jsonl",
            b"{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\", \"weight\": -3}]}\n",
        ),
        ("choices.jsonl", b"{\"prompt\": \"a\", \"completion\": \"b\", \"choices\": []}\n"),
        ("choices-others.jsonl", b"{\"prompt\": \"a\", \"completion\": \"b\", \"choices\": [\"c\", 7]}\n"),
        ("messages-empty.jsonl", b"{\"messages\": []}\n"),
        ("messages-number.jsonl", b"{\"messages\": [7]}\n"),
        ("messages-role.jsonl", b"{\"messages\": [{\"role\": 7, \"content\": \"a\"}]}\n"),
        (
            "messages-content.jsonl",
            b"{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\"}]}]}\n",
        ),
        ("messages-text.jsonl", b"{\"messages\": \"a\"}\n"),
        ("messages-roles.jsonl", roles.as_bytes()),
        ("conversations.jsonl", b"{\"conversations\": [{\"from\": \"x\", \"value\": 7}]}\n"),
        ("keys-twice.jsonl", b"{\"text\": \"a\", \"text\": \"b\"}\n"),
        ("deep.jsonl", deep.as_bytes()),
        ("nested.jsonl", nested.as_bytes()),
        ("word.jsonl", word.as_bytes()),
        ("words.jsonl", words.as_bytes()),
        ("array-open.json", b"[{\"text\": \"a\"}, "),
        ("array-comma.json", b"[{\"text\": \"a\"},,]"),
        ("array-rest.json", b"[{\"text\": \"a\"}] x"),
        ("array-mixed.json", b"[{\"text\": \"a\"}, 7]"),
        ("array-empty.json", b"[]"),
        ("array-deep.json", deep.as_bytes()),
        ("object.json", b"{\"data\": [{\"text\": \"a\"}]}"),
        ("quote.csv", b"text\n\"a cat\n"),
        ("ragged.csv", b"prompt,completion\na\nb,c,d\n"),
        ("header.csv", b"prompt,completion\n"),
        ("header-twice.csv", b"text,text\na,b\n"),
        ("columns.csv", columns.as_bytes()),
        ("rows.csv", rows.as_bytes()),
        ("nul.csv", b"text\na\0b\n"),
        ("quotes.csv", b"\"\"\"\"\"\"\"\n"),
        ("tabs.tsv", b"\t\t\t\n\t\n"),
        ("parquet.parquet", b"PAR1\x15\x04\x15\x00PAR1"),
        ("gzip.jsonl.gz", b"\x1f\x8b\x08\0\0\0\0\0"),
        ("zip.zip", b"PK\x03\x04"),
        ("yaml.yaml", b"- text: a\n- text: &a [*a, *a]\n"),
    ];
    for (name, bytes) in files {
        corpus.file(&format!("data/{name}"), bytes, &["eval", model, "--data", "@"]);
    }
    let archives = ["one.jsonl.gz", "members.gz", "one.jsonl.zst", "frames.zst"];
    for (archive, number) in
        archives.into_iter().flat_map(|archive| (0..6).map(move |number| (archive, number)))
    {
        let whole = std::fs::read(fixture::path(format!("compressed/{archive}"))).unwrap();
        let name = format!("data/damaged-{number}-{archive}");
        corpus.file(&name, &damaged(&whole, number), &["eval", model, "--data", "@"]);
    }
    let files = ["snappy.parquet", "gzip.parquet", "zstd.parquet", "lz4.parquet"];
    for (file, number) in files.into_iter().flat_map(|file| (0..6).map(move |number| (file, number))) {
        let whole = std::fs::read(fixture::path(format!("parquet/{file}"))).unwrap();
        let name = format!("data/damaged-{number}-{file}");
        corpus.file(&name, &damaged(&whole, number), &["eval", model, "--data", "@"]);
    }
    let sound = b"{\"prompt\": \"a\", \"completion\": \" b\"}\n{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n";
    for number in 0..20 {
        let name = format!("data/damaged-{number}.jsonl");
        corpus.file(&name, &damaged(sound, number), &["eval", model, "--data", "@"]);
    }
}
