//! `hf:OWNER/NAME[:FILE-or-QUANT][@REVISION]`: models, adapters and data of the Hugging Face Hub, in the cache folder
//! that they share with huggingface_hub, transformers and llama.cpp.
//!
//! [`Hub::fetch`] gives the paths of what a [`Name`] stands for, and downloads what is missing. It asks the Hub for
//! the files of the revision (`api.rs`), chooses among them (`choice.rs`), and puts them into the cache (`download.rs`,
//! `cache.rs`). Where the Hub cannot be reached, or must not, it takes what the cache has.
//!
//! A server is not trusted. Paths that it names stay within the snapshot, a file is linked there only when its size
//! and digest are those that the Hub told, and the user's token goes to no other host.
//!
//! # Why not the hf-hub crate
//!
//! Version 1.0.0 downloads through hf-xet: with rustls it builds 236 crates, among them aws-lc-sys, which needs a C
//! compiler and CMake. ureq with rustls are 27, and the plain addresses that the Hub keeps beside Xet serve the same
//! bytes. Version 0.5.0 is built on ureq, too, but reads neither `HF_HUB_CACHE`, `XDG_CACHE_HOME`, `HF_TOKEN`,
//! `HF_TOKEN_PATH` nor `HF_HUB_OFFLINE`, trusts Mozilla's certificates alone, and refuses empty files. It checks no
//! digest, appends to a partial file whatever a server sends that ignores the range, and joins ETags, hashes and file
//! names of the server to paths as they come. Its HTTP client is private, so none of this can be added from outside.

mod api;
mod cache;
mod choice;
mod client;
mod digest;
mod download;
mod gguf;
mod name;
mod settings;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use curmerge_formats::safetensors::shard_index;

pub use cache::repository_of;
pub use choice::Wanted;
pub use name::{Kind, Name, Repository};

use crate::Result;
use api::{Listing, Remote};
use cache::Stored;
use choice::{Choice, Chooser};
use client::{Client, Failure};
use download::{Progress, Undone, download};
use name::{is_commit, is_plain_path};
use settings::Settings;

/// What happens while files are fetched, for a person who waits.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// These files will be downloaded.
    Begin {
        /// Of this repository.
        repository: &'a Repository,
        /// Their paths in it.
        files: &'a [String],
        /// The bytes of all.
        bytes: u64,
    },
    /// So many bytes of them are here.
    Progress {
        /// These.
        done: u64,
        /// Of these.
        of: u64,
    },
    /// Another program downloads this file; we wait for it.
    OtherProgram {
        /// The file.
        file: &'a str,
    },
    /// The server asks to come again after some time.
    Waiting {
        /// What it answers.
        problem: &'a str,
        /// The time.
        wait: Duration,
    },
    /// The Hub cannot be reached, and what the cache has is taken.
    FromCache {
        /// What it has.
        name: &'a Name,
        /// Why the Hub is not asked.
        problem: &'a str,
    },
}

/// The Hub and the user's cache of it.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    settings: Settings,
}

/// One fetching.
struct Fetch<'a> {
    hub: &'a Hub,
    name: &'a Name,
    repository: Repository,
    stored: Stored,
    wanted: Wanted,
}

impl Hub {
    /// As huggingface_hub's variables say: `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`,
    /// `HF_ENDPOINT`, `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// One of them has no sense; there is no home folder.
    pub fn from_environment() -> Result<Self> {
        let settings = Settings::from_environment()?;
        Ok(Self { client: Client::new(settings.clone()), settings })
    }

    /// The files or the folder that a name stands for, in the cache. What is missing there is downloaded.
    ///
    /// # Errors
    /// The repository, revision or file does not exist or may not be read; several files may be meant; the Hub cannot
    /// be reached, and the cache does not have all; something else arrives than what the Hub told; the cache cannot
    /// be written.
    pub fn fetch(
        &self,
        name: &Name,
        wanted: Wanted,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<PathBuf>> {
        let kind = if matches!(wanted, Wanted::Data(_)) { Kind::Dataset } else { Kind::Model };
        let repository = name.repository(kind);
        let stored = Stored::new(&self.settings.cache, &repository);
        let fetch = Fetch { hub: self, name, repository, stored, wanted };
        if let Some(variable) = self.settings.offline {
            return fetch.cached(&format!("{variable} is set"));
        }
        // A commit never changes. The cache may have a part of its files, so only one that is named is surely meant.
        if is_commit(name.revision())
            && name
                .part()
                .is_some_and(|part| fetch.stored.files(name.revision()).iter().any(|file| file == part))
            && let Ok(found) = fetch.stored_paths(name.revision())
        {
            return Ok(found);
        }
        match api::listing(&self.client, &fetch.repository, name.revision(), events) {
            Ok(listing) => fetch.downloaded(&listing, events),
            Err(Failure::Unreachable(problem)) => match fetch.stored.commit(name.revision()) {
                Some(_) => {
                    let found = fetch.cached(&problem)?;
                    events(Event::FromCache { name, problem: &problem });
                    Ok(found)
                }
                None => Err(fetch.explained(Failure::Unreachable(problem))),
            },
            Err(refused) => Err(fetch.explained(refused)),
        }
    }
}

/// The first file that lacks of those that are parts of one with this: `train-00000-of-00002.parquet` and so on.
fn missing_part(file: &str, files: &[String]) -> Option<String> {
    let at = file.rfind("-of-")?;
    let (before, count) = (&file[..at], file.get(at + 4..)?);
    let digits = count.bytes().take_while(u8::is_ascii_digit).count();
    let (start, number) = before.split_at_checked(before.len().checked_sub(digits)?)?;
    if digits == 0 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let total: usize = count[..digits].parse().ok().filter(|&total| total <= 100_000)?;
    // GGUF's parts are numbered from 1, those of data sets from 0.
    let zero = format!("{:0digits$}", 0);
    let first = usize::from(number != zero && !files.contains(&format!("{start}{zero}{}", &file[at..])));
    let part = |part: usize| format!("{start}{part:0digits$}{}", &file[at..]);
    (first..first + total).map(part).find(|part| !files.contains(part))
}

impl Fetch<'_> {
    fn explained(&self, failure: Failure) -> crate::Error {
        api::explained(failure, self.name, &self.repository, &self.hub.client)
    }

