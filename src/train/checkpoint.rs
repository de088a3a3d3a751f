//! The state of a run in a file, from which a run with the same options resumes.
//!
//! It is a safetensors file like the adapter. Each trained matrix has, under its target's canonical name
//! (with `.lora_a`, `.lora_b` or `.lora_u` for a LoRA), F32 tensors of its shape, here called U: `NAME.u`
//! (not shrunk), `NAME.mean` and `NAME.square` (AdamW's) and, once validated, `NAME.best` (U at the best
//! validation). The metadata hold `format`, `version` and JSON texts: `progress`, `settings` and `base` (what
//! the resuming run must have in common with this one) and `digests` (the SHA-256 of each tensor, so that an
//! error names the damaged one). `sha256` is that of the whole file. The initial U is not in it: it follows
//! from the base and the settings, which hold the digest of an initial adapter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use curmerge_formats::safetensors::sealed::{seal, verify_part, verify_seal};
use curmerge_formats::{DType, NewSafeTensor, OutputFile, SafeTensors, sha256_hex};
use ndarray::Array2;
use serde::de::DeserializeOwned;

use super::optimizer::{AdamW, AdamWOptions, Means};
use super::{Observer, Progress, State};
use crate::error::shortened;
use crate::{Error, Result};

const FORMAT: &str = "format";
const FORMAT_NAME: &str = "curmerge-checkpoint";
const VERSION: &str = "version";
const VERSION_NUMBER: &str = "1";
const PROGRESS: &str = "progress";
const SETTINGS: &str = "settings";
const BASE: &str = "base";
const DIGESTS: &str = "digests";

/// The most settings that [`Error::OtherRun`] names.
const MOST_DIFFERENCES: usize = 8;
/// The setting that [`Error::OtherRun`] names if the base differs.
const BASE_SETTING: &str = "base";
/// The setting that [`Error::OtherRun`] names if the trained matrices differ.
const TARGETS_SETTING: &str = "targets";

/// What decides a run's result. Two runs with equal identities are the same run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// Each option with its value; for a file, its digest.
    pub settings: BTreeMap<String, String>,
    /// The SHA-256 of each tensor of the base, as stored.
    pub base: BTreeMap<String, String>,
    /// Name and shape `[c, r]` of each trained matrix, in the model's order.
    pub trained: Vec<(String, (usize, usize))>,
}

/// The place of a run's checkpoints: one file, which each new checkpoint replaces.
#[derive(Debug)]
pub struct CheckpointFile<'a> {
    path: PathBuf,
    inputs: &'a [&'a Path],
    identity: Identity,
}

impl<'a> CheckpointFile<'a> {
    /// The path of the checkpoint of a run that writes this adapter.
    pub fn beside(adapter: &Path) -> PathBuf {
        let mut name = adapter.as_os_str().to_owned();
        name.push(".checkpoint");
        name.into()
    }

    /// For checkpoints of this run at `path`, which must be none of `inputs`.
    pub fn new(path: PathBuf, inputs: &'a [&'a Path], identity: Identity) -> Self {
        CheckpointFile { path, inputs, identity }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a state, whole or not at all.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn write(&self, state: &State) -> Result<()> {
        let bytes = to_bytes(&self.identity, state)?;
        let mut file = OutputFile::create(&self.path, self.inputs)?;
        file.append(&bytes)?;
        Ok(file.commit()?)
    }

    /// The state to resume from.
    ///
    /// # Errors
    /// [`Error::NoCheckpoint`], damage, or [`Error::OtherRun`], which names the difference.
    pub fn read(&self, options: AdamWOptions) -> Result<State> {
        if !self.path.exists() {
            return Err(Error::NoCheckpoint { path: self.path.clone() });
        }
        let file = SafeTensors::open(&self.path).map_err(damaged)?;
        let reader = Reader { file: &file };
        reader.check_format()?;
        reader.verify()?;
        reader.compare(&self.identity)?;
        reader.state(&self.identity, options)
    }

    /// Removes the file, if there is one.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn remove(&self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&self.path, "remove", e)),
            _ => Ok(()),
        }
    }
}

