//! The journal of an output that takes several renames: a model with its weights in a file beside it, or a
//! folder that replaces another.
//!
//! All files are whole and on the disk before the journal is. A crash before that changes nothing. After a
//! later one the next command that reads or writes the output does the renames that are left. Until the last
//! rename the main file has no name, so no program can read it together with another model's weights.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::target::{Target, sync_folder};
use super::temporary::{is_at, name_beside, open_existing, path_for};
use crate::error::{Error, Result};

/// The longest journal that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// How often a journal is begun that a reader took for an abandoned one.
const ATTEMPTS: usize = 20;

/// What a journal says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// The names of the files that get theirs before the main one.
    beside: Vec<String>,
}

/// A locked journal. The system releases the lock of a killed program.
#[derive(Debug)]
struct Journal {
    path: PathBuf,
    _lock: File,
    /// The main file or folder.
    main: PathBuf,
    /// The files that it names.
    beside: Vec<PathBuf>,
}

/// What is done one after another. Each can be repeated.
#[derive(Debug)]
enum Step<'a> {
    SetOldAside,
    Rename(&'a Path),
    Sync,
    RemoveOld,
    RemoveJournal,
}

/// Gives the main output and the files beside it their names. All of them are synced.
///
/// # Errors
/// [`Error::Io`], with whether the temporary files are still there: an error before the first rename changes
/// nothing.
pub(super) fn commit(target: &Target, beside: Vec<PathBuf>) -> std::result::Result<(), (Error, bool)> {
    let failed = |error| Error::io(&target.shown, "rename the finished output to", error);
    let journal = Journal::begin(&target.path, beside).map_err(|error| (failed(error), true))?;
    match journal.carry_out() {
        Ok(()) => Ok(()),
        Err(error) => Err((failed(error), journal.undo())),
    }
}

/// Does the renames that a killed program left undone when it wrote the output `path`. Does nothing if there
/// are none.
///
/// # Errors
/// [`Error::Io`] if they cannot be done, for example in a folder that may not be written.
pub fn finish_interrupted(path: &Path) -> Result<()> {
    match Target::find(path) {
        Ok(target) => finish(&target.path),
        // Whoever opens it says what is wrong.
        Err(_) => Ok(()),
    }
}

