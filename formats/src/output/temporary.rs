//! The temporary file or folder in which an output is written, held by a lock.
//!
//! Its name follows from the output's. So a second program that would write the same output finds the lock of
//! the first and is refused. The system releases the lock of a killed program, and the next one that writes
//! the same output removes what that left.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::{Builder, NamedTempFile, TempDir};

use super::target::Target;
use crate::error::{Error, Result};

/// Prefix of the names of temporary files and folders.
pub const TEMPORARY: &str = ".curmerge-";

/// How often a name is tried that others create and remove meanwhile.
const ATTEMPTS: usize = 20;

/// The name beside an output of this name, for one use of it. It has the same length for every name, since a
/// name may have the greatest length that the system allows.
pub(super) fn name_beside(output: &OsStr, ending: &str) -> String {
    let digest = Sha256::digest(output.as_encoded_bytes());
    let digits: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{TEMPORARY}{digits}.{ending}")
}

/// The path of the temporary file or folder of the output `target`.
pub(super) fn path_for(target: &Path) -> PathBuf {
    target.with_file_name(name_beside(target.file_name().unwrap_or_default(), "tmp"))
}

/// An empty file in the target's folder, locked, with the permissions that the target has or a new file gets.
pub(super) fn file(target: &Target) -> Result<NamedTempFile> {
    let failed = |error| Error::io(&target.shown, "create a file beside the output", error);
    let path = path_for(&target.path);
    let file = begin(target, &path, |builder| {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // The system applies the umask.
            builder.permissions(Permissions::from_mode(0o666));
        }
        let mut file = builder.tempfile_in(&target.parent)?;
        let ours = lock(file.as_file())? && is_at(file.as_file(), &path);
        if !ours {
            // The name belongs to another program by now, or to nobody.
            file.disable_cleanup(true);
        }
        Ok(ours.then_some(file))
    })?;
    if let Some(existing) = &target.existing {
        let permissions: Permissions = existing.permissions();
        file.as_file().set_permissions(permissions).map_err(failed)?;
    }
    Ok(file)
}

/// An empty folder in the target's folder, with the permissions of a new one, and its lock where the system
/// can lock a folder. Windows cannot; there the open files of a folder keep others from removing it.
pub(super) fn folder(target: &Target) -> Result<(TempDir, Option<File>)> {
    let path = path_for(&target.path);
    begin(target, &path, |builder| {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // The system applies the umask.
            builder.permissions(Permissions::from_mode(0o777));
        }
        let mut folder = builder.tempdir_in(&target.parent)?;
        let Some(handle) = cfg!(unix).then(|| open_existing(&path)) else { return Ok(Some((folder, None))) };
        let ours = handle.and_then(|handle| {
            let ours = lock(&handle)? && is_at(&handle, &path);
            Ok(ours.then_some(handle))
        });
        match ours {
            Ok(Some(handle)) => Ok(Some((folder, Some(handle)))),
            Ok(None) => {
                folder.disable_cleanup(true);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    })
}

/// Calls `create` until it returns a locked file or folder of this name. It returns none if another program
/// was faster.
fn begin<T>(
    target: &Target,
    path: &Path,
    mut create: impl FnMut(&mut Builder<'_, '_>) -> io::Result<Option<T>>,
) -> Result<T> {
    let failed = |error| Error::io(&target.shown, "create a file beside the output", error);
    let name = path.file_name().unwrap_or_default();
    for _ in 0..ATTEMPTS {
        let mut builder = Builder::new();
        match create(builder.prefix(name).rand_bytes(0)) {
            Ok(Some(created)) => return Ok(created),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !remove_unlocked(path).map_err(failed)? {
                    break;
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Err(Error::Busy { path: target.shown.clone() })
}

/// Removes what a killed program left at this path. Returns false if a living one holds it.
fn remove_unlocked(path: &Path) -> io::Result<bool> {
    let kind = match fs::symlink_metadata(path) {
        Ok(kind) => kind,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    // This program makes no links, pipes or devices. To remove one of those changes nothing else.
    if kind.is_file() || kind.is_dir() && cfg!(unix) {
        let existing = match open_existing(path) {
            Ok(existing) => existing,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        if !lock(&existing)? {
            return Ok(false);
        }
        // Between opening and locking, its owner may have renamed it to the output's name.
        if !is_at(&existing, path) {
            return Ok(true);
        }
        return remove(path, kind.is_dir());
    }
    remove(path, kind.is_dir())
}

fn remove(path: &Path, is_folder: bool) -> io::Result<bool> {
    let removed = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(true),
    }
}

/// Opens a file or folder for its lock. A link is not followed, since anyone may have put it there.
pub(super) fn open_existing(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A pipe that took the place meanwhile must not block.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits() as i32);
    }
    options.open(path)
}

/// Locks an open file or folder. Returns false if another program holds the lock. Some network file systems
/// have no locks; there the output is not protected from a second writer.
fn lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(false),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(true),
    }
}

/// Whether the open file or folder is the one at this path.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let own = file.try_clone().and_then(same_file::Handle::from_file);
    let there = open_existing(path).and_then(same_file::Handle::from_file);
    matches!((own, there), (Ok(own), Ok(there)) if own == there)
}
