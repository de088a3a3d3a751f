//! Outputs appear whole or not at all, and never replace an input.

use std::fs;
use std::io::Write;
use std::path::Path;

use curmerge_formats::output::{Piece, Pieces, write_behind};
use curmerge_formats::{Error, MappedFile, OutputFile, OutputFolder};
use tempfile::TempDir;

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_appears_on_commit_only() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("out.gguf");
    fs::write(&path, "old").unwrap();
    let mut file = OutputFile::create(&path, &[]).unwrap();
    file.append(b"new and whole").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    drop(file);
    assert_eq!(names(folder.path()), ["out.gguf"]);
    assert_eq!(fs::read(&path).unwrap(), b"old");

    let mut file = OutputFile::create(&path, &[]).unwrap();
    file.append(b"new and whole").unwrap();
    file.commit().unwrap();
    assert_eq!(names(folder.path()), ["out.gguf"]);
    assert_eq!(fs::read(&path).unwrap(), b"new and whole");
}

#[test]
fn writes_land_at_their_offsets() {
    let folder = TempDir::new().unwrap();
    let source_path = folder.path().join("source");
    let content: Vec<u8> = (0..100_000u32).map(|i| (i * 7 / 3) as u8).collect();
    fs::write(&source_path, &content).unwrap();
    let source = MappedFile::open(&source_path).unwrap();
    let path = folder.path().join("out");
    let mut file = OutputFile::create(&path, &[&source_path]).unwrap();
    file.append(b"head").unwrap();
    file.copy_from(&source, 5, 90_001).unwrap();
    assert_eq!(file.position(), 90_005);
    file.write_all_at(1, b"E").unwrap();
    assert_eq!(file.position(), 90_005);
    file.write_all(b"tail").unwrap();
    file.write_all_at(90_020, b"far").unwrap();
    assert!(matches!(file.copy_from(&source, 99_999, 2), Err(Error::Io { .. })));
    assert!(matches!(file.copy_from(&source, u64::MAX, 2), Err(Error::Io { .. })));
    file.copy_from(&source, 100_000, 0).unwrap();
    file.commit().unwrap();
    let expected = [b"hEad", &content[5..90_006], b"tail", &[0; 11], b"far"].concat();
    assert!(fs::read(&path).unwrap() == expected);
}

#[test]
fn an_input_is_never_replaced() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = at("model");
    fs::create_dir(&model).unwrap();
    fs::write(at("in.gguf"), "input").unwrap();
    fs::write(model.join("model.safetensors"), "shard").unwrap();
    fs::hard_link(at("in.gguf"), at("hard.gguf")).unwrap();
    let mut outputs =
        vec![at("in.gguf"), at("hard.gguf"), model.join("../in.gguf"), model.join("model.safetensors")];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("in.gguf", at("soft.gguf")).unwrap();
        std::os::unix::fs::symlink("model", at("linked")).unwrap();
        outputs.extend([at("soft.gguf"), at("linked").join("model.safetensors")]);
    }
    let input = at("in.gguf");
    for output in outputs {
        let refused = OutputFile::create(&output, &[&input, &model]);
        assert!(matches!(refused, Err(Error::SameFile { .. })), "{}", output.display());
    }
    // Another file beside them may be written, and so may a new file in the folder.
    OutputFile::create(&at("out.gguf"), &[&input, &model]).unwrap();
    OutputFile::create(&model.join("out.gguf"), &[&input, &model]).unwrap();
}

#[test]
fn only_files_are_replaced_by_files() {
    let folder = TempDir::new().unwrap();
    assert!(matches!(OutputFile::create(folder.path(), &[]), Err(Error::WrongKind { .. })));
    let missing = folder.path().join("no/such/out.gguf");
    let error = OutputFile::create(&missing, &[]).unwrap_err().to_string();
    assert!(error.contains("no/such:") && error.contains("folder"), "{error}");
    #[cfg(unix)]
    assert!(matches!(OutputFile::create(Path::new("/dev/null"), &[]), Err(Error::WrongKind { .. })));
}

