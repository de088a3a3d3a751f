//! LoRA adapters: the folders of PEFT and mlx-lm and llama.cpp's GGUF files, to be merged or run, and those
//! that curmerge trains.
//!
//! The change of a matrix is `scale B A`. Both thin matrices stay in the mapped file until their target is
//! merged. Adapters that do more (DoRA, trained biases or embeddings, PiSSA's changed base) are refused: a
//! merge without that part would silently write another model.

mod experts;
mod gguf;
mod mlx;
mod modules;
pub mod peft;
mod svd;
mod trained;
mod trained_on;
mod whole;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use curmerge_formats::detect::{Container, detect};
use curmerge_formats::dtype::DType;
use curmerge_formats::gguf::Gguf;
use curmerge_formats::quant;
use curmerge_formats::safetensors::SafeTensors;
use ndarray::{Array2, s};

use crate::base::{Base, RowOrder, Weight};
use crate::cur::Factors;
use crate::{Error, Result};
use experts::Strided;

use trained_on::TrainedOn;

pub use trained::{LoraMethod, LoraOptions, LoraTarget, TrainedLora};

const CHECKED: &str = "opening the adapter checked the shapes";

/// An open LoRA adapter, its targets under canonical names.
#[derive(Debug)]
pub struct Lora {
    path: PathBuf,
    file: File,
    targets: BTreeMap<String, Target>,
    trained_on: Option<TrainedOn>,
}

/// The file that holds the matrices.
#[derive(Debug)]
enum File {
    Gguf(Gguf),
    SafeTensors(SafeTensors),
}

/// One matrix of the file, `[rows, cols]`.
#[derive(Clone, Debug)]
struct Stored {
    /// The name in the file, for errors.
    name: String,
    dtype: DType,
    rows: usize,
    cols: usize,
    /// Its bytes, from the start of the file.
    place: Range<u64>,
    /// Whether the file has the transpose of the matrix, `[cols, rows]`.
    is_transposed: bool,
    /// Which numbers of its bytes, if not all.
    strided: Option<Strided>,
}

impl Stored {
    /// Fails for a tensor that is not a matrix; `path` is the file that the error names.
    fn new(path: &Path, name: &str, dtype: DType, shape: &[u64], place: Range<u64>) -> Result<Self> {
        let [rows, cols] = *shape else {
            let problem = format!("has {} dimensions, but a LoRA's matrices have two", shape.len());
            let tensor = format!("tensor '{}'", name.escape_debug());
            return Err(Error::input(path, tensor, problem, "only adapters of linear layers can be merged"));
        };
        let (rows, cols) = (rows as usize, cols as usize);
        Ok(Self { name: name.into(), dtype, rows, cols, place, is_transposed: false, strided: None })
    }

    /// The matrix whose transpose this is.
    fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, is_transposed: !self.is_transposed, ..self }
    }
}

/// The change of one matrix of the base.
#[derive(Clone, Debug)]
struct Target {
    /// `[rank, n]`
    a: Stored,
    /// `[m, rank]`, in the file's order of rows.
    b: Stored,
    order: RowOrder,
    /// The file's order of the columns of A.
    columns: RowOrder,
    /// alpha / rank, or what the kind of adapter has in its place.
    scale: f32,
}

impl Lora {
    /// Whether this is a LoRA of another program: a folder with the configuration of PEFT or mlx-lm, or a GGUF
    /// file of type adapter.
    pub fn is_lora(path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        peft::is_folder(path)
            || matches!(detect(path), Ok(Container::Gguf))
                && Gguf::open(path).is_ok_and(|g| gguf::is_lora(&g))
    }

    /// Opens a LoRA for this base.
    ///
    /// # Errors
    /// A damaged file; another kind of adapter; a target that the base does not have, or has in another
    /// shape.
    pub fn open(path: impl AsRef<Path>, base: &Base) -> Result<Self> {
        let path = path.as_ref();
        let lora = match path.is_dir() {
            true if mlx::is_folder(path) => mlx::open(path, base)?,
            true => peft::open(path, base)?,
            false => gguf::open(path, base)?,
        };
        for (name, target) in &lora.targets {
            let weight = base.weight(name)?;
            // Of several matrices in one module, reading it checked its rows.
            let rows = if target.order.is_spaced() { target.b.rows } else { weight.rows() };
            let fits = target.a.cols == weight.cols() && target.b.rows == rows;
            if !fits || target.a.rows != target.b.cols || target.a.rows == 0 {
                let [a, b] = [&target.a, &target.b].map(|m| [m.rows, m.cols]);
                let problem =
                    format!("A is {a:?} and B {b:?}, for a matrix of [{}, {}]", weight.rows(), weight.cols());
                return Err(lora.error(&target.a.name, problem, "use the base that it was trained on"));
            }
        }
        if lora.targets.is_empty() {
            return Err(Error::file(path, "has no LoRA matrices", "name an adapter that has some"));
        }
        Ok(lora)
    }