/// The same for a path without links.
pub(super) fn finish(main: &Path) -> Result<()> {
    let path = journal_of(main);
    let failed = |error| Error::io(&path, "finish the interrupted output of this journal", error);
    if !fs::symlink_metadata(&path).is_ok_and(|kind| kind.is_file()) {
        return Ok(());
    }
    let file = match open_existing(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    // A living program holds it for a few renames. Without locks it is taken for a dead one's.
    let _ = file.lock();
    if !is_at(&file, &path) {
        return Ok(());
    }
    let mut bytes = Vec::new();
    (&file).take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    let plain = |name: &String| Path::new(name).file_name().is_some_and(|plain| plain == name.as_str());
    match serde_json::from_slice::<Content>(&bytes) {
        Ok(content) if content.beside.iter().all(plain) => {
            let beside = content.beside.iter().map(|name| main.with_file_name(name)).collect();
            Journal { path: path.clone(), _lock: file, main: main.into(), beside }.carry_out().map_err(failed)
        }
        // Cut short: nothing was renamed yet.
        _ => fs::remove_file(&path).map_err(failed),
    }
}

/// The journal's path.
fn journal_of(main: &Path) -> PathBuf {
    main.with_file_name(name_beside(main.file_name().unwrap_or_default(), "journal"))
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(kind) if kind.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

impl Journal {
    /// Writes it to the disk.
    fn begin(main: &Path, beside: Vec<PathBuf>) -> io::Result<Self> {
        let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let names: Option<Vec<String>> = beside.iter().map(name).collect();
        let content = Content {
            beside: names.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a name is not UTF-8"))?,
        };
        let path = journal_of(main);
        for _ in 0..ATTEMPTS {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            let _ = file.lock();
            if is_at(&file, &path) {
                file.write_all(&serde_json::to_vec(&content)?)?;
                file.sync_all()?;
                sync_folder(main.parent().unwrap_or(Path::new("."))).map_err(io::Error::other)?;
                return Ok(Self { path, _lock: file, main: main.into(), beside });
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Where the old main file or folder is until the new one has its name.
    fn aside(&self) -> PathBuf {
        self.main.with_file_name(name_beside(self.main.file_name().unwrap_or_default(), "old"))
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let mut steps = vec![Step::SetOldAside];
        steps.extend(self.beside.iter().map(|path| Step::Rename(path)));
        steps.extend([Step::Rename(&self.main), Step::Sync, Step::RemoveOld, Step::RemoveJournal]);
        steps
    }

    fn carry_out(&self) -> io::Result<()> {
        self.steps().iter().try_for_each(|step| self.take(step))
    }

    fn take(&self, step: &Step<'_>) -> io::Result<()> {
        match step {
            Step::SetOldAside if exists(&path_for(&self.main)) && exists(&self.main) => {
                remove_if_there(&self.aside())?;
                fs::rename(&self.main, self.aside())
            }
            Step::Rename(path) if exists(&path_for(path)) => fs::rename(path_for(path), path),
            Step::SetOldAside | Step::Rename(_) => Ok(()),
            Step::Sync => sync_folder(self.main.parent().unwrap_or(Path::new("."))).map_err(io::Error::other),
            Step::RemoveOld => remove_if_there(&self.aside()),
            Step::RemoveJournal => fs::remove_file(&self.path),
        }
    }

    /// Goes back to before the first rename, if that is possible, and says whether it was.
    fn undo(&self) -> bool {
        let all = self.beside.iter().chain([&self.main]);
        if !all.into_iter().all(|path| exists(&path_for(path))) {
            return false;
        }
        let back =
            exists(&self.main) || !exists(&self.aside()) || fs::rename(self.aside(), &self.main).is_ok();
        back && fs::remove_file(&self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a folder holds: names and texts.
    fn content(folder: &Path) -> Vec<(String, String)> {
        let mut found: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let path = entry.path();
                let text = if path.is_dir() { path.join("file") } else { path };
                (entry.file_name().into_string().unwrap(), fs::read_to_string(text).unwrap())
            })
            .collect();
        found.sort();
        found
    }

    fn put(path: &Path, text: &str, is_folder: bool) {
        if is_folder {
            fs::create_dir(path).unwrap();
            fs::write(path.join("file"), text).unwrap();
        } else {
            fs::write(path, text).unwrap();
        }
    }

    fn expect(folder: &Path, pairs: &[(&str, &str)]) {
        let pairs: Vec<_> = pairs.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect();
        assert_eq!(content(folder), pairs);
    }

    #[test]
    fn a_kill_after_any_step_leaves_what_the_next_command_finishes() {
        for is_folder in [false, true] {
            for old in [false, true] {
                let beside: &[&str] = if is_folder { &[] } else { &["m.data", "n.data"] };
                let mut after = vec![("m", "new m")];
                after.extend(
                    beside.iter().map(|&name| (name, if name == "m.data" { "new 1" } else { "new 2" })),
                );
                for done in 0..=beside.len() + 5 {
                    let folder = tempfile::tempdir().unwrap();
                    let main = fs::canonicalize(folder.path()).unwrap().join("m");
                    if old {
                        put(&main, "old", is_folder);
                        beside.iter().for_each(|name| put(&main.with_file_name(name), "old", false));
                    }
                    put(&path_for(&main), "new m", is_folder);
                    let beside: Vec<_> = beside.iter().map(|name| main.with_file_name(name)).collect();
                    for (number, path) in beside.iter().enumerate() {
                        put(&path_for(path), &format!("new {}", number + 1), false);
                    }
                    let journal = Journal::begin(&main, beside).unwrap();
                    let steps = journal.steps();
                    steps.iter().take(done).for_each(|step| journal.take(step).unwrap());
                    let is_mixed = exists(&main)
                        && content(main.parent().unwrap())
                            .iter()
                            .any(|(name, text)| name == "m" && text == "old")
                        && done > 0;
                    assert!(!is_mixed, "{done} steps");
                    drop(journal);
                    finish_interrupted(&main).unwrap();
                    finish_interrupted(&main).unwrap();
                    expect(folder.path(), &after);
                }
            }
        }
    }

    #[test]
    fn a_journal_that_is_cut_short_or_hostile_renames_nothing() {
        for text in ["", "{\"beside\":[\"m.da", "{\"beside\":[\"../x\"]}", "{\"beside\":[\"\"]}", "[]"] {
            let folder = tempfile::tempdir().unwrap();
            let main = fs::canonicalize(folder.path()).unwrap().join("m");
            put(&main, "old", false);
            fs::write(journal_of(&main), text).unwrap();
            finish_interrupted(&main).unwrap();
            expect(folder.path(), &[("m", "old")]);
        }
    }

    #[test]
    fn a_commit_that_fails_before_its_first_rename_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let main = fs::canonicalize(folder.path()).unwrap().join("m");
        let data = main.with_file_name("m.data");
        put(&main, "old", false);
        put(&path_for(&main), "new", false);
        put(&path_for(&data), "new data", false);
        // A file cannot replace a folder that holds something.
        put(&data, "in the way", true);
        let before = content(folder.path());
        let (_, undone) = commit(&Target::find(&main).unwrap(), vec![data]).unwrap_err();
        assert!(undone);
        assert_eq!(content(folder.path()), before);
    }
}
