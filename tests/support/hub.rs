//! A small server that speaks the Hub's API, and a second one, at another port, in place of the storage that the Hub
//! redirects to. What goes wrong is set in [`State`].

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use percent_encoding::{CONTROLS, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::program;

/// The token of who may read a private repository.
pub const TOKEN: &str = "hf_test";

/// A request that the server got.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whether it came to the storage.
    pub at_storage: bool,
    /// HEAD or GET.
    pub method: String,
    /// The path, and the query if there is one.
    pub path: String,
    /// By names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// What the server has and does.
#[derive(Debug, Default)]
pub struct State {
    /// By `models/OWNER/NAME` or `datasets/OWNER/NAME`.
    repositories: BTreeMap<String, Repository>,
    /// What was asked for, in order.
    pub requests: Vec<Request>,
    /// Statuses with their headers for the next requests whose path has this part.
    pub failing: Vec<(&'static str, u16, &'static str)>,
    /// The storage closes the connection after so many bytes, once for each.
    pub cuts: Vec<usize>,
    /// The storage sends whole files only.
    pub ignores_ranges: bool,
    /// The storage sends another first byte.
    pub damages: bool,
    /// The storage adds bytes without a length.
    pub adds: bool,
    /// What the Hub says in place of a file's size, ETag and commit.
    pub size: Option<u64>,
    /// See `size`.
    pub etag: Option<String>,
    /// See `size`.
    pub commit: Option<String>,
    /// The Hub sends whoever asks for a file to this address.
    pub redirect: Option<&'static str>,
    /// Names that the list of files has, too.
    pub names: Vec<&'static str>,
    /// The storage waits so long between two pieces of 64 KiB.
    pub pause: Duration,
}

#[derive(Debug, Default)]
struct Repository {
    /// By path. Small files are in Git, others in the storage.
    files: BTreeMap<String, Vec<u8>>,
    private: bool,
    gated: bool,
}

impl Repository {
    /// A hash that follows from the content, as Git's does.
    fn commit(&self) -> String {
        let mut sha = Sha1::new();
        for (path, bytes) in &self.files {
            sha.update(path);
            sha.update(bytes);
        }
        hex(&sha.finalize())
    }
}

/// Files of more bytes are in the storage.
const SMALL: usize = 10_000;

/// The running server. It ends with the test's process.
#[derive(Debug)]
pub struct Server {
    /// Its address.
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Starts a server without repositories.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let [hub, storage] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (own, other) = (address(&hub), address(&storage));
        for (listener, at_storage) in [(hub, false), (storage, true)] {
            let (state, other) = (Arc::clone(&state), other.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, other) = (Arc::clone(&state), other.clone());
                    // A client that goes away is no failure of the server.
                    std::thread::spawn(move || answer(&stream, &state, at_storage, &other).ok());
                }
            });
        }
        Self { address: own, state }
    }

    /// The state, to look at or to change.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds a file to a repository, such as `models/a/b`.
    pub fn add(&self, repository: &str, path: &str, bytes: impl Into<Vec<u8>>) {
        let mut state = self.state();
        state.repositories.entry(repository.into()).or_default().files.insert(path.into(), bytes.into());
    }

    /// Adds all files of a folder.
    pub fn add_folder(&self, repository: &str, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            self.add(repository, path.file_name().unwrap().to_str().unwrap(), std::fs::read(&path).unwrap());
        }
    }

    /// Makes a repository private, or gated.
    pub fn close(&self, repository: &str, gated: bool) {
        let mut state = self.state();
        let repository = state.repositories.get_mut(repository).unwrap();
        (repository.private, repository.gated) = (!gated, gated);
    }

    /// The commit of a repository.
    pub fn commit(&self, repository: &str) -> String {
        self.state().repositories[repository].commit()
    }

    /// The program, with this server as the Hub and a cache in this folder.
    pub fn program(&self, home: &Path) -> Command {
        let mut program = program::program();
        self.tell(&mut program, home);
        program
    }

    /// Sets the variables of a program so.
    pub fn tell(&self, program: &mut Command, home: &Path) {
        let others = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"];
        let offline =
            ["HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN"];
        let proxies = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
        for name in others.into_iter().chain(offline).chain(proxies) {
            program.env_remove(name);
        }
        program.env("HF_ENDPOINT", &self.address).env("HF_HOME", home);
    }

    /// The requests since the last call, as `METHOD PATH`, those to the storage after `storage`.
    pub fn asked(&self) -> Vec<String> {
        let requests = std::mem::take(&mut self.state().requests);
        let text =
            |r: Request| format!("{}{} {}", if r.at_storage { "storage " } else { "" }, r.method, r.path);
        requests.into_iter().map(text).collect()
    }
}

