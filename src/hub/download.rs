//! One file of a repository, into the cache: resumed, checked, whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use super::Event;
use super::api::Remote;
use super::cache::Stored;
use super::client::{Client, Failure, Method};
use super::digest::Digest;
use crate::error::Error;

/// Connections in a row that bring nothing.
const FRUITLESS: u32 = 5;
const PIECE: usize = 1 << 18;

/// Why a file is not there.
#[derive(Debug)]
pub(super) enum Undone {
    /// The Hub or the network.
    Hub(Failure),
    /// The cache folder.
    Own(Error),
    /// Something else came than what the Hub said.
    Wrong(String),
}

impl From<Failure> for Undone {
    fn from(failure: Failure) -> Self {
        Undone::Hub(failure)
    }
}

impl From<Error> for Undone {
    fn from(error: Error) -> Self {
        Undone::Own(error)
    }
}

/// How far a download of several files is.
pub(super) struct Progress<'a> {
    pub(super) events: &'a mut dyn FnMut(Event<'_>),
    /// The bytes of the files before this one.
    pub(super) before: u64,
    /// The bytes of all.
    pub(super) of: u64,
}

impl Progress<'_> {
    fn arrived(&mut self, length: u64) {
        (self.events)(Event::Progress { done: self.before + length, of: self.of });
    }
}

/// Puts a file of a commit into the cache.
pub(super) fn download(
    client: &Client,
    stored: &Stored,
    (commit, path): (&str, &str),
    remote: &Remote,
    progress: &mut Progress<'_>,
) -> Result<(), Undone> {
    let lock = stored.lock(&remote.etag, || (progress.events)(Event::OtherProgram { file: path }))?;
    let blob = stored.blob(&remote.etag);
    let length = fs::metadata(&blob).ok().map(|kind| kind.len());
    // A blob of another size is damaged.
    if length.is_none() || remote.size.is_some() && length != remote.size {
        let incomplete = match lock.is_held() {
            true => stored.incomplete(&remote.etag),
            // Without locks another program may be at the same.
            false => stored.incomplete(&format!("{}.{}", remote.etag, std::process::id())),
        };
        let mut part = Part::open(&incomplete, remote)?;
        part.complete(client, progress)?;
        part.file.sync_all().map_err(|e| Error::io(&incomplete, "write", e))?;
        drop(part);
        fs::rename(&incomplete, &blob).map_err(|e| Error::io(&blob, "move the download here", e))?;
    }
    stored.link(commit, path, &remote.etag)?;
    drop(lock);
    Ok(())
}

/// The beginning of a file that is being downloaded.
#[derive(Debug)]
struct Part<'a> {
    path: &'a Path,
    remote: &'a Remote,
    file: File,
    /// Its length.
    length: u64,
    /// Of what is here.
    digest: Digest,
    /// Of the whole file, once it is known.
    size: Option<u64>,
    /// Whether an earlier run wrote a part of it.
    resumed: bool,
}

impl<'a> Part<'a> {
    /// What an earlier run left, or nothing yet.
    fn open(path: &'a Path, remote: &'a Remote) -> Result<Self, Error> {
        let fail = |e| Error::io(path, "write the download to", e);
        let mut options = OpenOptions::new();
        let file = options.create(true).read(true).write(true).truncate(false).open(path).map_err(fail)?;
        let size = remote.size;
        let mut part = Self {
            path,
            remote,
            file,
            length: 0,
            digest: Digest::new(&remote.etag, size),
            size,
            resumed: false,
        };
        let length = part.file.metadata().map_err(fail)?.len();
        if size.is_some_and(|size| length <= size) {
            let mut buffer = vec![0; PIECE];
            loop {
                match part.file.read(&mut buffer).map_err(fail)? {
                    0 => break,
                    n => {
                        part.digest.update(&buffer[..n]);
                        part.length += n as u64;
                    }
                }
            }
            part.resumed = part.length > 0;
        } else {
            part.begin_again()?;
        }
        Ok(part)
    }