#[cfg(unix)]
#[test]
fn permissions_and_links_are_those_of_an_ordinary_write() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let write = |path: &Path| {
        let mut file = OutputFile::create(path, &[]).unwrap();
        file.append(b"new").unwrap();
        file.commit().unwrap();
    };
    fs::write(at("ordinary"), "").unwrap();
    write(&at("fresh"));
    assert_eq!(mode(&at("fresh")), mode(&at("ordinary")));
    fs::write(at("closed"), "").unwrap();
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o640)).unwrap();
    write(&at("closed"));
    assert_eq!(mode(&at("closed")), 0o640);

    symlink("ordinary", at("link")).unwrap();
    write(&at("link"));
    assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
    assert_eq!(fs::read(at("ordinary")).unwrap(), b"new");

    fs::create_dir(at("ordinary folder")).unwrap();
    OutputFolder::create(&at("fresh folder"), &[], false).unwrap().commit().unwrap();
    assert_eq!(mode(&at("fresh folder")), mode(&at("ordinary folder")));
}

fn fill(folder: &OutputFolder) {
    let mut file = folder.file("config.json").unwrap();
    file.append(b"{}").unwrap();
    file.commit().unwrap();
}

#[test]
fn a_folder_appears_on_commit_only() {
    let parent = TempDir::new().unwrap();
    let path = parent.path().join("out");
    let folder = OutputFolder::create(&path, &[], false).unwrap();
    fill(&folder);
    drop(folder);
    assert!(names(parent.path()).is_empty());

    let folder = OutputFolder::create(&path, &[], false).unwrap();
    fill(&folder);
    for name in ["", "..", "a/b", "/etc/x"] {
        assert!(matches!(folder.file(name), Err(Error::Encode { .. })), "{name:?}");
    }
    folder.commit().unwrap();
    assert_eq!(names(parent.path()), ["out"]);
    assert_eq!(names(&path), ["config.json"]);
}

#[test]
fn an_existing_folder_is_replaced_only_with_force() {
    let parent = TempDir::new().unwrap();
    let path = parent.path().join("out");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("old.onnx"), "").unwrap();
    assert!(matches!(OutputFolder::create(&path, &[], false), Err(Error::Exists { .. })));
    let folder = OutputFolder::create(&path, &[], true).unwrap();
    fill(&folder);
    assert_eq!(names(&path), ["old.onnx"]);
    folder.commit().unwrap();
    assert_eq!(names(&path), ["config.json"]);
    assert_eq!(names(parent.path()), ["out"]);

    fs::write(parent.path().join("file"), "").unwrap();
    let refused = OutputFolder::create(&parent.path().join("file"), &[], true);
    assert!(matches!(refused, Err(Error::WrongKind { .. })));
}

#[test]
fn a_removed_folder_is_not_created_again() {
    let parent = tempfile::tempdir().unwrap();
    let folder = OutputFolder::create(&parent.path().join("out"), &[], false).unwrap();
    for _ in 0..2 {
        folder.subfolder(Path::new("a/b")).unwrap();
        folder.subfolder(Path::new("")).unwrap();
        assert!(folder.path().join("a/b").is_dir());
    }
    fs::remove_dir_all(folder.path()).unwrap();
    let message = folder.subfolder(Path::new("a/b")).unwrap_err().to_string();
    assert!(message.contains("create"), "{message}");
    assert!(names(parent.path()).is_empty());
}

#[test]
fn a_folder_that_appears_before_commit_stays() {
    let parent = TempDir::new().unwrap();
    let path = parent.path().join("out");
    let folder = OutputFolder::create(&path, &[], false).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(folder.commit(), Err(Error::Exists { .. })));
    assert_eq!(names(parent.path()), ["out"]);
}

