//! One output file, written beside its name and renamed when it is whole.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use super::TEMPORARY;
use super::target::{Target, refuse_input_file, sync_folder};
use super::unfinished::Unfinished;
use crate::error::{Error, Result};
use crate::mmap::MappedFile;

/// Bytes handed to the system at a time where it cannot copy by itself.
const CHUNK: usize = 8 << 20;

/// A file that does not stand under its name until [`OutputFile::commit`]. Dropped without that, it leaves nothing.
#[derive(Debug)]
pub struct OutputFile {
    /// As the user named it, for errors.
    path: PathBuf,
    target: PathBuf,
    parent: PathBuf,
    file: NamedTempFile,
    unfinished: Unfinished,
    /// Where the next append goes.
    position: u64,
    /// Where the system's cursor is.
    cursor: u64,
}

impl OutputFile {
    /// Begins a file that will be called `path`. A file that stands there is replaced on commit and gives its
    /// permissions; where `path` is a link, the file it leads to is replaced.
    ///
    /// # Errors
    /// [`Error::SameFile`] if `path` is, by any name or link, one of `inputs` or a file within an input folder;
    /// [`Error::WrongKind`] if a folder, device or pipe stands there; [`Error::Io`] if its folder is missing or closed.
    pub fn create(path: &Path, inputs: &[&Path]) -> Result<Self> {
        let target = Target::find(path)?;
        if let Some(standing) = &target.standing
            && !standing.is_file()
        {
            let what = if standing.is_dir() { "a folder" } else { "not an ordinary file" };
            return Err(Error::WrongKind { path: path.to_owned(), what });
        }
        refuse_input_file(path, &target, inputs)?;
        let (file, unfinished) = Unfinished::begin(|| temporary(&target), NamedTempFile::path)
            .map_err(|error| Error::io(path, "create a file beside the output", error))?;
        Ok(OutputFile {
            path: path.to_owned(),
            target: target.path,
            parent: target.parent,
            file,
            unfinished,
            position: 0,
            cursor: 0,
        })
    }

    /// Writes all of `bytes` at `offset`, which may lie past the end; what is left out reads as zeros. The position of
    /// appends stays.
    pub fn write_all_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = self.seek(offset).and_then(|()| self.file.as_file_mut().write_all(bytes));
        written.map_err(|error| self.write_error(error))?;
        self.cursor = offset + bytes.len() as u64;
        Ok(())
    }

    /// Writes all of `bytes` at the position and moves it behind them.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all_at(self.position, bytes)?;
        self.position = self.cursor;
        Ok(())
    }

    /// Appends `len` bytes of `source` from `source_offset` on: on Linux within the kernel, which on some file systems
    /// shares the disk's blocks, else by writing from the map.
    ///
    /// # Errors
    /// [`Error::Io`], also if the range goes past the end of `source`.
    pub fn copy_from(&mut self, source: &MappedFile, source_offset: u64, len: u64) -> Result<()> {
        let end = source_offset.checked_add(len).filter(|&end| end <= source.bytes().len() as u64);
        let Some(end) = end else {
            let past = std::io::Error::new(ErrorKind::UnexpectedEof, "the range goes past its end");
            return Err(Error::io(source.path(), "copy", past));
        };
        let copied = copy_in_kernel(source.file(), source_offset, self.file.as_file(), self.position, len);
        self.position += copied;
        let rest = &source.bytes()[(source_offset + copied) as usize..end as usize];
        for chunk in rest.chunks(CHUNK) {
            self.append(chunk)?;
        }
        Ok(())
    }

    /// Where the next append goes, in bytes from the start.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Syncs the file to the disk, gives it its name, and syncs the folder.
    pub fn commit(self) -> Result<()> {
        let path = &self.path;
        let fail = |action| move |error| Error::io(path, action, error);
        self.file.as_file().sync_all().map_err(fail("sync"))?;
        self.unfinished
            .finish(|| self.file.persist(&self.target))
            .map_err(|refused| fail("rename the finished file to")(refused.error))?;
        sync_folder(&self.parent)
    }

    fn seek(&mut self, offset: u64) -> std::io::Result<()> {
        if self.cursor != offset {
            // Unknown until the write that follows has succeeded, so that a failed one is not taken for done.
            self.cursor = self.file.as_file_mut().seek(SeekFrom::Start(offset))?;
        }
        Ok(())
    }

    fn write_error(&mut self, error: std::io::Error) -> Error {
        // Part of the bytes may have been written; the next write must seek.
        self.cursor = u64::MAX;
        Error::io(&self.path, "write", error)
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.append(bytes).map_err(|error| match error {
            Error::Io { source, .. } => source,
            other => std::io::Error::other(other),
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An empty file in the target's folder, with the permissions that the target has or a new file gets.
fn temporary(target: &Target) -> std::io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(TEMPORARY).suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The system takes the umask off.
        builder.permissions(Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(&target.parent)?;
    if let Some(standing) = &target.standing {
        let permissions: Permissions = standing.permissions();
        file.as_file().set_permissions(permissions)?;
    }
    Ok(file)
}

/// Copies as much as the kernel will and says how much that was; 0 where it does not do it at all, as between two file
/// systems on old kernels.
#[cfg(target_os = "linux")]
fn copy_in_kernel(source: &File, mut from: u64, target: &File, mut to: u64, len: u64) -> u64 {
    let mut copied = 0;
    while copied < len {
        let want = usize::try_from(len - copied).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), want) {
            Ok(0) => break,
            Ok(count) => copied += count as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    copied
}

#[cfg(not(target_os = "linux"))]
fn copy_in_kernel(_source: &File, _from: u64, _target: &File, _to: u64, _len: u64) -> u64 {
    0
}