    /// The folder or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a user should know of it, one line each: that it was trained on another base than this one seems
    /// to be, or that it changes nothing.
    ///
    /// # Errors
    /// A number that is not finite.
    pub fn notes(&self, base: &Base) -> Result<Vec<String>> {
        let path = self.path.display();
        let other = self.trained_on.as_ref().and_then(|trained_on| trained_on.differs_from(base));
        let mut notes: Vec<String> = other.iter().map(|other| format!("{path}: {other}")).collect();
        for target in self.targets.values() {
            let is_zero = |stored| self.values(stored).map(|values| values.iter().all(|x| *x == 0.0));
            if !is_zero(&target.b)? && !is_zero(&target.a)? {
                return Ok(notes);
            }
        }
        notes.push(format!("{path}: A or B of every matrix is 0, so the adapter changes nothing"));
        Ok(notes)
    }

    /// The files that decide what an adapter at this path is.
    pub fn files(path: &Path) -> Vec<PathBuf> {
        match path.is_dir() {
            true => {
                let weights = if mlx::is_folder(path) { mlx::WEIGHTS } else { peft::WEIGHTS };
                vec![path.join(peft::CONFIG), path.join(weights)]
            }
            false => vec![path.into()],
        }
    }

    /// Canonical names of the matrices that it changes, sorted.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.targets.keys().map(String::as_str)
    }

    /// The rank of one of [`Self::targets`].
    pub fn rank(&self, name: &str) -> Option<usize> {
        self.targets.get(name).map(|target| target.a.rows)
    }

    /// B, and A times `factor` times the adapter's own scale, of one of [`Self::targets`]. The rows of B are
    /// in canonical order.
    ///
    /// # Errors
    /// No such target; a number that is not finite.
    pub fn factors(&self, name: &str, weight: &Weight<'_>, factor: f32) -> Result<Factors> {
        let target = self.targets.get(name).ok_or_else(|| self.no_target(name))?;
        self.scaled(target, weight, factor * target.scale)
    }

    /// B, and A times `scale`, of a target.
    fn scaled(&self, target: &Target, weight: &Weight<'_>, scale: f32) -> Result<Factors> {
        let (a, b) = (self.values(&target.a)?, self.values(&target.b)?);
        let rank = target.a.rows;
        let c = (0..weight.rows()).flat_map(|row| &b[target.order.stored_row(row) * rank..][..rank]).copied();
        let columns = (0..rank).flat_map(|k| (0..weight.cols()).map(move |col| (k, col)));
        let entry = |(k, col)| scale * a[k * target.a.cols + target.columns.stored_row(col)];
        let p: Vec<f32> = columns.map(entry).collect();
        if !p.iter().all(|x| x.is_finite()) {
            let help = "use a smaller scale";
            return Err(self.error(&target.a.name, "scale * A is beyond what f32 holds".into(), help));
        }
        Ok(Factors::new(c.collect(), p, rank, weight.cols()))
    }

    /// The thin matrices of every target, for a model to run with: B, and A times `factor` times the
    /// adapter's own scale. A fused matrix gives one target for each of its parts, with the same A.
    ///
    /// # Errors
    /// Those of [`Self::factors`]; a matrix that the model runs without adapters, such as an expert's.
    pub fn thin_targets(&self, base: &Base, factor: f32) -> Result<Vec<LoraTarget>> {
        let adaptable = base.adaptable()?;
        let mut targets = Vec::new();
        for (name, target) in &self.targets {
            let parts = in_parts(base, self.thin(base, name, factor * target.scale)?);
            if let Some(LoraTarget { name, .. }) = parts.iter().find(|part| !adaptable.contains(&part.name)) {
                let problem =
                    format!("changes '{}', which a model runs without adapters", name.escape_debug());
                let help = "merge the adapter, and use the merged model";
                return Err(self.error(&target.a.name, problem, help));
            }
            targets.extend(parts);
        }
        Ok(targets)
    }

    /// The thin matrices of every target with a factor that all of them have, which is left out of A; and
    /// that factor.
    ///
    /// # Errors
    /// Those of [`Self::factors`]; an adapter that its own scale turns off.
    fn unscaled_targets(&self, base: &Base) -> Result<(Vec<LoraTarget>, f32)> {
        let Some(scale) = self.targets.values().map(|target| target.scale).find(|scale| *scale != 0.0) else {
            return Err(Error::file(
                &self.path,
                "has the scale 0, and changes nothing",
                "train a new adapter",
            ));
        };
        let targets = self.targets.iter();
        let targets = targets.map(|(name, target)| self.thin(base, name, target.scale / scale));
        Ok((targets.collect::<Result<_>>()?, scale))
    }

    /// The thin matrices of a target: B, and A times `scale`.
    fn thin(&self, base: &Base, name: &str, scale: f32) -> Result<LoraTarget> {
        let weight = base.weight(name)?;
        let Factors { c, p, rank, .. } = self.scaled(&self.targets[name], &weight, scale)?;
        let matrix = |rows, cols, values| Array2::from_shape_vec((rows, cols), values).expect(CHECKED);
        let (a, b) = (matrix(rank, weight.cols(), p), matrix(weight.rows(), rank, c));
        Ok(LoraTarget { name: name.into(), a, b, u: None })
    }

    /// The thin matrices of one of [`Self::targets`] as the file has them, and the adapter's own scale of their
    /// product. The rows of B and the columns of A are in canonical order.
    ///
    /// # Errors
    /// Those of [`Self::factors`].
    pub fn target(&self, base: &Base, name: &str) -> Result<(LoraTarget, f32)> {
        let target = self.targets.get(name).ok_or_else(|| self.no_target(name))?;
        Ok((self.thin(base, name, 1.0)?, target.scale))
    }

    fn values(&self, stored: &Stored) -> Result<Vec<f32>> {
        let file = match &self.file {
            File::Gguf(file) => file.bytes(),
            File::SafeTensors(file) => file.bytes(),
        };
        // Opening the container checked that the tensor lies within it.
        let bytes = &file[stored.place.start as usize..stored.place.end as usize];
        let bytes = match &stored.strided {
            Some(strided) => Cow::Owned(strided.gather(bytes)),
            None => Cow::Borrowed(bytes),
        };
        let mut values = vec![0.0; stored.rows * stored.cols];
        quant::decode(stored.dtype, &bytes, &mut values)
            .map_err(|e| self.error(&stored.name, e.to_string(), "write it again in F32, F16 or BF16"))?;
        if let Some(x) = values.iter().find(|x| !x.is_finite()) {
            return Err(self.error(&stored.name, format!("holds {x}"), "the adapter is damaged"));
        }
        if stored.is_transposed {
            let own = |row: usize| (0..stored.cols).map(move |col| col * stored.rows + row);
            return Ok((0..stored.rows).flat_map(own).map(|place| values[place]).collect());
        }
        Ok(values)
    }

    fn no_target(&self, name: &str) -> Error {
        Error::file(&self.path, format!("does not change '{name}'"), "merge another")
    }

    fn error(&self, tensor: &str, problem: String, help: &str) -> Error {
        Error::input(&self.path, format!("tensor '{}'", tensor.escape_debug()), problem, help)
    }
}

