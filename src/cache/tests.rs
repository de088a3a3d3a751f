use std::time::{Duration, SystemTime};

use super::*;

#[derive(Debug, PartialEq)]
struct Numbers(Vec<u32>);

impl Cached for Numbers {
    fn parts(&self) -> Vec<Part<'_>> {
        vec![Part::new("numbers", &[self.0.len()], &self.0)]
    }
}

fn key(seed: u64) -> Key {
    Key::new("test", "numbers".into()).with("seed", seed)
}

/// The numbers of a seed, how often they were made, and the warnings.
fn keep(cache: &Cache, seed: u64) -> (Numbers, usize, Vec<String>) {
    let (mut made, mut warnings) = (0, Vec::new());
    let restore = |file: &SafeTensors| Some(Numbers(numbers(file, "numbers", Some(&[250]))?));
    let make = || {
        made += 1;
        Ok(Numbers(vec![seed as u32; 250]))
    };
    let numbers = cache.keep(&key(seed), restore, make, |error| warnings.push(error.to_string())).unwrap();
    (numbers, made, warnings)
}

#[test]
fn a_result_is_made_once_and_again_when_its_file_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().join("a/b"), DEFAULT_LIMIT);
    assert!(cache.entries().unwrap().is_empty());
    let ones = || Numbers(vec![1; 250]);
    assert_eq!(keep(&cache, 1), (ones(), 1, vec![]));
    assert_eq!(keep(&cache, 1), (ones(), 0, vec![]));
    assert_eq!(keep(&cache, 2).1, 1);
    let path = cache.folder().join(key(1).file_name());
    let whole = std::fs::read(&path).unwrap();
    for change in [0, 20, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[change] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let (found, made, warnings) = keep(&cache, 1);
        assert_eq!((found, made, warnings.len()), (ones(), 1, 1), "byte {change}: {warnings:?}");
        assert!(warnings[0].contains("made again") && !warnings[0].contains('\n'), "{warnings:?}");
        assert!(std::fs::read(&path).unwrap() == whole, "the same bytes again");
    }
    for bytes in [&whole[..whole.len() / 2], b"", b"something else"] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(keep(&cache, 1).1, 1);
    }
    // A whole file under another's name.
    std::fs::copy(cache.folder().join(key(2).file_name()), &path).unwrap();
    assert_eq!(keep(&cache, 1).0, ones());
    // A folder in the place of the file, which nothing can replace.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let (found, made, warnings) = keep(&cache, 1);
    assert_eq!((found, made, warnings.len()), (ones(), 1, 2), "{warnings:?}");
}

#[test]
fn the_longest_unused_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("foreign.safetensors");
    std::fs::write(&foreign, [0; 5000]).unwrap();
    let cache = Cache::new(folder.path().into(), 5000);
    let file = |seed| folder.path().join(key(seed).file_name());
    for (age, seed) in [1, 2, 3].into_iter().enumerate() {
        keep(&cache, seed);
        let used = SystemTime::now() - Duration::from_secs(100 - age as u64);
        let file = OpenOptions::new().append(true).open(file(seed)).unwrap();
        file.set_modified(used).unwrap();
    }
    // A use makes the oldest the newest.
    assert_eq!(keep(&cache, 1).1, 0);
    keep(&cache, 4);
    assert!(file(1).exists() && !file(2).exists() && file(3).exists() && file(4).exists());
    assert_eq!(cache.entries().unwrap().len(), 3);
    let bytes = cache.entries().unwrap().iter().map(|entry| entry.bytes).sum();
    assert_eq!(cache.clear().unwrap(), Cleared { files: 3, bytes });
    assert!(cache.entries().unwrap().is_empty() && foreign.exists());
    // What is larger than the cache is not kept.
    let (_, made, warnings) = keep(&Cache::new(folder.path().into(), 10), 5);
    assert!(made == 1 && warnings.is_empty() && !file(5).exists());
}
