//! One output folder, filled under another name and renamed when it is whole.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use tempfile::TempDir;

use super::reserved::{self, Held, Reservation};
use super::target::{Target, refuse_input_folder, sync_folder, walk};
use super::unfinished::{Unfinished, uninterrupted};
use super::{OutputFile, journal, replaceable, space, temporary};
use crate::error::{Error, Result};
use crate::mmap::mapped_unchanged;

/// A folder that gets its name on [`OutputFolder::commit`]. Dropped before that, it leaves nothing.
#[derive(Debug)]
pub struct OutputFolder {
    target: Target,
    folder: TempDir,
    /// Released after the folder is removed.
    lock: Option<fs::File>,
    unfinished: Unfinished,
}

impl OutputFolder {
    /// Begins a folder that will be called `path`, beside it.
    ///
    /// # Errors
    /// [`Error::Busy`] if a program is writing the same output; [`Error::Exists`] if `path` exists, unless it is
    /// a folder and `force` is given, which is then replaced on commit; [`Error::WrongKind`] if it is a file, or
    /// no output of this program; [`Error::SameFile`] if it is, holds or lies in one of `inputs`;
    /// [`Error::Io`] if its parent folder is missing or not writable.
    pub fn create(path: &Path, inputs: &[&Path], force: bool) -> Result<Self> {
        journal::finish(&Target::find(path)?.path)?;
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
            replaceable::check(&target)?;
        }
        let (folder, lock, unfinished) = match reserved::take(&target.path) {
            Some(Held::Folder(folder, lock, unfinished)) => (folder, lock, unfinished),
            _ => {
                let ((folder, lock), unfinished) =
                    Unfinished::begin(|| temporary::folder(&target), |(folder, _)| folder.path())?;
                (folder, lock, unfinished)
            }
        };
        Ok(OutputFolder { target, folder, lock, unfinished })
    }

    /// Keeps the output locked until it is begun again or the reservation is dropped.
    pub fn reserve(self) -> Reservation {
        Reservation::new(self.target.path, Held::Folder(self.folder, self.lock, self.unfinished))
    }

    /// The temporary path of the folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Refuses a folder of this many bytes that does not fit the disk.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub fn must_fit(&self, bytes: u64) -> Result<()> {
        space::check(&self.target, bytes)
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

    /// Writes a whole file at a relative path, with its parents. One that stands there is replaced.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, file: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
        let file = file.as_ref();
        self.subfolder(file.parent().unwrap_or(Path::new("")))?;
        let mut output = OutputFile::create(&self.path().join(file), &[])?;
        output.append(bytes)?;
        output.commit()
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
    /// replaces is removed last.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn commit(mut self) -> Result<()> {
        let target = &self.target;
        let fail = |action| move |error| Error::io(&target.shown, action, error);
        mapped_unchanged()?;
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
        if target.existing.is_none() {
            // The path may exist by now. A rename would silently replace an empty folder.
            if fs::symlink_metadata(&target.path).is_ok() {
                return Err(Error::Exists { path: target.shown.clone() });
            }
            uninterrupted(|| fs::rename(self.folder.path(), &target.path))
                .map_err(fail("rename the finished folder to"))?;
            self.folder.disable_cleanup(true);
            return sync_folder(&target.parent);
        }
        // The old folder will have the name of the temporary one. Nobody else may take it.
        let _old = temporary::open_existing(&target.path).inspect(|old| drop(old.try_lock()));
        if uninterrupted(|| exchange(self.folder.path(), &target.path)) {
            sync_folder(&target.parent)?;
            return self.folder.close().map_err(fail("remove the replaced folder beside"));
        }
        self.folder.disable_cleanup(true);
        uninterrupted(|| journal::commit(target, Vec::new())).map_err(|(error, undone)| {
            self.folder.disable_cleanup(!undone);
            error
        })
    }
}

/// Exchanges the names of two folders in one step, where the system and the file system can.
#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> bool {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn exchange(_one: &Path, _other: &Path) -> bool {
    false
}
