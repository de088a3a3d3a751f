//! One output folder, filled under another name and renamed when it is whole.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempDir};

use super::target::{Target, refuse_input_folder, sync_folder, walk};
use super::unfinished::Unfinished;
use super::{OutputFile, TEMPORARY};
use crate::error::{Error, Result};

/// A folder that gets its name on [`OutputFolder::commit`]. Dropped before that, it leaves nothing.
#[derive(Debug)]
pub struct OutputFolder {
    /// As the user named it, for errors.
    path: PathBuf,
    target: PathBuf,
    parent: PathBuf,
    folder: TempDir,
    unfinished: Unfinished,
    replace: bool,
}

impl OutputFolder {
    /// Begins a folder that will be called `path`, beside it.
    ///
    /// # Errors
    /// [`Error::Exists`] if `path` exists, unless it is a folder and `force` is given; the folder is then
    /// replaced on commit. [`Error::WrongKind`] if it is a file; [`Error::SameFile`] if it is, holds or lies
    /// in one of `inputs`; [`Error::Io`] if its parent folder is missing or not writable.
    pub fn create(path: &Path, inputs: &[&Path], force: bool) -> Result<Self> {
        let target = Target::find(path)?;
        refuse_input_folder(path, &target, inputs)?;
        if let Some(existing) = &target.existing {
            if !existing.is_dir() {
                return Err(Error::WrongKind {
                    path: path.to_owned(),
                    what: "a file, but the output is a folder",
                });
            }
            if !force {
                return Err(Error::Exists { path: path.to_owned() });
            }
        }
        let (folder, unfinished) = Unfinished::begin(|| temporary(&target.parent), TempDir::path)
            .map_err(|error| Error::io(path, "create a folder beside the output", error))?;
        Ok(OutputFolder {
            path: path.to_owned(),
            target: target.path,
            parent: target.parent,
            folder,
            unfinished,
            replace: target.existing.is_some(),
        })
    }

    /// The temporary path of the folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Begins a file in it. The file must be committed before the folder.
    ///
    /// # Errors
    /// [`Error::Encode`] unless `name` is a plain name; [`Error::Io`].
    pub fn file(&self, name: &str) -> Result<OutputFile> {
        if Path::new(name).file_name() != Some(OsStr::new(name)) {
            let place = format!("file {}", crate::error::quoted(name));
            return Err(Error::encode(place, "it is not a plain name", "name a file of the folder itself"));
        }
        OutputFile::create(&self.path().join(name), &[])
    }

    /// Creates the folder `below`, a relative path, with its parents. Existing ones stay.
    ///
    /// # Errors
    /// [`Error::Io`], also if the whole folder is gone: an interrupted program removes it while another
    /// thread may still be filling it, and that thread must not create it again.
    pub fn subfolder(&self, below: &Path) -> Result<()> {
        let mut path = self.path().to_owned();
        for name in below {
            path.push(name);
            match fs::create_dir(&path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(Error::io(&path, "create", error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Syncs every file in it to the disk, gives it its name, and syncs the parent folder. A folder that it
    /// replaces is moved aside first and removed last.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn commit(self) -> Result<()> {
        let path = &self.path;
        let fail = |action| move |error| Error::io(path, action, error);
        let mut synced = Ok(());
        walk(self.folder.path(), &mut |file| {
            if synced.is_ok() {
                synced = fs::File::open(file)
                    .and_then(|file| file.sync_all())
                    .map_err(|error| Error::io(file, "sync", error));
            }
        })?;
        synced?;
        sync_folder(self.folder.path())?;
        if !self.replace {
            // The path may exist by now. A rename would silently replace an empty folder.
            if fs::symlink_metadata(&self.target).is_ok() {
                return Err(Error::Exists { path: path.clone() });
            }
            self.unfinished
                .finish(|| fs::rename(self.folder.path(), &self.target))
                .map_err(fail("rename the finished folder to"))?;
            let _ = self.folder.keep();
            return sync_folder(&self.parent);
        }
        let new = self.folder.path();
        let set_aside = || {
            let mut aside = temporary(&self.parent).map_err(fail("create a folder beside"))?;
            let old = aside.path().join("replaced");
            fs::rename(&self.target, &old).map_err(fail("move aside"))?;
            fs::rename(new, &self.target).map_err(|error| {
                // Move it back. If even that fails, the old folder must not be removed with its temporary
                // parent.
                if fs::rename(&old, &self.target).is_err() {
                    aside.disable_cleanup(true);
                }
                fail("rename the finished folder to")(error)
            })?;
            Ok(aside)
        };
        let (aside, _listed) = Unfinished::begin(set_aside, TempDir::path)?;
        let _ = self.folder.keep();
        sync_folder(&self.parent)?;
        aside.close().map_err(fail("remove the replaced folder beside"))
    }
}

/// An empty folder in `parent` with the permissions of a new one.
fn temporary(parent: &Path) -> std::io::Result<TempDir> {
    let mut builder = Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The system applies the umask.
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    builder.tempdir_in(parent)
}
