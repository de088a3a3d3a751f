//! What the Hub says of a repository and of its files.

use std::io::Read;

use serde::Deserialize;

use super::Event;
use super::client::{Client, Failure, Method};
use super::name::{Name, Repository, is_commit, is_plain_path};
use crate::Error;
use crate::error::shortened;

/// The longest list of files that is read, in bytes.
const MAX_LIST: u64 = 1 << 25;
/// The longest part of a server's own words that an error shows.
const MAX_WORDS: usize = 200;

/// The files of a repository at one commit.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    /// Paths, each of which stays within a folder.
    pub(super) files: Vec<String>,
}

/// What is read of the Hub's answer.
#[derive(Deserialize)]
struct Answer {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// What the Hub says of a file.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) address: String,
    /// Names the blob. It is the SHA-256 of a large file, and Git's hash of another.
    pub(super) etag: String,
    pub(super) size: Option<u64>,
}

/// Asks for the files of a revision.
pub(super) fn listing(
    client: &Client,
    repository: &Repository,
    revision: &str,
    events: &mut dyn FnMut(Event<'_>),
) -> std::result::Result<Listing, Failure> {
    let revision = revision.replace('/', "%2F");
    let parts = ["api", repository.kind.word(), &repository.id, "revision"];
    let address = format!("{}/{}", client.address(&parts), revision.replace(' ', "%20"));
    let reply = client.request(Method::Get, &address, 0, events)?;
    let mut bytes = Vec::new();
    let unreadable = |problem: String| Failure::Unreachable(format!("{address}: {problem}"));
    reply.body.take(MAX_LIST).read_to_end(&mut bytes).map_err(|e| unreadable(e.to_string()))?;
    let answer: Answer = serde_json::from_slice(&bytes)
        .map_err(|_| unreadable("the answer is no JSON; is HF_ENDPOINT the address of a Hub?".into()))?;
    let commit = answer.sha.filter(|sha| is_commit(sha));
    let commit = commit.ok_or_else(|| unreadable("the answer names no commit".into()))?;
    let names = answer.siblings.into_iter().map(|file| file.rfilename);
    // A path that leads out of the folder is no file of ours. Nothing that it could be is wanted.
    let mut files: Vec<String> = names.filter(|name| is_plain_path(name)).collect();
    files.sort();
    files.dedup();
    Ok(Listing { commit, files })
}

/// Asks for the size and digest of a file.
pub(super) fn remote(
    client: &Client,
    repository: &Repository,
    commit: &str,
    file: &str,
    events: &mut dyn FnMut(Event<'_>),
) -> std::result::Result<Remote, Failure> {
    let address = client.address(&[&repository.to_string(), "resolve", commit, file]);
    let reply = client.request(Method::Head, &address, 0, events)?;
    let unusable = |what: &str| Failure::Unreachable(format!("{address}: the answer has {what}"));
    let etag = reply.header("x-linked-etag").or_else(|| reply.header("etag"));
    let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"')).unwrap_or_default();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if etag.is_empty() || etag.len() > 128 || !etag.chars().all(is_name) {
        return Err(unusable("no ETag that can name a file"));
    }
    let linked = reply.header("x-linked-size");
    let own = || reply.header("content-length").filter(|_| reply.status == 200);
    let size =
        linked.or_else(own).map(str::parse).transpose().map_err(|_| unusable("a size that is no number"))?;
    Ok(Remote { etag: etag.to_owned(), address, size })
}

/// The error of a request about what a name stands for.
pub(super) fn explained(failure: Failure, name: &Name, repository: &Repository, client: &Client) -> Error {
    let page = format!("{}/{repository}", client.endpoint());
    let token = match client.has_token() {
        true => "the token that you have may not do this: use one of an account with access",
        false => "give a token with HF_TOKEN or `hf auth login`",
    };
    match failure {
        Failure::Unreachable(problem) => {
            let problem = format!("{} cannot be used: {problem}", client.endpoint());
            let help = if cfg!(not(feature = "hub")) {
                "build it with `--features hub`, or name a file or folder"
            } else if problem.contains("certificate") {
                "if a proxy has a certificate of its own, name it with SSL_CERT_FILE"
            } else {
                "try again later: what is downloaded already stays"
            };
            name.error(problem, help)
        }
        Failure::Refused { code, .. } if code == "GatedRepo" => name.error(
            "the repository is gated: its owners let in who agrees to their conditions",
            format!("agree to them at {page}, and {token}"),
        ),
        Failure::Refused { code, .. } if code == "RevisionNotFound" => name.error(
            format!("the repository has no revision '{}'", name.revision()),
            format!("see its branches and tags at {page}/tree/main"),
        ),
        Failure::Refused { code, .. } if code == "EntryNotFound" => {
            name.error("the repository has no such file", format!("see its files at {page}/tree/main"))
        }
        Failure::Refused { code, status: 401 | 404, .. } if code.is_empty() || code == "RepoNotFound" => name
            .error(
                format!("there is no such repository at {}, or it is a private one", client.endpoint()),
                format!("check the name; for a private one {token}"),
            ),
        Failure::Refused { status, code, message } => {
            let said = shortened(format!("{code} {message}").trim(), MAX_WORDS);
            let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
            let help = match status {
                401 | 403 => format!("see {page}; {token}"),
                _ => format!("see {page}"),
            };
            name.error(format!("{} refuses with status {status}{said}", client.endpoint()), help)
        }
    }
}
