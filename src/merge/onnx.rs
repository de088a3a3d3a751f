//! Merging into an ONNX model: of its files only the values of changed tensors are other bytes.
//!
//! A matrix in blocks is three tensors, which may lie in different files; what belongs to a file that is not yet written
//! waits in memory. External files are renamed before the model that names them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use curmerge_formats::onnx::{Change, NewFile, Node, Onnx, OnnxTensor, Piece, RewriteOptions, rewrite};
use curmerge_formats::output::{OutputFile, OutputFolder, Queue, Stretch, write_behind};

use super::MergeOptions;
use super::report::TensorReport;
use super::storage::Storage;
use super::tensor::Adapted;
use super::terms::Term;
use super::{blocks, carried};
use crate::base::{Base, BaseTensor, OnnxModel};
use crate::convert::onnx_companions;
use crate::{Error, Result};

/// A changed matrix, and the positions among the changes of what it is stored as.
struct Job<'a> {
    adapted: Adapted<'a>,
    /// Its values or codes, and of blocks the scales and zero points.
    changes: Vec<usize>,
}

/// A merge into an ONNX base.
#[derive(Clone, Copy)]
pub(super) struct Merge<'a> {
    pub(super) base: &'a Base,
    pub(super) model: &'a OnnxModel,
    /// What is added, by the names of stored tensors.
    pub(super) terms: &'a BTreeMap<&'a str, Vec<Term<'a>>>,
    pub(super) options: &'a MergeOptions<'a>,
}

impl Merge<'_> {
    /// Write the merged model and the files beside it; `done` hears of every changed tensor, and how many there are.
    pub(super) fn write(
        &self,
        out: &Path,
        confirm: &mut dyn FnMut() -> Result<()>,
        mut done: impl FnMut(TensorReport, u64),
    ) -> Result<()> {
        let Merge { base, model, terms, options } = *self;
        let onnx = model.onnx();
        let mut users = BTreeMap::<&str, Vec<(&str, &BaseTensor)>>::new();
        for (canonical, tensor) in base.tensors() {
            users.entry(&tensor.stored_name).or_default().push((canonical, tensor));
        }
        let (mut changes, mut jobs) = (Vec::new(), Vec::new());
        for (name, terms) in terms {
            let (canonical, tensor) = sole_user(base, name, users.get(name).map_or(&[], Vec::as_slice))?;
            check_storage(base, canonical, tensor, options.storage)?;
            let weight = base.stored_weight(canonical)?;
            // Of several, the block that they are in.
            let block = canonical.rsplit_once('.').map_or(canonical, |(block, _)| block);
            let label = if tensor.slice.is_some() { block } else { canonical };
            let adapted = Adapted { name: label, terms, weight, weights: None, dtype: tensor.dtype };
            let beside =
                tensor.nbits.iter().flat_map(|nbits| [Some(&nbits.scales), nbits.zero_points.as_ref()]);
            let names = std::iter::once(*name).chain(beside.flatten().map(|part| part.stored_name.as_str()));
            let first = changes.len();
            for name in names {
                changes.push(change(base, onnx, name)?);
            }
            jobs.push(Job { adapted, changes: (first..changes.len()).collect() });
        }
        let files = rewrite(onnx, &changes, &rewrite_options(onnx, out)?)?;
        let inputs = options.inputs(base);
        let folder = out.parent().unwrap_or(Path::new(""));
        let path = |file: &NewFile<'_>| file.location.as_ref().map_or(out.to_path_buf(), |l| folder.join(l));
        let outputs = files.iter().map(|file| Ok(OutputFile::create(&path(file), &inputs)?));
        let mut outputs = outputs.collect::<Result<Vec<_>>>()?;

        let count = jobs.len() as u64;
        let mut merging = Merging { base, jobs, waiting: BTreeMap::new() };
        for (file, output) in files.iter().zip(&outputs) {
            merging.write(file, output, confirm, &mut |report| done(report, count))?;
        }
        // The model's own file is the last.
        match outputs.pop() {
            Some(model) => Ok(model.commit_behind(outputs)?),
            None => Ok(()),
        }
    }

    /// [`Self::write`] the merged model under its own name into a folder, and what belongs to it: configurations and
    /// tokenizer. Returns where the model is.
    pub(super) fn write_folder(
        &self,
        out: &Path,
        confirm: &mut dyn FnMut() -> Result<()>,
        done: impl FnMut(TensorReport, u64),
    ) -> Result<PathBuf> {
        let Merge { base, model, options, .. } = *self;
        let folder = OutputFolder::create(out, &options.inputs(base), options.force)?;
        let name = model.onnx().path().file_name().unwrap_or_default();
        // As transformers.js lays models out.
        let own = if model.is_in_subfolder() { Path::new("onnx").join(name) } else { PathBuf::from(name) };
        folder.subfolder(own.parent().unwrap_or(Path::new("")))?;
        self.write(&folder.path().join(&own), confirm, done)?;
        for name in onnx_companions::of_folder(model.folder())? {
            carried::copy(&model.folder().join(&name), &name, &folder)?;
        }
        folder.commit()?;
        Ok(out.join(own))
    }
}

