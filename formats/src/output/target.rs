//! Where an output may go: its real path, and whether it endangers an input.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The path of an output with all links resolved, so that the rename replaces the file that the user means
/// and not the link to it.
#[derive(Debug)]
pub(super) struct Target {
    /// As the user named it, for errors.
    pub(super) shown: PathBuf,
    /// The folder that holds it, canonical.
    pub(super) parent: PathBuf,
    /// Its final path, in `parent`.
    pub(super) path: PathBuf,
    /// The file or folder that exists there now.
    pub(super) existing: Option<fs::Metadata>,
}

impl Target {
    /// Resolves `path`. Its parent folder must exist.
    pub(super) fn find(path: &Path) -> Result<Self> {
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if error.kind() == ErrorKind::NotFound => in_real_parent(path)?,
            Err(error) => return Err(Error::io(path, "resolve the path", error)),
        };
        let parent = real
            .parent()
            .ok_or(Error::WrongKind { path: path.to_owned(), what: "the root folder" })?
            .to_owned();
        let existing = match fs::symlink_metadata(&real) {
            Ok(existing) => Some(existing),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io(path, "look at the output", error)),
        };
        Ok(Target { shown: path.to_owned(), parent, path: real, existing })
    }
}

/// The canonical parent of `path`, which does not exist itself, with its last name.
fn in_real_parent(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(Error::WrongKind { path: path.to_owned(), what: "not the name of a file" });
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let real =
        fs::canonicalize(parent).map_err(|error| Error::io(parent, "find the output's folder", error))?;
    Ok(real.join(name))
}

/// Makes renames in `folder` outlast a crash. Only Unix can open a folder for that.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        let sync = || fs::File::open(folder)?.sync_all();
        sync().map_err(|error| Error::io(folder, "sync the folder", error))?;
    }
    Ok(())
}

/// Refuses an output file that exists as `target` and is one of `inputs`, or a file within an input folder.
pub(super) fn refuse_input_file(output: &Path, target: &Target, inputs: &[&Path]) -> Result<()> {
    if target.existing.is_none() {
        return Ok(());
    }
    let own = same_file::Handle::from_path(&target.path)
        .map_err(|error| Error::io(output, "look at the output", error))?;
    let same = |path: &Path| same_file::Handle::from_path(path).is_ok_and(|handle| handle == own);
    for &input in inputs {
        let mut found = same(input);
        walk(input, &mut |path| found |= same(path))?;
        if found {
            return Err(Error::SameFile { path: output.to_owned(), input: input.to_owned() });
        }
    }
    Ok(())
}

/// Refuses an output folder that is an input, lies within an input folder, or holds an input.
pub(super) fn refuse_input_folder(output: &Path, target: &Target, inputs: &[&Path]) -> Result<()> {
    for &input in inputs {
        // With its links resolved, and by its own name, which replacing the folder would remove.
        let resolved =
            fs::canonicalize(input).map_err(|error| Error::io(input, "resolve the path", error))?;
        let named = in_real_parent(input).unwrap_or_else(|_| resolved.clone());
        let endangered = |input: &Path| input.starts_with(&target.path) || target.path.starts_with(input);
        if endangered(&resolved) || endangered(&named) {
            return Err(Error::SameFile { path: output.to_owned(), input: input.to_owned() });
        }
    }
    Ok(())
}

/// Calls `visit` on every ordinary file below `folder`; does nothing if it is not a folder. Links to files
/// count; links to folders are not followed, since they may form a circle.
pub(super) fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) -> Result<()> {
    let fail = |error| Error::io(folder, "list the folder", error);
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        if entry.file_type().map_err(fail)?.is_dir() {
            walk(&path, visit)?;
        } else if path.is_file() {
            visit(&path);
        }
    }
    Ok(())
}
