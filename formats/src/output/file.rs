//! One output file, written beside its name and renamed when it is whole.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::reserved::{self, Held, Reservation};
use super::target::{Target, refuse_input_file, sync_folder};
use super::unfinished::{Unfinished, uninterrupted};
use super::{journal, space, temporary};
use crate::error::{Error, Result};
use crate::mmap::{MappedFile, mapped_unchanged};

/// Bytes per write where the system cannot copy by itself.
const CHUNK: usize = 8 << 20;

/// A file that gets its name on [`OutputFile::commit`]. Dropped before that, it leaves nothing.
#[derive(Debug)]
pub struct OutputFile {
    target: Target,
    file: NamedTempFile,
    unfinished: Unfinished,
    /// Where the next append goes.
    position: u64,
}

impl OutputFile {
    /// Begins a file that will be called `path`. An existing file is replaced on commit and passes on its
    /// permissions. If `path` is a link, the file that it leads to is replaced.
    ///
    /// # Errors
    /// [`Error::Busy`] if a program is writing the same output; [`Error::SameFile`] if `path` is, by any name
    /// or link, one of `inputs` or a file within an input folder; [`Error::WrongKind`] if `path` is a folder,
    /// device or pipe; [`Error::Io`] if its folder is missing or not writable.
    pub fn create(path: &Path, inputs: &[&Path]) -> Result<Self> {
        journal::finish(&Target::find(path)?.path)?;
        let target = Target::find(path)?;
        if let Some(existing) = &target.existing
            && !existing.is_file()
        {
            let what = if existing.is_dir() { "a folder" } else { "not an ordinary file" };
            return Err(Error::WrongKind { path: path.to_owned(), what });
        }
        refuse_input_file(path, &target, inputs)?;
        let (file, unfinished) = match reserved::take(&target.path) {
            Some(Held::File(file, unfinished)) => (file, unfinished),
            _ => Unfinished::begin(|| temporary::file(&target), NamedTempFile::path)?,
        };
        Ok(OutputFile { target, file, unfinished, position: 0 })
    }

    /// Begins the files of one output, the main one last. All must lie in one folder, so that they can appear
    /// together.
    ///
    /// # Errors
    /// Those of [`Self::create`]; [`Error::WrongKind`] if one is a link into another folder.
    pub fn create_together(paths: &[PathBuf], inputs: &[&Path]) -> Result<Vec<Self>> {
        // The main one first: what an interrupted program left of the others is its business.
        let mut files: Vec<Self> = Vec::with_capacity(paths.len());
        for path in paths.iter().rev() {
            let file = Self::create(path, inputs)?;
            if files.first().is_some_and(|main| main.target.parent != file.target.parent) {
                let what = "a link into another folder than that of the other files of the output";
                return Err(Error::WrongKind { path: path.clone(), what });
            }
            files.push(file);
        }
        files.reverse();
        Ok(files)
    }

    /// Keeps the output locked until it is begun again or the reservation is dropped.
    pub fn reserve(self) -> Reservation {
        Reservation::new(self.target.path, Held::File(self.file, self.unfinished))
    }

    /// Writes all of `bytes` at `offset`, which may lie past the end; gaps read as zeros. The position of
    /// appends does not change. Several threads may write at once.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        write_all_at(self.file.as_file(), offset, bytes).map_err(|error| self.error(error))
    }

    /// Refuses a file of this many bytes that does not fit the disk.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub fn must_fit(&self, bytes: u64) -> Result<()> {
        space::check(&self.target, bytes)
    }

    /// The error of a failed write.
    pub(super) fn error(&self, error: std::io::Error) -> Error {
        Error::io(&self.target.shown, "write", error)
    }

    /// Writes all of `bytes` at the position and moves it past them.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all_at(self.position, bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Appends `len` bytes of `source` from `source_offset`, as [`Self::copy_from_at`] does.
    ///
    /// # Errors
    /// Those of [`Self::copy_from_at`].
    pub fn copy_from(&mut self, source: &MappedFile, source_offset: u64, len: u64) -> Result<()> {
        self.copy_from_at(self.position, source, source_offset, len)?;
        self.position += len;
        Ok(())
    }

    /// Writes `len` bytes of `source` from `source_offset` at `offset`: on Linux within the kernel, which on
    /// some file systems shares the disk's blocks; elsewhere from the map. Several threads may write at once.
    ///
    /// # Errors
    /// [`Error::Io`], also if the range goes past the end of `source`.
    pub fn copy_from_at(&self, offset: u64, source: &MappedFile, source_offset: u64, len: u64) -> Result<()> {
        let end = source_offset.checked_add(len).filter(|&end| end <= source.bytes().len() as u64);
        let Some(end) = end else {
            let past = std::io::Error::new(ErrorKind::UnexpectedEof, "the range goes past its end");
            return Err(Error::io(source.path(), "copy", past));
        };
        // A map of a file that has become shorter must not be read.
        let mut copied = match source.reopen()? {
            Some(file) => copy_in_kernel(&file, source_offset, self.file.as_file(), offset, len),
            None => 0,
        };
        source.unchanged()?;
        let rest = &source.bytes()[(source_offset + copied) as usize..end as usize];
        for chunk in rest.chunks(CHUNK) {
            self.write_all_at(offset + copied, chunk)?;
            copied += chunk.len() as u64;
        }
        Ok(())
    }

    /// Where the next append goes, in bytes from the start.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Commits this file and those that it names, from one call of [`Self::create_together`]. A crash leaves
    /// all the old files or, after the next command that reads or writes this one, all the new ones.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn commit_after(self, named: impl IntoIterator<Item = OutputFile>) -> Result<()> {
        let mut files: Vec<OutputFile> = named.into_iter().collect();
        if files.is_empty() {
            return self.commit();
        }
        let beside = files.iter().map(|file| file.target.path.clone()).collect();
        files.push(self);
        for file in &mut files {
            file.sync()?;
            // From now on the journal has them.
            file.file.disable_cleanup(true);
        }
        let committed = uninterrupted(|| journal::commit(&files[files.len() - 1].target, beside));
        committed.map_err(|(error, undone)| {
            files.iter_mut().for_each(|file| file.file.disable_cleanup(!undone));
            error
        })
    }

    /// Syncs the file to the disk, gives it its name, and syncs the folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn commit(self) -> Result<()> {
        self.sync()?;
        let target = &self.target;
        // The path of the temporary file names it, unless the file system has no locks and another program
        // took its place.
        if !temporary::is_at(self.file.as_file(), self.file.path()) {
            return Err(Error::Busy { path: target.shown.clone() });
        }
        uninterrupted(|| self.file.persist(&target.path))
            .map_err(|refused| Error::io(&target.shown, "rename the finished file to", refused.error))?;
        drop(self.unfinished);
        sync_folder(&target.parent)
    }

    /// Syncs the file, if no mapped file has changed that it may have been made from.
    fn sync(&self) -> Result<()> {
        mapped_unchanged()?;
        self.file.as_file().sync_all().map_err(|error| Error::io(&self.target.shown, "sync", error))
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

#[cfg(unix)]
fn write_all_at(file: &File, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => (bytes, offset) = (&bytes[count..], offset + count as u64),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Copies as many bytes as the kernel does and returns their number; 0 if it does not copy at all, as between
/// two file systems on old kernels.
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