/// The matrix that is stored under this name, or one of those that are. Fails where the tensor is more than that.
fn sole_user<'b>(
    base: &Base,
    name: &str,
    users: &[(&'b str, &'b BaseTensor)],
) -> Result<(&'b str, &'b BaseTensor)> {
    match *users {
        [] => {
            let place = format!("tensor '{name}'");
            Err(Error::input(base.path(), place, "missing", "download the model again"))
        }
        // Slices do not overlap.
        [(canonical, tensor), (other, _), ..] if tensor.slice.is_none() => {
            let problem = format!("it is also {other}, which a merge would change too");
            let help = "export the model again without sharing weights";
            Err(Error::input(base.path(), format!("tensor '{canonical}'"), problem, help))
        }
        [user, ..] => Ok(user),
    }
}

/// Types are fixed by the graph.
fn check_storage(base: &Base, name: &str, tensor: &BaseTensor, storage: Storage) -> Result<()> {
    let same = match storage {
        Storage::AsStored => true,
        Storage::Only(dtype) => tensor.nbits.is_none() && tensor.dtype == dtype,
        Storage::Narrowest { .. } => false,
    };
    if same {
        return Ok(());
    }
    let problem =
        format!("the graph takes it as {}, and a merge leaves the graph as it is", tensor.type_name());
    let help = "leave out --type and --type-adapted";
    Err(Error::input(base.path(), format!("tensor '{name}'"), problem, help))
}

/// The change of the constant of this name, which one node uses.
fn change<'m>(base: &Base, onnx: &'m Onnx, name: &'m str) -> Result<Change<'m>> {
    let refuse = |problem: String| {
        let help = "export the model again without sharing weights";
        Error::input(base.path(), format!("tensor '{}'", name.escape_debug()), problem, help)
    };
    let tensor: &OnnxTensor = onnx.constant(name).ok_or_else(|| refuse("no constant".into()))?;
    if let [one, other] = users(onnx, name)[..] {
        let called = |node: &Node| format!("{} '{}'", node.op_type.escape_debug(), node.name.escape_debug());
        return Err(refuse(format!(
            "{} and {} both use it, and a merge changes one",
            called(one),
            called(other)
        )));
    }
    Ok(Change { tensor, element: tensor.element, dims: tensor.dims.clone() })
}

/// The nodes that use a value for more than its form, at most two of them.
fn users<'m>(onnx: &'m Onnx, name: &'m str) -> Vec<&'m Node> {
    let (mut found, mut seen, mut names) = (Vec::new(), BTreeSet::from([name]), vec![name]);
    while let Some(name) = names.pop() {
        for node in onnx.users_of(name) {
            match node.op_type.as_str() {
                "Transpose" | "Cast" | "Identity" | "Reshape" => {
                    names.extend(node.outputs.iter().map(String::as_str).filter(|name| seen.insert(name)));
                }
                _ => found.push(node),
            }
            if found.len() > 1 {
                return found;
            }
        }
    }
    found
}