impl Observer for CheckpointFile<'_> {
    fn checkpoint(&mut self, state: &State) -> Result<()> {
        self.write(state)
    }
}

fn to_bytes(identity: &Identity, state: &State) -> Result<Vec<u8>> {
    let mut tensors = Vec::new();
    let mut data = Vec::new();
    let mut digests = BTreeMap::new();
    for (i, (target, (c, r))) in identity.trained.iter().enumerate() {
        let Means { mean, square } = &state.adam.means()[i];
        let parts = [("u", Some(&state.matrices[i])), ("mean", Some(mean)), ("square", Some(square))];
        let best = ("best", state.best.as_ref().map(|best| &best[i]));
        for (part, matrix) in parts.into_iter().chain([best]) {
            let Some(matrix) = matrix else { continue };
            let name = format!("{target}.{part}");
            let bytes: Vec<u8> = matrix.iter().flat_map(|value| value.to_le_bytes()).collect();
            digests.insert(name.clone(), sha256_hex(&bytes));
            tensors.push(NewSafeTensor { name, dtype: DType::F32, shape: vec![*c as u64, *r as u64] });
            data.extend(bytes);
        }
    }
    let text = |key: &str, json: serde_json::Result<String>| -> Result<(String, String)> {
        json.map(|json| (key.to_owned(), json))
            .map_err(|e| Error::request(e.to_string(), "report this as a bug"))
    };
    let metadata = [
        (FORMAT.to_owned(), FORMAT_NAME.to_owned()),
        (VERSION.to_owned(), VERSION_NUMBER.to_owned()),
        text(PROGRESS, serde_json::to_string(&state.progress))?,
        text(SETTINGS, serde_json::to_string(&identity.settings))?,
        text(BASE, serde_json::to_string(&identity.base))?,
        text(DIGESTS, serde_json::to_string(&digests))?,
    ];
    Ok(seal(BTreeMap::from(metadata), tensors, &data)?)
}

/// An error of the container, with what to do about a checkpoint.
fn damaged(error: curmerge_formats::Error) -> Error {
    use curmerge_formats::Error::{Checksum, Malformed};
    match error {
        Checksum { path, place, .. } => {
            unusable(&path, place, "damaged: its SHA-256 is not the one recorded")
        }
        Malformed { path, place, problem, .. } => unusable(&path, place, problem),
        other => other.into(),
    }
}

fn unusable(path: &Path, place: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::input(path, place, problem, "delete the checkpoint and start a new run")
}

/// An open checkpoint.
struct Reader<'a> {
    file: &'a SafeTensors,
}