#[test]
fn a_folder_never_replaces_an_input() {
    let parent = TempDir::new().unwrap();
    let at = |name: &str| parent.path().join(name);
    fs::create_dir_all(at("models/small")).unwrap();
    fs::write(at("models/small/model.safetensors"), "").unwrap();
    let (model, file) = (at("models/small"), at("models/small/model.safetensors"));
    for output in [at("models"), at("models/small"), at("models/small/out"), at("models/../models/small")] {
        let refused = OutputFolder::create(&output, &[&model], true);
        assert!(matches!(refused, Err(Error::SameFile { .. })), "{}", output.display());
    }
    assert!(matches!(OutputFolder::create(&model, &[&file], true), Err(Error::SameFile { .. })));
    OutputFolder::create(&at("models/other"), &[&model], true).unwrap();
}

#[test]
fn computed_bytes_are_written_among_copied_ones() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // Longer than one copy.
    let long: Vec<u8> = (0..9 << 20).map(|i: u32| (i % 251) as u8).collect();
    fs::write(at("source"), &long).unwrap();
    let source = MappedFile::open(&at("source")).unwrap();
    let len = long.len() as u64 - 5;
    let mut pieces = Pieces::default();
    pieces.extend([
        Piece::Bytes(b"head".to_vec()),
        Piece::Copy { source: &source, offset: 5, len },
        Piece::Computed { index: 0, len: 200 },
        Piece::Bytes(b"end".to_vec()),
    ]);
    assert_eq!(pieces.bytes(), len + 207);
    let file = OutputFile::create(&at("out"), &[]).unwrap();
    let answer: Result<u8, Error> = write_behind(&file, &pieces, |queue| {
        for i in 0..100u8 {
            queue.write_at(len + 4 + 2 * u64::from(i), vec![i; 2])?;
        }
        Ok(7)
    });
    assert_eq!(answer.unwrap(), 7);
    file.commit().unwrap();
    let computed = (0..100).flat_map(|i| [i; 2]);
    let right: Vec<u8> = b"head".iter().chain(&long[5..]).copied().chain(computed).chain(*b"end").collect();
    assert!(fs::read(at("out")).unwrap() == right);

    let file = OutputFile::create(&at("none"), &[]).unwrap();
    let refused =
        write_behind(&file, &pieces, |_| Err::<(), _>(Error::encode("place", "a reason", "what to do")));
    assert!(refused.unwrap_err().to_string().contains("a reason"));
    // The error is that of the failed copy, not that the queue is closed.
    let mut beyond = Pieces::default();
    beyond.push(Piece::Copy { source: &source, offset: len, len: 6 });
    let failed: Result<(), Error> = write_behind(&file, &beyond, |queue| {
        while queue.write_at(0, vec![0; 1 << 16]).is_ok() {}
        queue.write_at(0, Vec::new())
    });
    assert!(failed.unwrap_err().to_string().contains("goes past its end"));
    drop(file);
    assert_eq!(names(folder.path()), ["out", "source"]);
}

#[test]
fn pieces_join_and_keep_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("source"), b"0123456789").unwrap();
    let source = MappedFile::open(&at("source")).unwrap();
    let write = |pieces: &Pieces<'_>| {
        let mut file = OutputFile::create(&at("out"), &[]).unwrap();
        pieces.write(&mut file, |index| Ok(vec![b'a' + index as u8; 2])).unwrap();
        file.commit().unwrap();
        fs::read(at("out")).unwrap()
    };
    let replaced = Pieces::in_place(&source, [(0, 2, 0), (2, 2, 1), (7, 2, 2)]);
    assert_eq!((replaced.iter().count(), write(&replaced)), (5, b"aabb456cc9".to_vec()));
    let copy = |offset, len| Piece::Copy { source: &source, offset, len };
    let placed = [(4, copy(0, 2)), (6, copy(2, 3)), (12, Piece::Computed { index: 3, len: 2 })];
    let laid_out = Pieces::laid_out(b"head", placed, 16);
    // The two copies are adjacent in both files.
    assert_eq!((laid_out.iter().count(), laid_out.bytes()), (5, 16));
    assert_eq!(write(&laid_out), b"head01234\0\0\0dd\0\0".to_vec());
    let mut file = OutputFile::create(&at("none"), &[]).unwrap();
    let refused = replaced.write(&mut file, |_| Ok(vec![0; 3])).unwrap_err();
    assert!(refused.to_string().contains("3 bytes, but 2 were laid out"), "{refused}");
}