/// The parts of a fused matrix, each with the same A; else the matrix itself.
fn in_parts(base: &Base, whole: LoraTarget) -> Vec<LoraTarget> {
    let parts = base.parts(&whole.name);
    if parts.is_empty() {
        return vec![whole];
    }
    let part = |(name, rows): (String, Range<u64>)| {
        let b = whole.b.slice(s![rows.start as usize..rows.end as usize, ..]).to_owned();
        LoraTarget { name, a: whole.a.clone(), b, u: None }
    };
    parts.into_iter().map(part).collect()
}

/// The two matrices of each target, while a file is read.
#[derive(Default)]
struct Pairs(BTreeMap<String, [Option<Stored>; 2]>);

impl Pairs {
    /// Records `stored` as A (0) or B (1) of `name`.
    ///
    /// # Errors
    /// The file has it twice, under another name.
    fn put(&mut self, path: &Path, name: String, part: usize, stored: Stored) -> Result<()> {
        let place = format!("tensor '{}'", stored.name.escape_debug());
        match self.0.entry(name).or_default()[part].replace(stored) {
            None => Ok(()),
            Some(other) => {
                let problem = format!("means the same as '{}'", other.name.escape_debug());
                Err(Error::input(path, place, problem, "write the adapter again"))
            }
        }
    }

    /// Every target with both matrices. `finish` adds the order of rows and the scale.
    fn finish(
        self,
        path: &Path,
        finish: impl Fn(&str, Stored, Stored) -> Result<Target>,
    ) -> Result<BTreeMap<String, Target>> {
        let mut targets = BTreeMap::new();
        for (name, pair) in self.0 {
            let [Some(a), Some(b)] = pair else {
                let place = format!("target '{}'", name.escape_debug());
                let problem = "has only one of its two matrices";
                return Err(Error::input(path, place, problem, "write the adapter again"));
            };
            let target = finish(&name, a, b)?;
            targets.insert(name, target);
        }
        Ok(targets)
    }
}
