//! The cache folder of huggingface_hub, which other programs of the user read and write, too.
//!
//! ```text
//! models--OWNER--NAME/blobs/ETAG                  a file's content
//!                     blobs/ETAG.incomplete       a part of it
//!                     snapshots/COMMIT/PATH       a link to a blob
//!                     refs/REVISION               a commit
//! .locks/models--OWNER--NAME/ETAG.lock            held by whoever downloads the blob
//! ```

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use curmerge_formats::input;

use super::name::{Kind, Repository, is_commit, is_plain_path};
use crate::{Error, Result};

/// The most files of a snapshot that are listed.
const MAX_FILES: usize = 1 << 20;
/// Deeper folders are a mistake or a trap.
const MAX_DEPTH: usize = 32;

const SNAPSHOTS: &str = "snapshots";

/// A repository's part of the cache.
#[derive(Debug)]
pub(super) struct Stored {
    folder: PathBuf,
    locks: PathBuf,
}

/// The only program that downloads a blob, as long as this lives.
#[derive(Debug)]
pub(super) struct Lock(Option<File>);

impl Lock {
    /// Whether the file system has locks at all.
    pub(super) fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

impl Stored {
    pub(super) fn new(cache: &Path, repository: &Repository) -> Self {
        let name = format!("{}--{}", repository.kind.word(), repository.id.replace('/', "--"));
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder with the files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join(SNAPSHOTS).join(commit)
    }

    /// The content of the file with this ETag.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// What a download of this blob has written so far.
    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The commit that a revision was when it was last asked for.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.into());
        }
        let bytes = input::read(&self.folder.join("refs").join(revision), 1 << 10).ok()?;
        let commit = String::from_utf8(bytes).ok()?.trim().to_owned();
        is_commit(&commit).then_some(commit)
    }

    /// Notes the commit of a revision.
    pub(super) fn point(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        let fail = |e| Error::io(&path, "write", e);
        create(path.parent().unwrap_or(&self.folder))?;
        // Not in the folder of references, where every file is one.
        let beside = self.folder.join(format!(".{}.ref", std::process::id()));
        fs::write(&beside, commit).and_then(|()| fs::rename(&beside, &path)).map_err(fail)
    }

    /// The files of a commit that are here whole, sorted by path.
    pub(super) fn files(&self, commit: &str) -> Vec<String> {
        let mut files = Vec::new();
        list(&self.snapshot(commit), "", MAX_DEPTH, &mut files);
        files.sort();
        files
    }

    /// Whether a file of a commit is here whole.
    pub(super) fn has(&self, commit: &str, path: &str) -> bool {
        self.snapshot(commit).join(path).is_file()
    }

    /// Waits until no other program downloads this blob. `wait` is called if one does.
    pub(super) fn lock(&self, etag: &str, wait: impl FnOnce()) -> Result<Lock> {
        create(&self.locks)?;
        create(&self.folder.join("blobs"))?;
        let path = self.locks.join(format!("{etag}.lock"));
        let fail = |e| Error::io(&path, "lock", e);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(fail)?;
        let locked = match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => {
                wait();
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
        };
        match locked {
            Ok(()) => Ok(Lock(Some(file))),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Lock(None)),
            Err(error) => Err(fail(error)),
        }
    }

    /// Makes a blob a file of a commit.
    pub(super) fn link(&self, commit: &str, path: &str, etag: &str) -> Result<()> {
        let (snapshot, blob) = (self.snapshot(commit), self.blob(etag));
        let file = snapshot.join(path);
        let parent = file.parent().unwrap_or(&snapshot).to_owned();
        self.create_within(&snapshot, path)?;
        let up = "../".repeat(path.split('/').count() + 1);
        let target = format!("{up}blobs/{etag}");
        // Under another name first: another program may be at the same.
        let beside = parent.join(format!(".{etag}.{}.link", std::process::id()));
        let _ = fs::remove_file(&beside);
        let made = match symlink(&target, &beside) {
            Ok(()) => fs::rename(&beside, &file),
            // Windows asks for a right that few users have. huggingface_hub moves the blob, too.
            Err(_) => fs::rename(&blob, &file),
        };
        let _ = fs::remove_file(&beside);
        made.map_err(|e| Error::io(&file, "link to the downloaded file", e))
    }

    /// Creates the folders of a path below a snapshot. A link among them would lead out.
    fn create_within(&self, snapshot: &Path, path: &str) -> Result<()> {
        let parents = path.rsplit_once('/').map_or("", |(parents, _)| parents);
        let mut folder = snapshot.to_owned();
        create(&folder)?;
        for part in parents.split('/').filter(|part| !part.is_empty()) {
            folder.push(part);
            create(&folder)?;
            if !fs::symlink_metadata(&folder).is_ok_and(|kind| kind.is_dir()) {
                return Err(Error::file(
                    folder,
                    "is no folder, and one of the repository's must be here",
                    format!("delete {}, and the files are downloaded again", self.folder.display()),
                ));
            }
        }
        Ok(())
    }
}