    /// What the cache alone has, where the Hub is not asked because of this problem.
    fn cached(&self, problem: &str) -> Result<Vec<PathBuf>> {
        let folder = self.stored.folder().display();
        match self.stored.commit(self.name.revision()) {
            None => Err(self.name.error(
                format!("{problem}, and there is no copy in {folder}"),
                "download it while the Hub can be reached",
            )),
            Some(commit) => self.stored_paths(&commit).map_err(|error| {
                let problem = format!("{problem}, and the copy in {folder} does not do: {error}");
                self.name.error(problem, "download it while the Hub can be reached")
            }),
        }
    }

    /// The paths of a commit's files, if all are in the cache.
    fn stored_paths(&self, commit: &str) -> Result<Vec<PathBuf>> {
        let files = self.stored.files(commit);
        let choice = Chooser { name: self.name, files: &files }.choose(self.wanted)?;
        if let Some(file) = choice.files.iter().find_map(|file| missing_part(file, &files)) {
            return Err(self.name.error(format!("{file} is missing"), "download it"));
        }
        let missing = |file: &String| !files.contains(file);
        match self.shards(commit, &choice)?.into_iter().find(missing) {
            Some(file) => Err(self.name.error(format!("{file} is missing"), "download it")),
            None => Ok(self.paths(commit, &choice)),
        }
    }

    fn downloaded(&self, listing: &Listing, events: &mut dyn FnMut(Event<'_>)) -> Result<Vec<PathBuf>> {
        let Listing { commit, files } = listing;
        let choice = Chooser { name: self.name, files }.choose(self.wanted)?;
        // The index says which files have the weights.
        self.download(commit, choice.index.as_slice(), events)?;
        let mut all = choice.files.clone();
        all.extend(self.shards(commit, &choice)?);
        if let Some(file) = all.iter().find(|file| !files.contains(file)) {
            let problem = format!(
                "{} names {file}, which the repository does not have",
                choice.index.unwrap_or_default()
            );
            return Err(self.name.error(problem, "use another revision or repository"));
        }
        self.download(commit, &all, events)?;
        // Last, so that a revision never leads to a part of a model.
        self.stored.point(self.name.revision(), commit)?;
        Ok(self.paths(commit, &choice))
    }

    /// The files that the index of a choice names.
    fn shards(&self, commit: &str, choice: &Choice) -> Result<Vec<String>> {
        let Some(index) = &choice.index else { return Ok(Vec::new()) };
        let folder = index.rsplit_once('/').map_or("", |(folder, _)| folder);
        let shards = shard_index(&self.stored.snapshot(commit).join(folder))?.unwrap_or_default();
        let names: BTreeSet<&String> = shards.values().collect();
        let path = |name: &String| if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        Ok(names.into_iter().map(path).filter(|path| is_plain_path(path)).collect())
    }

    /// The paths to open.
    fn paths(&self, commit: &str, choice: &Choice) -> Vec<PathBuf> {
        let snapshot = self.stored.snapshot(commit);
        let path = |opened: &String| match opened.trim_end_matches('/') {
            "" => snapshot.clone(),
            opened => snapshot.join(opened),
        };
        choice.opened.iter().map(path).collect()
    }

    /// Downloads those of a commit's files that the cache does not have.
    fn download(&self, commit: &str, files: &[String], events: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let missing: Vec<String> =
            files.iter().filter(|file| !self.stored.has(commit, file)).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let client = &self.hub.client;
        let remotes: Vec<Remote> = missing
            .iter()
            .map(|file| api::remote(client, &self.repository, commit, file, events))
            .collect::<std::result::Result<_, _>>()
            .map_err(|failure| self.explained(failure))?;
        let sizes: Vec<u64> = remotes.iter().map(|remote| remote.size.unwrap_or(0)).collect();
        let of = sizes.iter().fold(0u64, |sum, &size| sum.saturating_add(size));
        events(Event::Begin { repository: &self.repository, files: &missing, bytes: of });
        let mut before = 0u64;
        for ((file, remote), size) in missing.iter().zip(&remotes).zip(sizes) {
            let mut progress = Progress { events, before, of };
            download(client, &self.stored, (commit, file), remote, &mut progress).map_err(|undone| {
                match undone {
                    Undone::Hub(failure) => self.explained(failure),
                    Undone::Own(error) => error,
                    Undone::Wrong(problem) => self.name.error(
                        format!("{file}: {problem}"),
                        "try again; if it stays so, the server or something before it changes the file",
                    ),
                }
            })?;
            before = before.saturating_add(size);
        }
        Ok(())
    }
}