#[test]
fn a_second_writer_is_refused_until_the_first_one_ends() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let busy = |path: &Path| {
        let error = OutputFile::create(path, &[]).unwrap_err();
        assert!(matches!(error, Error::Busy { .. }), "{error}");
        let error = OutputFolder::create(path, &[], false).unwrap_err();
        assert!(matches!(error, Error::Busy { .. }), "{error}");
    };
    let first = OutputFile::create(&at("out"), &[]).unwrap();
    busy(&at("out"));
    OutputFile::create(&at("other"), &[]).unwrap();
    drop(first);
    let first = OutputFolder::create(&at("out"), &[], false).unwrap();
    busy(&at("out"));
    // What is reserved may be begun here, but nowhere else.
    let reserved = first.reserve();
    assert_eq!(names(folder.path()).len(), 1);
    let first = OutputFolder::create(&at("out"), &[], false).unwrap();
    busy(&at("out"));
    drop((reserved, first));
    let reserved = OutputFile::create(&at("out"), &[]).unwrap().reserve();
    drop(reserved);
    assert!(names(folder.path()).is_empty());
    let mut file = OutputFile::create(&at("out"), &[]).unwrap();
    file.append(b"whole").unwrap();
    file.commit().unwrap();
    assert_eq!(names(folder.path()), ["out"]);
}

#[test]
fn what_a_killed_program_left_is_removed_by_the_next_writer() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("out");
    let file = OutputFile::create(&path, &[]).unwrap();
    let [temporary] = &names(folder.path())[..] else { panic!("one temporary file") };
    let temporary = folder.path().join(temporary);
    drop(file);
    let write = || {
        OutputFile::create(&path, &[]).unwrap().commit().unwrap();
        assert_eq!(names(folder.path()), ["out"]);
    };
    fs::write(&temporary, "half").unwrap();
    write();
    fs::create_dir_all(temporary.join("sub")).unwrap();
    write();
    // A link in its place is removed, and not followed.
    #[cfg(unix)]
    {
        let mine = TempDir::new().unwrap();
        fs::write(mine.path().join("mine"), "mine").unwrap();
        std::os::unix::fs::symlink(mine.path().join("mine"), &temporary).unwrap();
        write();
        assert_eq!(fs::read(mine.path().join("mine")).unwrap(), b"mine");
    }
}

#[test]
fn files_of_one_output_appear_together() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("m.onnx"), "old").unwrap();
    let paths = [at("m.data"), at("m.onnx")];
    let mut files = OutputFile::create_together(&paths, &[]).unwrap();
    files.iter_mut().for_each(|file| file.append(b"new").unwrap());
    let model = files.pop().unwrap();
    assert!(matches!(OutputFile::create_together(&paths, &[]), Err(Error::Busy { .. })));
    model.commit_after(files).unwrap();
    assert_eq!(names(folder.path()), ["m.data", "m.onnx"]);
    assert!(paths.iter().all(|path| fs::read(path).unwrap() == b"new"));
    #[cfg(unix)]
    {
        let other = TempDir::new().unwrap();
        std::os::unix::fs::symlink(other.path().join("x"), at("n.data")).unwrap();
        fs::write(other.path().join("x"), "").unwrap();
        let refused = OutputFile::create_together(&[at("n.data"), at("n.onnx")], &[]).unwrap_err();
        assert!(refused.to_string().contains("a link into another folder"), "{refused}");
    }
}