/// Files beside the model keep their names where the model keeps its own, and else are called after it.
fn rewrite_options(onnx: &Onnx, out: &Path) -> Result<RewriteOptions> {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_string);
    let own = name(out).ok_or_else(|| {
        Error::input(out, "output", "no name that files can be called after", "name a .onnx file")
    })?;
    let before = name(onnx.path());
    let mut options = RewriteOptions::new(String::new());
    let mut taken = vec![own.clone()];
    for file in onnx.external_files() {
        let location = &file.location;
        let basename = location.rsplit('/').next().unwrap_or(location);
        if before.as_ref() == Some(&own) && basename == location {
            taken.push(location.clone());
            continue;
        }
        let rest = before.as_ref().and_then(|before| basename.strip_prefix(before.as_str()));
        let mut new = rest.map_or_else(|| format!("{own}.{basename}"), |rest| format!("{own}{rest}"));
        while taken.contains(&new) {
            new += "_";
        }
        taken.push(new.clone());
        options.locations.insert(location.clone(), new);
    }
    options.external = format!("{own}.data");
    while taken.contains(&options.external) {
        options.external += "_";
    }
    Ok(options)
}

/// A merge on its way through the files.
struct Merging<'a> {
    base: &'a Base,
    /// What is not yet computed.
    jobs: Vec<Job<'a>>,
    /// What is computed for files to come, by the position of its change.
    waiting: BTreeMap<usize, Vec<u8>>,
}

impl Merging<'_> {
    fn write(
        &mut self,
        file: &NewFile<'_>,
        output: &OutputFile,
        confirm: &mut dyn FnMut() -> Result<()>,
        done: &mut dyn FnMut(TensorReport),
    ) -> Result<()> {
        let (mut stretches, mut places, mut place) = (Vec::new(), BTreeMap::new(), 0);
        for piece in &file.pieces {
            match piece {
                Piece::Bytes(bytes) => stretches.push((place, Stretch::Bytes(bytes))),
                &Piece::Copy { source, offset, len } => {
                    stretches.push((place, Stretch::Copy { source, offset, len }));
                }
                Piece::Change { index, .. } => {
                    places.insert(*index, place);
                }
            }
            place += piece.bytes();
        }
        write_behind(output, &stretches, |queue| {
            confirm()?;
            for (index, place) in &places {
                if let Some(bytes) = self.waiting.remove(index) {
                    queue.write_at(*place, bytes)?;
                }
            }
            let here = |job: &Job<'_>| job.changes.iter().any(|index| places.contains_key(index));
            let (now, later) = std::mem::take(&mut self.jobs).into_iter().partition(here);
            self.jobs = later;
            let mut now: Vec<Job<'_>> = now;
            // In the order in which they lie in the file.
            now.sort_by_key(|job| job.changes.iter().filter_map(|index| places.get(index)).min().copied());
            now.iter().try_for_each(|job| self.compute(job, &places, queue).map(&mut *done))
        })
    }

    /// Merge a matrix; what belongs to another file waits.
    fn compute(
        &mut self,
        job: &Job<'_>,
        places: &BTreeMap<usize, u64>,
        queue: &Queue<'_>,
    ) -> Result<TensorReport> {
        let mut written = vec![0u64; job.changes.len()];
        let waiting = &mut self.waiting;
        let mut put = |part: usize, bytes: Vec<u8>| -> Result<()> {
            let Some(index) = job.changes.get(part) else { return Ok(()) };
            match places.get(index) {
                Some(place) => {
                    let at = place + written[part];
                    written[part] += bytes.len() as u64;
                    Ok(queue.write_at(at, bytes)?)
                }
                None => {
                    waiting.entry(*index).or_default().extend(bytes);
                    Ok(())
                }
            }
        };
        match job.adapted.weight.nbits() {
            Some(own) => blocks::merge(&job.adapted, own, self.base.path(), |parts| {
                parts.into_iter().enumerate().try_for_each(|(part, bytes)| put(part, bytes))
            }),
            None => job.adapted.each_block(self.base.path(), |bytes| put(0, bytes)),
        }
    }
}