    /// Forgets what is here.
    fn begin_again(&mut self) -> Result<(), Error> {
        self.length = 0;
        self.digest = Digest::new(&self.remote.etag, self.size);
        self.resumed = false;
        let empty = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        empty.map(drop).map_err(|e| Error::io(self.path, "write the download to", e))
    }

    /// Downloads what is missing, over as many connections as it takes, and checks the whole.
    fn complete(&mut self, client: &Client, progress: &mut Progress<'_>) -> Result<(), Undone> {
        let mut fruitless = 0;
        loop {
            let before = self.length;
            let problem = match self.is_whole() {
                true => None,
                false => self.advance(client, progress)?,
            };
            if let Some(problem) = problem {
                fruitless = if self.length > before { 0 } else { fruitless + 1 };
                if fruitless == FRUITLESS {
                    return Err(Failure::Unreachable(problem).into());
                }
                std::thread::sleep(Duration::from_millis(100) * 2u32.pow(fruitless));
                continue;
            }
            if self.digest.clone().is(&self.remote.etag) {
                return Ok(());
            }
            // What an earlier run left may be the wrong part.
            let resumed = self.resumed;
            self.begin_again()?;
            if !resumed {
                let _ = fs::remove_file(self.path);
                return Err(Undone::Wrong("the downloaded bytes have another digest than the file".into()));
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.size == Some(self.length)
    }

    /// Downloads over one connection. Returns what broke it off.
    fn advance(&mut self, client: &Client, progress: &mut Progress<'_>) -> Result<Option<String>, Undone> {
        let reply = client.request(Method::Get, &self.remote.address, self.length, progress.events);
        let reply = match reply {
            // The part is as long as the file, or longer.
            Err(Failure::Refused { status: 416, .. }) if self.length > 0 => {
                self.begin_again()?;
                return Ok(Some("the server has no such part of the file".into()));
            }
            other => other?,
        };
        let (first, total) = match reply.status {
            206 => match reply.header("content-range").and_then(content_range) {
                Some(range) => range,
                None => {
                    return Err(Undone::Wrong(
                        "the server does not say which part of the file it sends".into(),
                    ));
                }
            },
            // It sends the whole, whatever was asked for.
            _ => (0, reply.header("content-length").and_then(|text| text.parse().ok())),
        };
        let size = self.size.or(total);
        if let (Some(size), Some(total)) = (size, total)
            && size != total
        {
            return Err(Undone::Wrong(format!("{total} bytes come of a file of {size}")));
        }
        if first != self.length || self.size.is_none() {
            self.size = size;
            self.begin_again()?;
            if first > 0 {
                return Ok(Some("the server sends another part of the file".into()));
            }
        }
        self.take(reply.body, progress)
    }

    /// Writes what comes. Returns what broke it off.
    fn take(
        &mut self,
        mut body: Box<dyn Read>,
        progress: &mut Progress<'_>,
    ) -> Result<Option<String>, Undone> {
        let mut buffer = vec![0; PIECE];
        progress.arrived(self.length);
        loop {
            let bytes = match body.read(&mut buffer) {
                Ok(0) if self.size.is_some_and(|size| self.length < size) => {
                    return Ok(Some("the connection ends before the file".into()));
                }
                Ok(0) => return Ok(None),
                Ok(n) => &buffer[..n],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Some(error.to_string())),
            };
            if self.size.is_some_and(|size| self.length + bytes.len() as u64 > size) {
                self.begin_again()?;
                return Err(Undone::Wrong("more bytes come than the file has".into()));
            }
            self.file.write_all(bytes).map_err(|e| Error::io(self.path, "write the download to", e))?;
            self.digest.update(bytes);
            self.length += bytes.len() as u64;
            progress.arrived(self.length);
        }
    }
}

/// The first byte and the size of the whole in `bytes 5-9/10`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()))
}
