//! A model split into several GGUF files by llama.cpp's `gguf-split`.
//!
//! The files are named `NAME-00001-of-00003.gguf` and so on. Each is a GGUF file with some of the tensors and
//! three keys: `split.no` (u16, from 0), `split.count` (u16) and `split.tensors.count` (i32, the total over
//! all files). The first has all other metadata too. A loader gets the first file and finds the others by
//! name (`llama_model_loader` and `llama_split_path` of llama.cpp). `gguf-split --merge` leaves a
//! `split.count` of 0 in the whole file, so only a count above 1 means splits.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;

use super::{ALIGNMENT_KEY, Gguf, GgufTensor, Value};
use crate::error::{Error, FETCH_AGAIN, Result, quoted};

const NUMBER_KEY: &str = "split.no";
const COUNT_KEY: &str = "split.count";
const TENSORS_KEY: &str = "split.tensors.count";

/// An open model: one GGUF file, or all splits of one.
#[derive(Debug)]
pub struct GgufModel {
    /// In the order of their numbers; at least one.
    files: Vec<Gguf>,
}

impl GgufModel {
    /// Opens a whole GGUF file, or the first split together with all others, which must be in the same
    /// folder.
    ///
    /// # Errors
    /// Those of [`Gguf::open`] for each file; [`Error::Malformed`] for a split that is not the first, one
    /// whose name does not say its number, a split that is missing or of another model, a tensor in two of
    /// them, and a number of tensors other than the first file's `split.tensors.count`.
    pub fn open(path: &Path) -> Result<Self> {
        let first = Gguf::open(path)?;
        let count = match first.get(COUNT_KEY) {
            Some(_) => number(&first, COUNT_KEY)?,
            None => 0,
        };
        if count <= 1 {
            return Ok(GgufModel { files: vec![first] });
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        check_is_first(&first, name, count)?;
        let Some(stem) = name.strip_suffix(&split_ending(0, count)) else {
            let problem = format!("the first of {count} splits, called {}", quoted(name));
            let help =
                format!("rename it to end in {}: the others are found by name", split_ending(0, count));
            return Err(Error::malformed(path, "file name", problem, help));
        };
        let mut files = vec![first];
        for index in 1..count {
            let path = path.with_file_name(split_name(stem, index, count));
            files.push(open_other(&path, name, index, count)?);
        }
        check_tensors(&files)?;
        Ok(GgufModel { files })
    }

    /// The file that holds all metadata.
    pub fn first(&self) -> &Gguf {
        &self.files[0]
    }

    /// The whole file, or all splits in their order.
    pub fn files(&self) -> &[Gguf] {
        &self.files
    }

    /// Every tensor, with the index of its file.
    pub fn tensors(&self) -> impl Iterator<Item = (usize, &GgufTensor)> {
        self.files.iter().enumerate().flat_map(|(index, file)| file.tensors().iter().map(move |t| (index, t)))
    }

    /// The tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.files.iter().find_map(|file| file.tensor(name))
    }

    /// The metadata without the split keys: that of the same model in one file.
    pub fn whole_metadata(&self) -> Vec<(String, Value)> {
        let is_split_key = |key: &str| matches!(key, NUMBER_KEY | COUNT_KEY | TENSORS_KEY);
        self.first().metadata().iter().filter(|(key, _)| !is_split_key(key)).cloned().collect()
    }
}

/// The name of a split, `index` from 0: `split_name("model", 0, 3)` is `model-00001-of-00003.gguf`.
pub fn split_name(stem: &str, index: u64, count: u64) -> String {
    stem.to_owned() + &split_ending(index, count)
}