/// The repository of a model whose folder or file is in the cache.
pub fn repository_of(path: &Path) -> Option<String> {
    let above: Vec<&Path> = path.ancestors().collect();
    above.windows(3).find_map(|above| {
        let [commit, snapshots, repository] = *above else { return None };
        let name = |path: &Path| path.file_name().and_then(OsStr::to_str).map(str::to_owned);
        if name(snapshots)? != SNAPSHOTS || !is_commit(&name(commit)?) {
            return None;
        }
        let id = name(repository)?.strip_prefix(Kind::Model.word())?.strip_prefix("--")?.replace("--", "/");
        (!id.is_empty()).then_some(id)
    })
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create the folder", e))
}

#[cfg(unix)]
fn symlink(target: &str, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &str, link: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target.replace('/', "\\"), link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &str, _: &Path) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Adds the files below a folder, by their paths after `before`. What is not there or no file is left out.
fn list(folder: &Path, before: &str, depth: usize, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let (path, place) = (format!("{before}{name}"), entry.path());
        if !is_plain_path(&path) || files.len() >= MAX_FILES {
            continue;
        }
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && depth > 0 {
            list(&place, &format!("{path}/"), depth - 1, files);
        } else if place.is_file() {
            files.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(cache: &Path) -> Stored {
        let repository = Repository { kind: Kind::Model, id: "a/b".into() };
        Stored::new(cache, &repository)
    }

    #[test]
    fn a_snapshot_has_the_blobs_by_their_names() {
        let cache = tempfile::tempdir().unwrap();
        let (stored, commit) = (stored(cache.path()), "0".repeat(40));
        let lock = stored.lock("e", || panic!("nobody else")).unwrap();
        fs::write(stored.blob("e"), "text").unwrap();
        for path in ["x", "deep/er/x"] {
            assert!(!stored.has(&commit, path));
            stored.link(&commit, path, "e").unwrap();
            stored.link(&commit, path, "e").unwrap();
            assert_eq!(fs::read_to_string(stored.snapshot(&commit).join(path)).unwrap(), "text");
        }
        drop(lock);
        assert_eq!(stored.files(&commit), ["deep/er/x", "x"]);
        fs::remove_file(stored.blob("e")).unwrap();
        assert_eq!(stored.files(&commit), [""; 0], "links to nowhere are no files");
    }

    #[test]
    fn revisions_are_commits() {
        let cache = tempfile::tempdir().unwrap();
        let stored = stored(cache.path());
        let [first, second] = ["1", "2"].map(|digit| digit.repeat(40));
        assert_eq!(stored.commit("refs/pr/1"), None);
        assert_eq!(stored.commit(&first), Some(first.clone()));
        for commit in [&first, &second] {
            stored.point("refs/pr/1", commit).unwrap();
            assert_eq!(stored.commit("refs/pr/1").as_ref(), Some(commit));
        }
        fs::write(stored.folder().join("refs/bad"), "../../x").unwrap();
        assert_eq!(stored.commit("bad"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_among_the_folders_of_a_snapshot_is_not_followed() {
        let cache = tempfile::tempdir().unwrap();
        let (stored, commit) = (stored(cache.path()), "0".repeat(40));
        fs::create_dir_all(stored.snapshot(&commit)).unwrap();
        fs::create_dir(cache.path().join("out")).unwrap();
        std::os::unix::fs::symlink(cache.path().join("out"), stored.snapshot(&commit).join("sub")).unwrap();
        let error = stored.link(&commit, "sub/x", "e").unwrap_err().to_string();
        assert!(error.contains("is no folder"), "{error}");
        assert_eq!(fs::read_dir(cache.path().join("out")).unwrap().count(), 0);
    }

    #[test]
    fn a_path_in_the_cache_names_its_repository() {
        let commit = "a".repeat(40);
        let name = |path: String| repository_of(Path::new(&path));
        assert_eq!(name(format!("/c/models--o--n-1/snapshots/{commit}")).as_deref(), Some("o/n-1"));
        assert_eq!(name(format!("models--gpt2/snapshots/{commit}/onnx/m.onnx")).as_deref(), Some("gpt2"));
        for other in
            ["/c/models--o--n/snapshots/main/x", "/c/o/n", &format!("datasets--a--b/snapshots/{commit}")]
        {
            assert_eq!(name(other.into()), None, "{other}");
        }
    }
}