/// What is sent back.
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    fn error(status: u16, code: &str) -> Self {
        Self::new(status, "").with("X-Error-Code", code).with("X-Error-Message", format!("{code} it is"))
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

fn answer(stream: &TcpStream, state: &Mutex<State>, at_storage: bool, storage: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut words = first.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let request = Request { at_storage, method, path, headers };
    let (reply, cut, pause, adds) = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        let reply = if at_storage { stored(&state, &request) } else { known(&mut state, &request, storage) };
        let cuts = at_storage && request.method == "GET" && reply.status < 300 && !state.cuts.is_empty();
        (reply, cuts.then(|| state.cuts.remove(0)), state.pause, at_storage && state.adds)
    };
    send(stream, &request, reply, cut, (pause, adds))
}

fn send(
    mut stream: &TcpStream,
    request: &Request,
    reply: Reply,
    cut: Option<usize>,
    (pause, adds): (Duration, bool),
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", reply.status);
    if !adds {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let body = &reply.body[..cut.unwrap_or(reply.body.len()).min(reply.body.len())];
    for piece in body.chunks(1 << 16) {
        stream.write_all(piece)?;
        std::thread::sleep(pause);
    }
    if adds {
        stream.write_all(&[7; 100])?;
    }
    stream.flush()?;
    stream.shutdown(std::net::Shutdown::Both)
}

/// The Hub's part.
fn known(state: &mut State, request: &Request, storage: &str) -> Reply {
    if let Some(at) = state.failing.iter().position(|(part, ..)| request.path.contains(part)) {
        let (_, status, wait) = state.failing.remove(at);
        return Reply::new(status, "no").with("Retry-After", wait);
    }
    let path = request.path.split('?').next().unwrap_or_default().trim_start_matches('/');
    let path = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let words: Vec<&str> = path.split('/').collect();
    match *words {
        ["api", "resolve-cache", kind, owner, name, commit, ..] => {
            let start = format!("api/resolve-cache/{kind}/{owner}/{name}/{commit}/");
            with_repository(state, request, &format!("{kind}/{owner}/{name}"), |state, repository| {
                file(state, repository, path.strip_prefix(&start).unwrap(), None)
            })
        }
        ["api", kind, owner, name, ref what @ ..] => {
            with_repository(state, request, &format!("{kind}/{owner}/{name}"), |state, repository| {
                let commit = repository.commit();
                match *what {
                    [] => listing(state, repository),
                    ["revision", ref revision @ ..] if is_revision(&revision.join("/"), &commit) => {
                        listing(state, repository)
                    }
                    ["tree", revision] if is_revision(revision, &commit) => tree(repository),
                    _ => Reply::error(404, "RevisionNotFound"),
                }
            })
        }
        ["datasets", owner, name, "resolve", revision, ..] => {
            let start = format!("datasets/{owner}/{name}/resolve/{revision}/");
            let (name, file) = (format!("datasets/{owner}/{name}"), path.strip_prefix(&start).unwrap());
            resolved(state, request, &name, (revision, file), storage)
        }
        [owner, name, "resolve", revision, ..] => {
            let start = format!("{owner}/{name}/resolve/{revision}/");
            let (name, file) = (format!("models/{owner}/{name}"), path.strip_prefix(&start).unwrap());
            resolved(state, request, &name, (revision, file), storage)
        }
        _ => Reply::error(404, "RepoNotFound"),
    }
}

fn is_revision(revision: &str, commit: &str) -> bool {
    ["main", "refs/pr/1", commit].contains(&revision)
}

fn with_repository(
    state: &State,
    request: &Request,
    name: &str,
    reply: impl FnOnce(&State, &Repository) -> Reply,
) -> Reply {
    let token = request.headers.get("authorization").is_some_and(|value| *value == format!("Bearer {TOKEN}"));
    match state.repositories.get(name) {
        Some(repository) if repository.gated && !token => Reply::error(403, "GatedRepo"),
        Some(repository) if token || !repository.private => reply(state, repository),
        // As the Hub answers who has no token.
        _ if !request.headers.contains_key("authorization") => Reply::error(401, "RepoNotFound"),
        _ => Reply::error(404, "RepoNotFound"),
    }
}

fn listing(state: &State, repository: &Repository) -> Reply {
    let names = repository.files.keys().map(String::as_str).chain(state.names.iter().copied());
    let siblings: Vec<Value> = names.map(|name| json!({ "rfilename": name })).collect();
    let commit = state.commit.clone().unwrap_or_else(|| repository.commit());
    let body = json!({ "sha": commit, "siblings": siblings, "id": "a/b", "private": false, "tags": [] });
    Reply::new(200, body.to_string()).with("Content-Type", "application/json")
}

fn tree(repository: &Repository) -> Reply {
    let file = |(path, bytes): (&String, &Vec<u8>)| {
        let mut file = json!({ "type": "file", "path": path, "size": bytes.len(), "oid": git_sha1(bytes) });
        if bytes.len() > SMALL {
            file["lfs"] = json!({ "oid": sha256(bytes), "size": bytes.len(), "pointerSize": 130 });
        }
        file
    };
    let body: Vec<Value> = repository.files.iter().map(file).collect();
    Reply::new(200, json!(body).to_string()).with("Content-Type", "application/json")
}

/// The Hub's answer to who asks for a file: a redirect to the storage, or to another path of its own.
fn resolved(
    state: &State,
    request: &Request,
    name: &str,
    (revision, path): (&str, &str),
    storage: &str,
) -> Reply {
    with_repository(state, request, name, |state, repository| {
        let commit = repository.commit();
        if !is_revision(revision, &commit) {
            return Reply::error(404, "RevisionNotFound");
        }
        if let Some(address) = state.redirect {
            return Reply::new(302, "").with("Location", address);
        }
        match repository.files.get(path) {
            Some(bytes) if bytes.len() > SMALL => {
                let address = format!("{storage}/{name}/{path}?X-Amz-Signature=secret");
                file(state, repository, path, Some(address))
            }
            Some(_) => Reply::new(307, "")
                .with("Location", format!("/api/resolve-cache/{name}/{commit}/{}", escaped(path)))
                .with("X-Repo-Commit", commit),
            None => Reply::error(404, "EntryNotFound"),
        }
    })
}

/// A file, or the redirect to where it is.
fn file(state: &State, repository: &Repository, path: &str, elsewhere: Option<String>) -> Reply {
    let bytes = &repository.files[path];
    let etag = if elsewhere.is_some() { sha256(bytes) } else { git_sha1(bytes) };
    let etag = format!("\"{}\"", state.etag.clone().unwrap_or(etag));
    let commit = repository.commit();
    match elsewhere {
        Some(address) => Reply::new(302, "Found. Redirecting")
            .with("X-Linked-Etag", etag)
            .with("X-Linked-Size", state.size.unwrap_or(bytes.len() as u64).to_string())
            .with("Location", address)
            .with("X-Repo-Commit", commit),
        None => Reply::new(200, bytes.as_slice()).with("ETag", etag).with("X-Repo-Commit", commit),
    }
}

/// The storage's part.
fn stored(state: &State, request: &Request) -> Reply {
    let path = request.path.split('?').next().unwrap_or_default().trim_start_matches('/');
    let found = state.repositories.iter().find_map(|(name, repository)| {
        repository.files.get(path.strip_prefix(name.as_str())?.strip_prefix('/')?)
    });
    let Some(bytes) = found else { return Reply::new(404, "") };
    let mut bytes = bytes.clone();
    if state.damages {
        bytes[0] ^= 1;
    }
    let range = request.headers.get("range").filter(|_| !state.ignores_ranges);
    let first =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let reply = match first {
        Some(first) if first >= bytes.len() => Reply::new(416, ""),
        Some(first) => {
            let range = format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206, bytes.split_off(first)).with("Content-Range", range)
        }
        None => Reply::new(200, bytes),
    };
    reply.with("ETag", "\"the-storage's-own\"")
}

/// The digest of a file in the storage.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Git's digest of a file.
pub fn git_sha1(bytes: &[u8]) -> String {
    hex(&Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

fn escaped(path: &str) -> String {
    utf8_percent_encode(path, CONTROLS).to_string().replace(' ', "%20")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