/// The metadata of a split, `index` from 0, of a model whose whole file has `metadata` without split keys:
/// all of it in the first, the alignment in every one.
///
/// # Errors
/// [`Error::Encode`] for more splits or tensors than the keys' types can count.
pub fn split_metadata(
    metadata: &[(String, Value)],
    index: usize,
    count: usize,
    tensors: usize,
) -> Result<Vec<(String, Value)>> {
    let (Ok(number), Ok(count), Ok(tensors)) =
        (u16::try_from(index), u16::try_from(count), i32::try_from(tensors))
    else {
        let problem = format!("{count} splits of {tensors} tensors are more than the format can count");
        return Err(Error::encode(COUNT_KEY, problem, "allow larger splits"));
    };
    let here = |key: &str| index == 0 || key == ALIGNMENT_KEY;
    let mut own: Vec<_> = metadata.iter().filter(|(key, _)| here(key)).cloned().collect();
    own.push((NUMBER_KEY.to_owned(), Value::U16(number)));
    own.push((COUNT_KEY.to_owned(), Value::U16(count)));
    own.push((TENSORS_KEY.to_owned(), Value::I32(tensors)));
    Ok(own)
}

fn split_ending(index: u64, count: u64) -> String {
    format!("-{:05}-of-{count:05}.gguf", index + 1)
}

/// The value of one of the keys above.
fn number(file: &Gguf, key: &str) -> Result<u64> {
    let value = file.get(key);
    value.and_then(Value::as_u64).ok_or_else(|| {
        let problem = value.map_or_else(
            || "missing".to_owned(),
            |value| format!("a {} that is not a count", value.type_name()),
        );
        malformed(file, key, problem, FETCH_AGAIN)
    })
}

fn malformed(file: &Gguf, key: &str, problem: String, help: &str) -> Error {
    Error::malformed(file.path(), format!("key {key:?}"), problem, help)
}

fn check_is_first(file: &Gguf, name: &str, count: u64) -> Result<()> {
    let index = number(file, NUMBER_KEY)?;
    if index == 0 {
        return Ok(());
    }
    if index >= count {
        let problem = format!("{index}, counted from 0, but there are {count} splits");
        return Err(malformed(file, NUMBER_KEY, problem, FETCH_AGAIN));
    }
    let problem = format!("the file is split {} of {count}", index + 1);
    let help = match name.strip_suffix(&split_ending(index, count)) {
        Some(stem) => {
            let first = file.path().with_file_name(split_name(stem, 0, count));
            format!("name the first, {}", first.display())
        }
        None => format!("name the first, which ends in {}", split_ending(0, count)),
    };
    Err(malformed(file, NUMBER_KEY, problem, &help))
}

/// Opens a split that is not the first, and checks that it is the one its name says.
fn open_other(path: &Path, first: &str, index: u64, count: u64) -> Result<Gguf> {
    let file = Gguf::open(path).map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
            let place = format!("split {} of {count}", index + 1);
            let help = format!("download it into the folder of {}", quoted(first));
            Error::malformed(path, place, "missing", help)
        }
        other => other,
    })?;
    for (key, wanted) in [(COUNT_KEY, count), (NUMBER_KEY, index)] {
        let found = number(&file, key)?;
        if found != wanted {
            let problem = format!("{found}, but with {} it must be {wanted}", quoted(first));
            let help = "download all splits of one model again";
            return Err(malformed(&file, key, problem, help));
        }
    }
    Ok(file)
}

fn check_tensors(files: &[Gguf]) -> Result<()> {
    let mut holders = HashMap::new();
    for file in files {
        for tensor in file.tensors() {
            if let Some(other) = holders.insert(tensor.name.as_str(), file.path()) {
                let place = format!("tensor {}", quoted(&tensor.name));
                let problem = format!("also in {}", other.display());
                let help = "download all splits of one model again";
                return Err(Error::malformed(file.path(), place, problem, help));
            }
        }
    }
    let promised = number(&files[0], TENSORS_KEY)?;
    if promised != holders.len() as u64 {
        let problem = format!("{promised}, but the {} splits hold {} tensors", files.len(), holders.len());
        let help = "download all splits of one model again";
        return Err(malformed(&files[0], TENSORS_KEY, problem, help));
    }
    Ok(())
}