impl Reader<'_> {
    fn check_format(&self) -> Result<()> {
        if self.file.metadata().get(FORMAT).is_none_or(|format| format != FORMAT_NAME) {
            let help = "name another output";
            return Err(Error::file(self.file.path(), "is no checkpoint of curmerge", help));
        }
        match self.text(VERSION)? {
            VERSION_NUMBER => Ok(()),
            other => {
                let problem = format!("version '{}' of checkpoints is not known", shortened(other, 20));
                let help = "resume with the curmerge that wrote it";
                Err(Error::input(self.file.path(), VERSION, problem, help))
            }
        }
    }

    fn text(&self, key: &str) -> Result<&str> {
        let text = self.file.metadata().get(key);
        text.map(String::as_str).ok_or_else(|| unusable(self.file.path(), key, "the key is missing"))
    }

    fn json<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        serde_json::from_str(self.text(key)?)
            .map_err(|e| unusable(self.file.path(), key, shortened(&e.to_string(), 200)))
    }

    /// Checks the tensors first, so that an error names the damaged one. What only the digest of the file
    /// finds is in the header.
    fn verify(&self) -> Result<()> {
        if let Ok(digests) = self.json::<BTreeMap<String, String>>(DIGESTS) {
            for tensor in self.file.tensors() {
                let place = format!("tensor '{}'", shortened(&tensor.name, 80));
                if let Some(recorded) = digests.get(&tensor.name) {
                    verify_part(self.file.path(), place, recorded, self.file.data(tensor))
                        .map_err(damaged)?;
                }
            }
        }
        verify_seal(self.file).map_err(damaged)
    }

    /// Refuses a checkpoint of a run that differs in anything that decides its result.
    fn compare(&self, now: &Identity) -> Result<()> {
        let was: BTreeMap<String, String> = self.json(SETTINGS)?;
        let keys: BTreeSet<_> = was.keys().chain(now.settings.keys()).collect();
        let mut differences = keys.into_iter().filter(|&key| was.get(key) != now.settings.get(key));
        if let Some(first) = differences.next() {
            let problem = |key: &String| {
                let shown = |settings: &BTreeMap<String, String>| {
                    settings.get(key).map_or("not known".into(), |value| shortened(value, 40))
                };
                format!("the run began with {}, and now it is {}", shown(&was), shown(&now.settings))
            };
            // More than the first, since one option may decide several settings; a hostile file may have any number.
            let others = differences
                .take(MOST_DIFFERENCES - 1)
                .map(|key| format!("; {}: {}", shortened(key, 60), problem(key)));
            return Err(self.other_run(first, problem(first) + &others.collect::<String>()));
        }
        let base: BTreeMap<String, String> = self.json(BASE)?;
        let mut names = base.keys().chain(now.base.keys());
        if let Some(name) = names.find(|&name| base.get(name) != now.base.get(name)) {
            let problem = format!("its tensor '{}' has changed", shortened(name, 80));
            return Err(self.other_run(BASE_SETTING, problem));
        }
        let mut trained: BTreeSet<&str> = now.trained.iter().map(|(name, _)| name.as_str()).collect();
        for tensor in self.file.tensors() {
            let Some(name) = tensor.name.strip_suffix(".u") else { continue };
            if !trained.remove(name) {
                let problem = format!("the run began with '{}' too", shortened(name, 80));
                return Err(self.other_run(TARGETS_SETTING, problem));
            }
        }
        match trained.first() {
            Some(name) => Err(self.other_run(TARGETS_SETTING, format!("the run began without '{name}'"))),
            None => Ok(()),
        }
    }

    fn other_run(&self, setting: &str, problem: String) -> Error {
        Error::OtherRun { path: self.file.path().into(), setting: shortened(setting, 60), problem }
    }

    fn state(&self, now: &Identity, options: AdamWOptions) -> Result<State> {
        let progress: Progress = self.json(PROGRESS)?;
        let misfit = |problem: &str| unusable(self.file.path(), PROGRESS, problem);
        let steps = i32::try_from(progress.steps()).map_err(|_| misfit("it has too many steps"))?;
        let ascending = progress.validation.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !ascending || progress.validated() > Some(progress.steps()) {
            return Err(misfit("its validations are not in the order of its steps"));
        }
        let all = |part: &str| -> Result<Vec<Array2<f32>>> {
            now.trained
                .iter()
                .map(|(target, shape)| self.matrix(format!("{target}.{part}"), *shape))
                .collect()
        };
        let means = all("mean")?.into_iter().zip(all("square")?);
        let best = self.file.tensors().iter().any(|tensor| tensor.name.ends_with(".best"));
        Ok(State {
            progress,
            matrices: all("u")?,
            adam: AdamW::after(options, steps, means.map(|(mean, square)| Means { mean, square }).collect()),
            best: best.then(|| all("best")).transpose()?,
        })
    }

    fn matrix(&self, name: String, shape: (usize, usize)) -> Result<Array2<f32>> {
        let misfit = || {
            let problem = format!("it is missing, or not F32 of shape [{}, {}]", shape.0, shape.1);
            unusable(self.file.path(), format!("tensor '{name}'"), problem)
        };
        let tensor =
            self.file.tensor(&name).filter(|tensor| tensor.dtype == DType::F32).ok_or_else(misfit)?;
        if tensor.shape != [shape.0 as u64, shape.1 as u64] {
            return Err(misfit());
        }
        let (values, _) = self.file.data(tensor).as_chunks::<4>();
        let values = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Array2::from_shape_vec(shape, values).map_err(|_| misfit())
    }
}
